"""Speed of loading and of augmentation: ``python -m benchmarks.data [--gpu 0] [--json FILE]``.

Loading is measured in one process, in batches of 128. Its speed-ups are relative to "decode", which decodes every image
again. Augmentation alone is measured on the CPU, on decoded images. Its speed-ups are relative to "one by one", which
augments image after image with PIL and torchvision, as the released code does.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional

from benchmarks.timing import Timing, at_least_one, json_file, measure, one_thread, prepare, write_report
from data.augment import (
    CUTMIX,
    GRAYSCALE,
    HUE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    PADDING_VALUE,
    SPECTRUM,
    AugmentParameters,
    BatchAugment,
    augment,
)
from data.cache import device_source, disk_source
from data.datasets.base import ReIDDataset, Sample
from data.datasets.images import ImageFiles, ImageSource
from data.loaders import ordered_loader
from utils.protocols import ImageTable, Search
from utils.run.cli import Parser, run_program
from utils.tensors import send

SIZE = (384, 192)
SOURCE_SIZES = ((340, 150), (400, 170), (480, 200))  # height and width, about as in SYSU-MM01
BATCH = 128
PADDING = 10


class JPEGFolder(ReIDDataset):
    """The JPEG files of one folder, every third one infrared."""

    name = "JPEG"
    visible_cameras = (1,)
    infrared_cameras = (3,)
    defaults = {}
    selection = ()

    def list_samples(self) -> list[Sample]:
        paths = sorted(self.root.glob("*.jpg"))
        return [Sample(path.name, identity=1, camera=1 if i % 3 else 3, label=0) for i, path in enumerate(paths)]

    @classmethod
    def protocol(cls, images: ImageTable, root: Path) -> tuple[Search, ...]:
        return ()


def write_images(folder: Path, count: int, seed: int) -> None:
    """Write JPEG files of smooth coloured noise with some grain, whose size is about that of photographs."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        height, width = SOURCE_SIZES[i % len(SOURCE_SIZES)]
        coarse = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = rng.integers(-8, 9, (height, width, 1))
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(folder / f"{i:04d}.jpg", quality=90)


def augment_one(image: Image.Image, p: AugmentParameters, i: int) -> Tensor:
    """Augment one image with PIL and torchvision: with the i-th parameters, to a normalised tensor (3, H, W)."""
    kind, background, foreground = int(p.colour[i]), int(p.background[i]), int(p.foreground[i])
    size = image.height, image.width
    if kind == HUE:
        image = functional.adjust_hue(image, float(p.hue[i]))
    elif kind == GRAYSCALE:
        grey = (np.asarray(image, dtype=np.float32) * p.weights[i].numpy()).sum(axis=-1)
        image = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    elif kind == CUTMIX:
        pixels = np.asarray(image)
        grey = pixels[..., background].copy()
        top, left, height, width = p.cutmix_box[i].tolist()
        grey[top : top + height, left : left + width] = pixels[top : top + height, left : left + width, foreground]
        image = Image.fromarray(grey).convert("RGB")
    elif kind == SPECTRUM:
        image = Image.blend(image.getchannel(background).convert("RGB"), image, float(p.factor[i]))
    if p.flip[i]:
        image = functional.hflip(image)
    down, right = p.shift[i].tolist()
    image = functional.pad(image, PADDING, fill=(PADDING_VALUE,) * 3)
    image = functional.crop(image, PADDING + down, PADDING + right, *size)
    tensor = functional.normalize(functional.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD, inplace=True)
    top, left, height, width = p.erase_box[i].tolist()
    return functional.erase(tensor, top, left, height, width, torch.tensor(0.0), inplace=True)


def load_one_by_one(dataset: ReIDDataset, parameters: AugmentParameters) -> None:
    """Decode, resize and augment image after image, as the released code does, and stack them to batches."""
    for start in range(0, len(dataset), BATCH):
        tensors = []
        for row, path in enumerate(dataset.paths[start : start + BATCH]):
            with Image.open(dataset.root / path) as file:
                image = file.convert("RGB").resize(SIZE[::-1], Image.Resampling.BILINEAR)
            tensors.append(augment_one(image, parameters, row))
        torch.stack(tensors)


