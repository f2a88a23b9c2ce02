"""Training augmentation in batches, on the device of the images: VIMC and the standard augmentations.

All random numbers are drawn on the CPU from one generator, so they are the same on every device, and sent to the device
through pinned memory, so that nothing waits for it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from data.hue import adjust_hue
from data.transfer import send
from data.vimc import (
    CUTMIX,
    GRAYSCALE,
    HUE,
    JITTER,
    NOTHING,
    box_mask,
    channel_cutmix,
    spectrum_jitter,
    weighted_grayscale,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PADDING_VALUE = 127
HUE_RANGE = 0.2
CUTMIX_AREA = (0.02, 0.33)  # of the image
ERASE_AREA = (0.02, 0.30)
ASPECT = (0.3, 3.3)  # height / width of rectangles, log-uniform
CPU_CHUNK = 8
TRIES = 10  # to find a rectangle that fits


@dataclass(frozen=True)
class Parameters:
    """What is done to each image of a batch; the first dimension of every field is the batch."""

    colour: Tensor  # (B,) NOTHING, HUE, GRAYSCALE, CUTMIX or JITTER
    hue: Tensor  # (B,) turn of the hue, fraction of the circle
    weights: Tensor  # (B, 3) of the weighted grayscale
    channels: Tensor  # (B, 2) background and foreground of the cutmix; the first one is also the jitter's
    cutmix_box: Tensor  # (B, 4) top, left, height, width
    factor: Tensor  # (B,) share of the original in the spectrum jitter
    flip: Tensor  # (B,) booleans
    shift: Tensor  # (B, 2) pixels down and right that the crop window moves, -padding ... padding
    erase_box: Tensor  # (B, 4) top, left, height, width; height 0 erases nothing

    def to(self, device: torch.device) -> "Parameters":
        return Parameters(**{name: send(values, device) for name, values in vars(self).items()})

    def of(self, rows: Tensor) -> "Parameters":
        return Parameters(**{name: values[rows] for name, values in vars(self).items()})


class BatchAugment:
    """Draws parameters and applies them: uint8 (B, 3, H, W) -> normalised float32 (B, 3, H, W).

    A visible image gets one of {hue jitter, weighted grayscale, channel cutmix, spectrum jitter}, drawn uniformly and
    applied with probability 0.5; an augmentation that is switched off leaves "nothing" in its place. Then every image
    is flipped, cropped, normalised and erased. A switch changes its own effect only: the draws stay the same.

    Args:
        color_jitter, vimc_wg, vimc_cc, vimc_sj: which of the four may be applied.
        cutmix_region: ``released`` swaps height and width when the rectangle of the cutmix is drawn, ``full`` does not.
        padding: pixels of padding before the crop.
        seed: of the one generator.
    """

    def __init__(
        self,
        *,
        color_jitter: bool = True,
        vimc_wg: bool = True,
        vimc_cc: bool = True,
        vimc_sj: bool = True,
        cutmix_region: str = "released",
        random_flip: bool = True,
        random_crop: bool = True,
        random_erase: bool = True,
        padding: int = 10,
        seed: int = 0,
    ):
        if cutmix_region not in ("released", "full"):
            raise ValueError(f"unknown cutmix_region {cutmix_region!r}; choose from released, full")
        self.enabled = torch.tensor([True, color_jitter, vimc_wg, vimc_cc, vimc_sj])
        self.swap_region = cutmix_region == "released"
        self.random_flip, self.random_crop, self.random_erase = random_flip, random_crop, random_erase
        self.padding = padding
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, images: Tensor, infrared: Tensor) -> Tensor:
        """``images`` uint8 (B, 3, H, W) on any device, ``infrared`` (B,) booleans on the CPU."""
        return augment(images, self.draw(infrared, images.shape[-2:]))

    def draw(self, infrared: Tensor, size: tuple[int, int]) -> Parameters:
        """Parameters for a batch of images of ``size`` (height, width)."""
        count = len(infrared)
        chosen = self._integers(1, 5, count)
        applied = (self._uniform(count) < 0.5) & ~infrared.cpu() & self.enabled[chosen]
        weights = self._uniform(count, 3)
        background = self._integers(0, 3, count)
        foreground = (background + self._integers(1, 3, count)) % 3
        # as released: height and width swapped, see docs/differences.md
        region = size[::-1] if self.swap_region else size
        parameters = Parameters(
            colour=torch.where(applied, chosen, NOTHING),
            hue=(self._uniform(count) * 2 - 1) * HUE_RANGE,
            weights=weights / weights.sum(dim=1, keepdim=True),
            channels=torch.stack([background, foreground], dim=1),
            cutmix_box=self._draw_boxes(count, region, CUTMIX_AREA),
            factor=self._uniform(count),
            flip=(self._uniform(count) < 0.5) & self.random_flip,
            shift=self._integers(-self.padding, self.padding + 1, count, 2) * self.random_crop,
            erase_box=self._draw_boxes(count, size, ERASE_AREA),
        )
        erased = (self._uniform(count) < 0.5) & self.random_erase
        return Parameters(**{**vars(parameters), "erase_box": parameters.erase_box * erased[:, None]})

    def state_dict(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator)

    def _integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator)

    def _draw_boxes(self, count: int, size: tuple[int, int], area: tuple[float, float]) -> Tensor:
        """(count, 4) rectangles inside ``size``; the first of ten tries that fits, of height 0 where none does."""
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


def augment(images: Tensor, parameters: Parameters) -> Tensor:
    """Apply drawn parameters: uint8 (B, 3, H, W) on any device -> normalised float32 (B, 3, H, W) there."""
    result = torch.empty(images.shape, device=images.device)
    chunk = CPU_CHUNK if images.device.type == "cpu" else len(images)
    for start in range(0, len(images), chunk):
        rows = slice(start, start + chunk)
        some = parameters.of(rows)
        changed = _change_colours(images[rows], some)
        changed = _flip_and_crop2(changed, some.flip, some.shift)
        _erase(normalise(changed, out=result[rows]), some.erase_box)
    return result


def _erase(images: Tensor, boxes: Tensor) -> None:
    for image, (top, left, height, width) in zip(images, boxes.tolist()):
        image[:, top : top + height, left : left + width] = 0


def normalise(images: Tensor, out=None) -> Tensor:
    """uint8 -> float32 in [0, 1] -> less the ImageNet mean, divided by its deviation; the shape stays."""
    mean, std = _imagenet(images.device)
    return torch.div(images, 255,out=out).sub_(mean).div_(std)


@cache
def _imagenet(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation, (3, 1, 1); made once, because making them on a GPU waits for it."""
    with torch.inference_mode(False):  # whoever asks first
        return tuple(torch.tensor(values)[:, None, None].to(device) for values in (IMAGENET_MEAN, IMAGENET_STD))


