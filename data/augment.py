"""Training augmentation of batches, on the device of the images: VIMC and the standard augmentations.

All random numbers are drawn on the CPU from one generator, so a seed gives the same numbers on every device.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from data.hue import adjust_hue
from data.vimc import channel_cutmix, spectrum_jitter, weighted_grayscale
from utils.tensors import send

NOTHING, HUE, GRAYSCALE, CUTMIX, SPECTRUM = range(5)  # kinds of colour change
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PADDING_VALUE = 127
ASPECT = (0.3, 3.3)  # height / width of rectangles, log-uniform
TRIES = 10  # rectangles drawn per image; the first one that fits is taken
CPU_CHUNK = 32  # images at a time on a CPU; smaller chunks are slower with several threads, larger ones with one

# kind -> the function, and the fields of AugmentParameters that it takes
COLOUR_CHANGES: dict[int, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    HUE: (adjust_hue, ("hue",)),
    GRAYSCALE: (weighted_grayscale, ("weights",)),
    CUTMIX: (channel_cutmix, ("background", "foreground", "cutmix_box")),
    SPECTRUM: (spectrum_jitter, ("background", "factor")),
}


@dataclass(frozen=True)
class AugmentParameters:
    """Augmentation parameters of each image of a batch, on the CPU; the first dimension of each field is the batch."""

    colour: Tensor  # (B,) kind: NOTHING, HUE, GRAYSCALE, CUTMIX or SPECTRUM
    hue: Tensor  # (B,) hue shift as a fraction of the hue circle
    weights: Tensor  # (B, 3) channel weights of the weighted grayscale
    background: Tensor  # (B,) channel that the cutmix starts from; also the channel of the spectrum jitter
    foreground: Tensor  # (B,) channel that the cutmix pastes into the box
    cutmix_box: Tensor  # (B, 4) top, left, height, width
    factor: Tensor  # (B,) weight of the original image in the spectrum jitter
    flip: Tensor  # (B,) booleans; True mirrors the image
    shift: Tensor  # (B, 2) pixels by which the crop window moves down and right, each in [-padding, padding]
    erase_box: Tensor  # (B, 4) top, left, height, width; height 0 erases nothing

    def __getitem__(self, rows: slice | Tensor) -> "AugmentParameters":
        return AugmentParameters(**{name: values[rows] for name, values in vars(self).items()})


class BatchAugment:
    """Draw parameters and apply them: uint8 (B, 3, H, W) -> normalised float32 (B, 3, H, W).

    For a visible image one of {hue jitter, weighted grayscale, channel cutmix, spectrum jitter} is drawn uniformly, and
    applied with probability ``vimc_p``. Then every image is padded, flipped, cropped, normalised and erased. A disabled
    augmentation is still drawn, but the image stays unchanged: its probability is not given to the other three, and the
    other images get the same augmentations as if it were enabled.

    Args:
        color_jitter, vimc_wg, vimc_cc, vimc_sj: which of the four may be applied.
        vimc_p: probability that the drawn one is applied.
        hue_range: largest shift of the hue, as a fraction of the hue circle.
        cutmix_area: smallest and largest rectangle of the cutmix, as a fraction of the image.
        cutmix_region: ``released`` swaps height and width of the image when the rectangle of the cutmix is drawn,
            ``full`` does not.
        random_flip, random_crop, random_erase: which of the standard augmentations are applied.
        erase_p: probability that a rectangle of an image is erased.
        erase_area: smallest and largest such rectangle, as a fraction of the image.
        padding: pixels of padding before the crop.
        padding_value: grey level of the padding, 0 to 255.
        seed: the seed of the generator.
    """

    def __init__(
        self,
        *,
        color_jitter: bool = True,
        vimc_wg: bool = True,
        vimc_cc: bool = True,
        vimc_sj: bool = True,
        vimc_p: float = 0.5,
        hue_range: float = 0.2,
        cutmix_area: Sequence[float] = (0.02, 0.33),
        cutmix_region: str = "released",
        random_flip: bool = True,
        random_crop: bool = True,
        random_erase: bool = True,
        erase_p: float = 0.5,
        erase_area: Sequence[float] = (0.02, 0.30),
        padding: int = 10,
        padding_value: int = PADDING_VALUE,
        seed: int = 0,
    ):
        if cutmix_region not in ("released", "full"):
            raise ValueError(f"unknown cutmix_region {cutmix_region!r}; choose from released, full")
        self.enabled = torch.tensor([True, color_jitter, vimc_wg, vimc_cc, vimc_sj])  # indexed by kind
        self.vimc_p, self.hue_range, self.erase_p = vimc_p, hue_range, erase_p
        self.cutmix_area, self.erase_area = cutmix_area, erase_area
        self.swap_region = cutmix_region == "released"
        self.random_flip, self.random_crop, self.random_erase = random_flip, random_crop, random_erase
        self.padding, self.padding_value = padding, padding_value
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, images: Tensor, infrared: Tensor) -> Tensor:
        """``images`` uint8 (B, 3, H, W) on any device, ``infrared`` (B,) booleans on the CPU."""
        height, width = images.shape[-2:]
        return augment(images, self.draw(infrared, (height, width)), padding_value=self.padding_value)

    def draw(self, infrared: Tensor, size: tuple[int, int]) -> AugmentParameters:
        """Draw the parameters of a batch of images of ``size`` (height, width); ``infrared`` (B,) booleans."""
        count = len(infrared)
        chosen = self._integers(1, 5, count)
        applied = (self._uniform(count) < self.vimc_p) & ~infrared.cpu() & self.enabled[chosen]
        weights = self._uniform(count, 3)
        background = self._integers(0, 3, count)
        foreground = (background + self._integers(1, 3, count)) % 3
        # as released: height and width swapped, see docs/differences.md
        region = size[::-1] if self.swap_region else size
        parameters = AugmentParameters(
            colour=torch.where(applied, chosen, NOTHING),
            hue=(self._uniform(count) * 2 - 1) * self.hue_range,
            weights=weights / weights.sum(dim=1, keepdim=True),
            background=background,
            foreground=foreground,
            cutmix_box=self._draw_boxes(count, region, self.cutmix_area),
            factor=self._uniform(count),
            flip=(self._uniform(count) < 0.5) & self.random_flip,
            shift=self._integers(-self.padding, self.padding + 1, count, 2) * self.random_crop,
            erase_box=self._draw_boxes(count, size, self.erase_area),
        )
        erased = (self._uniform(count) < self.erase_p) & self.random_erase
        return replace(parameters, erase_box=parameters.erase_box * erased[:, None])

    def state_dict(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator)

    def _integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator)

    def _draw_boxes(self, count: int, size: tuple[int, int], area: Sequence[float]) -> Tensor:
        """``count`` rectangles inside ``size`` (height, width), as (count, 4) top, left, height, width.

        The first of ``TRIES`` rectangles that fits is taken; if none fits, height and width are 0.
        """
        wanted = (area[0] + (area[1] - area[0]) * self._uniform(count, TRIES)) * size[0] * size[1]
        low, high = map(math.log, ASPECT)
        aspect = torch.exp(low + (high - low) * self._uniform(count, TRIES))
        heights, widths = (wanted * aspect).sqrt().round().long(), (wanted / aspect).sqrt().round().long()
        fits = (heights < size[0]) & (widths < size[1])
        first = fits.int().argmax(dim=1, keepdim=True)
        found = fits.any(dim=1)
        height, width = (sides.gather(1, first)[:, 0] * found for sides in (heights, widths))
        top = (self._uniform(count) * (size[0] - height + 1)).long()
        left = (self._uniform(count) * (size[1] - width + 1)).long()
        return torch.stack([top, left, height, width], dim=1)


def augment(images: Tensor, parameters: AugmentParameters, *, padding_value: int = PADDING_VALUE) -> Tensor:
    """Apply drawn parameters: uint8 (B, 3, H, W) -> normalised float32 (B, 3, H, W), on the device of the images.

    Args:
        padding_value: grey level of what lies outside the images, 0 to 255.
    """
    result = torch.empty(images.shape, device=images.device)
    chunk_size = CPU_CHUNK if images.device.type == "cpu" else len(images)
    for start in range(0, len(images), chunk_size):
        rows = slice(start, start + chunk_size)
        chunk_parameters = parameters[rows]
        chunk_result = result[rows]  # a view
        coloured = _change_colours(images[rows], chunk_parameters)
        chunk_result.copy_(_flip_and_crop(coloured, chunk_parameters.flip, chunk_parameters.shift, padding_value))
        _normalise_in_place(chunk_result)
        _erase(chunk_result, chunk_parameters.erase_box)
    return result


def normalise(images: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) -> float32: scaled to [0, 1], minus the ImageNet mean, divided by its standard deviation."""
    return _normalise_in_place(images.to(torch.float32, copy=True))


