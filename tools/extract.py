"""Extract features: ``python -m tools.extract --checkpoint BEST.pth (--split test | --folder DIR) --out FEATURES.npz``.

A split is one of the configured data set, with its identities and cameras; ``tools.score`` reads the features of a test
split. A folder holds any images; identities and cameras are -1, and images that cannot be decoded are left out.
"""

import argparse
import sys
from contextlib import closing
from pathlib import Path

import torch
from yacs.config import CfgNode

from configs import check_resume
from configs.checks import RULES
from data import build_dataset, build_source
from data.datasets.base import SPLITS
from data.datasets.images import ImageFiles, ImageList, ImageSource
from data.folder import open_folder
from engine import build_extractor
from engine.device import select_device
from tools.checkpoint import open_checkpoint
from utils.features import SPECTRA
from utils.run.cli import Parser, run_program
from utils.run.errors import UserError, printable, shown
from utils.run.seeds import seed_everything


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.extract", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE.pth", help="such as best.pth of a run")
    cfg = "configuration of the checkpoint (default: config.yml beside it)"
    parser.add_argument("--cfg", type=Path, metavar="FILE", help=cfg)
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--split", choices=SPLITS, help="a split of the configured data set")
    images.add_argument("--folder", type=Path, metavar="DIR", help="all images below a folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FEATURES.npz")
    spectra = f"spectra of the visible images, such as original,red (default: {','.join(SPECTRA)}); MSER needs them all"
    parser.add_argument("--spectra", type=lambda words: words.split(","), default=SPECTRA, help=spectra)
    guess = "(default: guessed for each image from its colours)"
    modality = parser.add_mutually_exclusive_group()
    modality.add_argument(
        "--infrared", action="store_const", const=True, help=f"the images of the folder are infrared {guess}"
    )
    modality.add_argument(
        "--visible",
        dest="infrared",
        action="store_const",
        const=False,
        help=f"the images of the folder are visible {guess}",
    )
    parser.add_argument("--gpu", default="auto", help="index of a GPU, cpu, or auto: the first GPU, else the CPU")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="override any configuration key")
    arguments = parser.parse_intermixed_args(argv)
    holds, meaning = RULES["mser_spectra"]
    if not holds(arguments.spectra):
        raise UserError(f"--spectra: {shown(','.join(arguments.spectra))} should be {meaning}")
    if arguments.split and arguments.infrared is not None:
        raise UserError("--infrared and --visible are for --folder; a split knows the modality of its images")
    if not arguments.out.parent.is_dir():
        raise UserError(f"--out: there is no folder {arguments.out.parent}")
    if arguments.out.is_dir():
        raise UserError(f"--out: {arguments.out} is a folder")
    return arguments


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    device = select_device(arguments.gpu)
    cfg, model = open_checkpoint(arguments.checkpoint, arguments.cfg, device, arguments.overrides)
    seed_everything(0, deterministic=cfg.deterministic)  # nothing is random; deterministic algorithms, as in a run
    if arguments.split:
        images, source = split_images(cfg, arguments.split, device)
    else:
        images, source = folder_images(cfg, arguments.folder, arguments.infrared)
    with closing(build_extractor(cfg, images, source, device)) as extractor:
        features = extractor(model, arguments.spectra)
    features.require_finite(features.spectra)
    features.save(arguments.out)
    count, dimensions = features.spectra["original"].shape
    print(f"{arguments.out}: {count} images, {dimensions} dimensions, {', '.join(features.spectra)}")
    return 0


def split_images(cfg: CfgNode, split: str, device: torch.device) -> tuple[ImageList, ImageSource]:
    """A split of the configured data set, read from the configured cache."""
    note = check_resume(cfg)
    if note:
        print(note)
    dataset = build_dataset(cfg, split)
    print(dataset.summary())
    return dataset, build_source(cfg, dataset, device)


def folder_images(cfg: CfgNode, folder: Path, infrared: bool | None) -> tuple[ImageList, ImageSource]:
    """The images of a folder, infrared or visible; None: as each of them looks."""
    images, problems = open_folder(folder, infrared=infrared, num_workers=cfg.num_workers)
    for problem in problems:
        print(f"left out: {printable(problem)}")
    infrared_images = int(images.infrared.sum())
    guessed = " (guessed from their colours; --visible and --infrared set it)" if infrared is None else ""
    print(f"{folder}: {len(images) - infrared_images} visible and {infrared_images} infrared images{guessed}")
    return images, ImageFiles(images, cfg.image_size, resize=cfg.resize)


if __name__ == "__main__":
    sys.exit(run_program(main))