CHANGES: dict[int, Callable[[Tensor, Parameters], Tensor]] = {
    HUE: lambda images, p: adjust_hue(images, p.hue),
    GRAYSCALE: lambda images, p: weighted_grayscale(images, p.weights),
    CUTMIX: lambda images, p: channel_cutmix(images, p.channels[:, 0], p.channels[:, 1], p.cutmix_box),
    JITTER: lambda images, p: spectrum_jitter(images, p.channels[:, 0], p.factor),
}


def _change_colours(images: Tensor, parameters: Parameters) -> Tensor:
    """Change the ``rows`` of each kind; parameters and rows are on the device of the images."""
    result = images.clone()
    for kind, change in CHANGES.items():
        chosen = (parameters.colour == kind).nonzero()[:, 0]
        if len(chosen):
            result.index_copy_(0, chosen, change(images.index_select(0, chosen), parameters.of(chosen)))
    return result


def _flip_and_crop(images: Tensor, flip: Tensor, shift: Tensor) -> Tensor:
    """Mirror, then pad with grey and crop back, as one gather of source positions."""
    height, width = images.shape[-2:]
    padding = int(shift.abs().max())
    flipped = flip.nonzero()[:, 0]
    images = images.index_copy(0, flipped, images.index_select(0, flipped).flip(-1))
    padded = F.pad(images, [padding] * 4, value=PADDING_VALUE)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    top, left = (shift + padding).unbind(dim=1)
    return windows[torch.arange(len(images)), :, top, left]


def _flip_and_crop2(images: Tensor, flip: Tensor, shift: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    padding = int(shift.abs().max())
    padded = F.pad(images, [padding] * 4, value=PADDING_VALUE)
    w=[]
    for image,m,(top,left) in zip(padded,flip.tolist(),(shift+padding).tolist()):
        w.append((image.flip(-1) if m else image)[:,top:top+height,left:left+width])
    return torch.stack(w)