def load_batches(
    dataset: ReIDDataset, source: ImageSource, finish: Callable[[Tensor], object] = lambda images: None
) -> None:
    """Load all images in order, and call ``finish`` with each batch."""
    positions = list(range(len(dataset)))
    loader = ordered_loader(dataset, source, positions, batch_size=BATCH, num_workers=0, pin_memory=False)
    for batch in loader:
        finish(batch.images)


def compare(case: str, baseline: str, timings: dict[str, Timing], images: int) -> list[dict[str, object]]:
    """One row per method, with its speed-up over the method ``baseline``."""
    return [
        {
            "case": case,
            "method": method,
            "images/s": images / timing.median,
            "ms/image": timing.median / images * 1000,
            "best ms/image": timing.minimum / images * 1000,
            "speed-up": timings[baseline].median / timing.median,
            "baseline": baseline,
        }
        for method, timing in timings.items()
    ]


def measure_loading(
    dataset: ReIDDataset, parameters: AugmentParameters, device: torch.device, repeats: int
) -> dict[str, Timing]:
    def finish(images: Tensor) -> Tensor:
        return augment(send(images, device), parameters)

    folder = dataset.root / "cache"
    sources: dict[str, ImageSource] = {
        "decode": ImageFiles(dataset, SIZE),
        "cache disk": disk_source(dataset, SIZE, folder, num_workers=0),
        "cache device": device_source(dataset, SIZE, folder, device, num_workers=0),
    }
    methods = {"one by one, augmented": partial(load_one_by_one, dataset, parameters)}
    for name, source in sources.items():
        methods[name] = partial(load_batches, dataset, source)
        methods[f"{name}, augmented"] = partial(load_batches, dataset, source, finish)
    return {method: measure(function, repeats=repeats) for method, function in methods.items()}


def measure_augmentation(images: Tensor, parameters: AugmentParameters, repeats: int) -> dict[str, Timing]:
    decoded = [Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()) for image in images]
    methods = {
        "one by one": lambda: torch.stack([augment_one(image, parameters, i) for i, image in enumerate(decoded)]),
        "BatchAugment": lambda: augment(images, parameters),
    }
    return {method: measure(function, repeats=repeats) for method, function in methods.items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.data", description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", default="auto", help="where batches are augmented and `cache device` keeps the images")
    parser.add_argument("--json", type=json_file, metavar="FILE", help="write a report to this file")
    number = f"how many images are loaded, rounded down to a multiple of {BATCH}, at least {BATCH} (default 256)"
    parser.add_argument("--images", type=at_least_one, default=256, metavar="N", help=number)
    parser.add_argument("--repeats", type=at_least_one, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    device = prepare(arguments.gpu, seed=arguments.seed)
    infrared = torch.arange(BATCH) % 3 == 0  # a third, as in SYSU-MM01
    parameters = BatchAugment(seed=arguments.seed, padding=PADDING).draw(infrared, SIZE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, arguments.images // BATCH * BATCH or BATCH, arguments.seed)
        dataset = JPEGFolder(folder, "train")
        loading = measure_loading(dataset, parameters, device, arguments.repeats)
        images = ImageFiles(dataset, SIZE).take(range(BATCH))
    augmenting = measure_augmentation(images, parameters, arguments.repeats)
    with one_thread():
        augmenting_one_thread = measure_augmentation(images, parameters, arguments.repeats)
    count = len(dataset)
    rows = [
        *compare("loading", "decode", loading, count),
        *compare("augmenting", "one by one", augmenting, BATCH),
        *compare("augmenting, one thread", "one by one", augmenting_one_thread, BATCH),
    ]
    write_report(arguments.json, "data", rows, seed=arguments.seed, images=count, size=SIZE, batch=BATCH)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
