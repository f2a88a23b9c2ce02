"""Check whether a run can start: ``python -m tools.doctor --cfg FILE [--gpu 0] [--full] [KEY VALUE ...]``.

Prints one line per finding, at most 20 of a kind. Exits with 0 if a run can start, else with 2.
"""

import argparse
import math
import os
import platform
import re
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn
from torch.optim import SGD
from yacs.config import CfgNode

from configs import check_resume, get_config
from data import build_sampler, cache_folder, check_numbers, open_dataset, skips_unreadable
from data.cache import CacheFile, gigabytes, require_memory
from data.datasets.base import ReIDDataset
from data.unreadable import find_unreadable
from engine.checkpoints import run_bytes
from engine.device import describe_device, place, select_device
from engine.evaluator import require_testable
from engine.precision import build_precision
from losses import build_criterion
from models import build_initial_model, build_model
from utils.run.cli import Parser, run_program
from utils.run.errors import UserError

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements.txt"
SHARED_MEMORY = Path("/dev/shm")
MAX_LINES = 20  # printed per check; the others are counted
PREFETCHED = 2  # batches that each worker keeps ready


class Report:
    """Prints findings and counts them by level: ok, warning or error."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._printed: set[str] = set()  # the two splits may report the same problem

    def ok(self, text: str) -> None:
        self._add("ok", [text])

    def warning(self, *texts: str) -> None:
        self._add("warning", texts)

    def error(self, *texts: str) -> None:
        self._add("error", texts)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Report the ``UserError`` of the block and continue after it."""
        try:
            yield
        except UserError as error:
            self.error(*error.messages)

    def _add(self, level: str, texts: Iterable[str]) -> None:
        texts = [text for text in texts if text not in self._printed]
        self._printed.update(texts)
        self.counts[level] += len(texts)
        for text in texts[:MAX_LINES]:
            print(f"{level:<7}  {text}", flush=True)
        if len(texts) > MAX_LINES:
            print(f"{level:<7}  ... and {len(texts) - MAX_LINES} more like these {MAX_LINES}", flush=True)

    @property
    def verdict(self) -> str:
        errors, warnings_ = self.counts["error"], self.counts["warning"]
        found = f"{errors} error{'s' * (errors != 1)}, {warnings_} warning{'s' * (warnings_ != 1)}"
        return f"{found}: a run {'cannot start, or would fail' if errors else 'can start'}"


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    warnings.simplefilter("ignore")  # of libraries
    report = Report()
    check_packages(report)
    with report.errors():
        cfg = get_config(arguments.cfg, arguments.overrides)
        report.ok(f"configuration: {arguments.cfg}")
        check_run(report, cfg, gpu=arguments.gpu, full=arguments.full)
    print(report.verdict)
    return 2 if report.counts["error"] else 0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.doctor", description="Check whether a run can start.")
    parser.add_argument("--cfg", required=True, type=Path, metavar="FILE", help="YAML configuration of the run")
    parser.add_argument("--gpu", default="auto", help="as for the run: index of a GPU, cpu, or auto")
    parser.add_argument("--full", action="store_true", help="decode every image, with num_workers processes")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="override any configuration key")
    return parser.parse_intermixed_args(argv)


def check_run(report: Report, cfg: CfgNode, *, gpu: str, full: bool) -> None:
    """Everything that a run needs; slow checks come last."""
    device = check_device(report, cfg, gpu)
    model = check_model(report, cfg, device)
    datasets = [
        check_dataset(report, cfg, split, full) for split in (("test",) if cfg.test_only else ("train", "test"))
    ]
    opened = [dataset for dataset in datasets if dataset is not None]
    check_memory(report, cfg, opened, device)
    check_disks(report, cfg, opened, model)