def _normalise_in_place(images: Tensor) -> Tensor:
    mean, std = _imagenet(images.device)
    return images.div_(255).sub_(mean).div_(std)


@cache
def _imagenet(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (3, 1, 1) each. Cached, because the copy to a GPU synchronises with it."""
    with torch.inference_mode(False):  # they must not be inference tensors, because training uses them
        mean, std = (torch.tensor(values)[:, None, None].to(device) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return mean, std


def _change_colours(images: Tensor, parameters: AugmentParameters) -> Tensor:
    """uint8 (B, 3, H, W) -> uint8 (B, 3, H, W)."""
    result = images.clone()
    for kind, (change, names) in COLOUR_CHANGES.items():
        rows = (parameters.colour == kind).nonzero()[:, 0]  # on the CPU: does not synchronise with a GPU
        if len(rows):
            arguments = [send(getattr(parameters, name)[rows], images.device) for name in names]
            rows = send(rows, images.device)
            result.index_copy_(0, rows, change(images.index_select(0, rows), *arguments))
    return result


def _flip_and_crop(images: Tensor, flip: Tensor, shift: Tensor, padding_value: int) -> Tensor:
    """Pad images with one grey level, mirror them, and cut out the window that is moved by ``shift``.

    Args:
        flip: (B,) booleans.
        shift: (B, 2) pixels down and right.
    """
    height, width = images.shape[-2:]
    padding = int(shift.abs().max())
    padded = functional.pad(images, [padding] * 4, value=padding_value)
    windows = []
    for image, mirrored, (top, left) in zip(padded, flip.tolist(), (shift + padding).tolist(), strict=True):
        image = image.flip(-1) if mirrored else image
        windows.append(image[:, top : top + height, left : left + width])
    return torch.stack(windows)


def _erase(images: Tensor, boxes: Tensor) -> None:
    """Set rectangles of normalised images to 0, the mean colour after normalisation, in place.

    Args:
        boxes: (B, 4) top, left, height, width.
    """
    for image, (top, left, height, width) in zip(images, boxes.tolist(), strict=True):
        image[:, top : top + height, left : left + width].zero_()
