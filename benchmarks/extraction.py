"""Speed of extraction: ``python -m benchmarks.extraction [--cfg FILE] [--gpu 0] [--json FILE] [KEY VALUE ...]``.

Extracts all spectra of synthetic JPEG files, one in three infrared. Two more methods are measured in the same run. The
baseline reads and resizes every image again for each spectrum with PIL and torchvision, so it also runs infrared images
four times; it is measured on some of the images. The lower bound is the model alone, on batches that are already on the
device.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional

from benchmarks.data import JPEGFolder, write_images
from benchmarks.timing import at_least_one, json_file, measure, prepare, write_report
from configs import get_config
from data.augment import IMAGENET_MEAN, IMAGENET_STD, normalise
from data.datasets.base import ReIDDataset
from data.datasets.images import ImageFiles
from engine.device import describe_device, no_autotuning, place
from engine.extract import CHANNELS, Extractor
from engine.precision import inference_dtype
from models import build_model
from utils.features import SPECTRA
from utils.run.cli import Parser, run_program

BASELINE_IMAGES = 48


def extract_plainly(
    model: nn.Module,
    paths: list[Path],
    infrared: np.ndarray,
    image_size: tuple[int, int],
    device: torch.device,
    batch_size: int,
) -> None:
    """The baseline: read and resize the images again for each spectrum, and run the model in float32."""
    with torch.inference_mode():
        for name in SPECTRA:
            for start in range(0, len(paths), batch_size):
                rows = slice(start, start + batch_size)
                batch = torch.stack([_read(path, name, image_size) for path in paths[rows]])
                model(batch.to(device), torch.from_numpy(infrared[rows]).to(device)).cpu()


def _read(path: Path, name: str, size: tuple[int, int]) -> Tensor:
    with Image.open(path) as file:
        image = file.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
    if name != "original":
        image = image.getchannel(CHANNELS[name]).convert("RGB")
    return functional.normalize(functional.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD, inplace=True)


def measure_extraction(cfg, device: torch.device, dataset: ReIDDataset, repeats: int) -> Iterator[dict[str, object]]:
    model = place(build_model(cfg), device).eval()
    visible, infrared = int((~dataset.infrared).sum()), int(dataset.infrared.sum())
    batch_size, source = cfg.test_batch_size, ImageFiles(dataset, cfg.image_size)
    options = {"batch_size": batch_size, "num_workers": cfg.num_workers}
    # batches as in the extraction, with the number of spectra that run through the model
    sides = [(np.flatnonzero(~dataset.infrared).tolist(), 4), (np.flatnonzero(dataset.infrared).tolist(), 1)]
    on_device = [
        (normalise(source.take(positions[start : start + batch_size]).to(device)), spectra == 1, spectra)
        for positions, spectra in sides
        for start in range(0, len(positions), batch_size)
    ]
    few = [dataset.root / path for path in dataset.paths[:BASELINE_IMAGES]]
    baseline = measure(
        lambda: extract_plainly(model, few, dataset.infrared, cfg.image_size, device, batch_size), repeats=repeats
    )
    baseline_speed = len(few) / baseline.median
    with closing(Extractor(dataset, source, device, **options)) as extractor:
        exact = extractor(model, SPECTRA)

    for dtype in dict.fromkeys((None, inference_dtype(device, fp16=cfg.fp16, amp_dtype=cfg.amp_dtype))):

        @torch.inference_mode()
        def model_alone(dtype=dtype) -> None:
            with no_autotuning(), torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                for images, infrared, spectra in on_device:
                    is_infrared = torch.full((len(images),), infrared, device=device)
                    for _ in range(spectra):
                        model(images, is_infrared)

        with closing(Extractor(dataset, source, device, **options, dtype=dtype)) as extractor:
            timing = measure(partial(extractor, model, SPECTRA), repeats=repeats)
            found = extractor(model, SPECTRA)
        lower_bound = measure(model_alone, repeats=repeats).median
        yield {
            "case": f"{visible} visible and {infrared} infrared images, {cfg.backbone}, on {describe_device(device)}",
            "precision": "float32" if dtype is None else str(dtype).split(".")[1],
            "seconds": timing.median,
            "images/s": len(dataset) / timing.median,
            "baseline images/s": baseline_speed,
            "speed-up": len(dataset) / timing.median / baseline_speed,
            "model alone, seconds": lower_bound,
            "ratio to the model alone": timing.median / lower_bound,
            "relative error": _relative_error(found.spectra, exact.spectra),
        }  # fmt: skip


def _relative_error(found: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> float:
    """Largest distance between an embedding and the float32 one, relative to the length of the latter."""
    return max(
        float((np.linalg.norm(found[name] - exact[name], axis=1) / np.linalg.norm(exact[name], axis=1)).max())
        for name in exact
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.extraction", description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", default="configs/SYSU_MCJA.yml", type=Path)
    parser.add_argument("--gpu", default="auto")
    parser.add_argument("--images", type=at_least_one, default=96, help="how many images are extracted")
    parser.add_argument("--repeats", type=at_least_one, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=json_file, metavar="FILE", help="write a report to this file")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    arguments = parser.parse_intermixed_args(argv)
    cfg = get_config(arguments.cfg, ["pretrained", "none", *arguments.overrides])
    device = prepare(arguments.gpu, seed=arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name), arguments.images, arguments.seed)
        rows = measure_extraction(cfg, device, JPEGFolder(name, "test"), arguments.repeats)
        write_report(arguments.json, "extraction", rows, seed=arguments.seed, images=arguments.images)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