def check_packages(report: Report) -> None:
    """Python, and the versions of the required packages."""
    report.ok(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    found = []
    for name, least in re.findall(r"^([\w-]+)>=([\d.]+)", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE):
        try:
            present = version(name)
        except PackageNotFoundError:
            present = "not installed"
        if _numbers(present) >= _numbers(least):
            found.append(f"{name} {present}")
        elif name == "numba":
            report.warning(f"numba: {present}, {least} or newer is needed; without it scoring is much slower")
        else:
            report.error(f"{name}: {present}, {least} or newer is needed; run `make setup`")
    report.ok(f"packages: {', '.join(found)}")


def _numbers(text: str) -> tuple[int, ...]:
    """Major, minor and patch, as far as they are given."""
    return tuple(int(number) for number in re.findall(r"\d+", text.split("+")[0])[:3])


def check_device(report: Report, cfg: CfgNode, gpu: str) -> torch.device:
    """The device of the run, and whether its losses can be computed there."""
    device = torch.device("cpu")
    with report.errors():
        device = select_device(gpu)
        if device.type == "cuda":
            report.ok(f"CUDA {torch.version.cuda}: {describe_device(device)}")
        elif gpu == "cpu":
            report.ok(f"device: {describe_device(device)}, because of --gpu cpu")
        else:
            report.warning(f"device: torch sees no CUDA GPU; the run would use {describe_device(device)}")
    with report.errors():
        report.ok(f"losses: {build_criterion(cfg, device)}")
    return device


def check_model(report: Report, cfg: CfgNode, device: torch.device) -> nn.Module:
    """The network with its initial weights, or with random ones if they are missing. Downloads ImageNet weights."""
    model = None
    with report.errors():
        origin = check_resume(cfg)
        if origin:
            report.warning(origin)
        model, loaded = build_initial_model(cfg)
        source = f"resume {cfg.resume}: {loaded}" if loaded else f"pretrained {cfg.pretrained}"
        report.ok(f"{cfg.model}, {cfg.backbone}: {source}")
    model = place(model or build_model(cfg, pretrained="none"), device)
    keys = ("fp16", "amp_dtype", "amp_backend")
    with report.errors():
        optimizer = SGD(model.parameters())  # apex needs an optimiser; any will do
        precision = build_precision(model, optimizer, device, **{key: cfg[key] for key in keys})
        report.ok(f"precision: {precision}")
    return model


def check_dataset(report: Report, cfg: CfgNode, split: str, full: bool) -> ReIDDataset | None:
    """Folders, lists, counts and, with ``full``, every image of a split; None if it cannot be opened."""
    dataset = None
    with report.errors():
        dataset = open_dataset(cfg, split)
        _check_counts(report, dataset)
        with report.errors():
            check_numbers(cfg, dataset)
        if full or skips_unreadable(cfg, split):
            dataset = _check_images(report, cfg, dataset)
        else:
            report.ok(f"{split} images: all exist; none was decoded (--full decodes them)")
        if split == "train":
            _check_modalities(report, dataset)
            batches = len(build_sampler(cfg, dataset, seed=0))
            report.ok(f"{cfg.sample_method}: {batches} batches in the first epoch")
        else:
            require_testable(dataset)
            report.ok("test protocol: every gallery has images and matches")
    return dataset


def _check_counts(report: Report, dataset: ReIDDataset) -> None:
    published = dataset.published.get(dataset.split)
    text = f"{dataset.name} {dataset.split} in {dataset.root}: {dataset.counts}"
    if published is None:
        report.ok(text)
    elif dataset.counts == published:
        report.ok(f"{text}, as published")
    else:
        report.warning(f"{text}; the published data set has {published}")
    report.warning(*(f"{dataset.root}: {note}" for note in dataset.notes))


def _check_images(report: Report, cfg: CfgNode, dataset: ReIDDataset) -> ReIDDataset:
    """Decode every image. Returns the data set without the images that a run would leave out."""
    reasons = find_unreadable(dataset, cfg.image_size, num_workers=cfg.num_workers)
    if not reasons:
        report.ok(f"{dataset.split} images: {len(dataset):,} decoded")
    elif skips_unreadable(cfg, dataset.split):
        report.warning(*(f"{reason}; skip_unreadable leaves it out" for reason in reasons.values()))
        return dataset.without(reasons)
    else:
        report.error(*(f"{reason}; {dataset.advice}" for reason in reasons.values()))
    return dataset


def _check_modalities(report: Report, dataset: ReIDDataset) -> None:
    sides = [set(dataset.identities[dataset.infrared == side].tolist()) for side in (False, True)]
    single_modality = sorted(sides[0] ^ sides[1])
    if single_modality:
        report.warning(
            f"{dataset.name} {dataset.split}: identities with images of one modality only: {len(single_modality)},"
            f" the first is {single_modality[0]}; they have no cross-modality matches"
        )


def check_memory(report: Report, cfg: CfgNode, datasets: Sequence[ReIDDataset], device: torch.device) -> None:
    """Memory for the cache, cores for the workers, and shared memory for their batches."""
    image_bytes = 3 * math.prod(cfg.image_size)
    if cfg.cache == "device":
        with report.errors():
            needed = sum(map(len, datasets)) * image_bytes
            require_memory(needed, device)
            report.ok(f"cache: {cfg.cache!r} needs {gigabytes(needed)}; enough is free")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cfg.num_workers > cores:
        report.warning(f"num_workers: {cfg.num_workers}, more than the {cores} cores; lower it")
    largest = max(cfg.batch_size, cfg.p_size * cfg.k_size, cfg.test_batch_size)
    needed = cfg.num_workers * PREFETCHED * largest * image_bytes
    if cfg.cache != "device" and SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free
        if free < needed:
            report.warning(
                f"{SHARED_MEMORY}: {gigabytes(free)} free, and num_workers {cfg.num_workers} may need"
                f" {gigabytes(needed)}; lower num_workers, or use docker's --shm-size"
            )


def check_disks(report: Report, cfg: CfgNode, datasets: Sequence[ReIDDataset], model: nn.Module) -> None:
    """Whether the folders can be written to and their disks have enough free space."""
    # (key, folder, bytes)
    needs = [("output_dir", Path(cfg.output_dir) / cfg.dataset, 0 if cfg.test_only else run_bytes(model))]
    if cfg.cache == "disk":
        with report.errors():
            files = [CacheFile(dataset, cfg.image_size, cache_folder(cfg), resize=cfg.resize) for dataset in datasets]
            missing = sum(file.bytes for file in files if not file.is_current())
            needs.append(("cache_dir", cache_folder(cfg), missing))
    on_disk: Counter[int] = Counter()  # disk -> bytes needed so far
    for key, folder, needed in needs:
        with report.errors():
            existing = _require_writable(folder, key)
            disk, free = existing.stat().st_dev, shutil.disk_usage(existing).free
            on_disk[disk] += needed
            if free < on_disk[disk]:
                raise UserError(
                    f"{key}: {folder}: {gigabytes(free)} free, {gigabytes(on_disk[disk])} needed; set {key} to a"
                    " folder on another disk"
                )
            report.ok(f"{key}: {folder} can be written to; {gigabytes(free)} free, {gigabytes(needed)} needed")


def _require_writable(folder: Path, key: str) -> Path:
    """Return the folder, or the nearest existing one above it, if it can be written to. No file is left there."""
    existing = folder
    try:
        while not existing.exists():
            existing = existing.parent
        with tempfile.TemporaryFile(dir=existing):
            return existing
    except OSError as error:
        raise UserError(f"{key}: {existing} cannot be written to ({error.strerror}); set {key}") from None


if __name__ == "__main__":
    sys.exit(run_program(main))
