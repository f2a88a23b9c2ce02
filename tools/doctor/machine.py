"""Device, soft rank, memory and disks."""

import math
import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn
from yacs.config import CfgNode

from data import cache_folder
from data.cache import SHARED_MEMORY, gigabytes, require_memory, unwritten_bytes
from data.datasets.base import ReIDDataset
from engine.device import describe_device, select_device
from losses import build_criterion
from tools.doctor.report import Report
from utils.run.errors import UserError

# in sizes of the model: best, last, the three newest, and two training states and one that is being written, each of
# which holds the weights, two moments of each, and the best weights
CHECKPOINTS = 5 + 3 * 4
PREFETCHED = 2  # batches that each loader process keeps ready


def check_device(report: Report, cfg: CfgNode, gpu: str) -> torch.device:
    """The device that a run would take; the CPU where the one that is asked for cannot be had."""
    device = torch.device("cpu")
    with report.errors():
        device = select_device(gpu)
        if device.type == "cuda":
            report.ok(f"CUDA {torch.version.cuda}: {describe_device(device)}")
        elif gpu == "cpu":
            report.ok(f"device: {describe_device(device)}, as --gpu asks")
        else:
            report.warning(f"device: torch sees no CUDA GPU, so it would be {describe_device(device)}")
    with report.errors():
        criterion = build_criterion(cfg, device)
        report.ok(f"losses: {criterion}")
    return device


def check_memory(report: Report, cfg: CfgNode, datasets: list[ReIDDataset], device: torch.device) -> None:
    """Cores, memory of a cache, and the memory through which loader processes hand their batches over."""
    images = {dataset.split: len(dataset) * 3 * math.prod(dataset.image_size) for dataset in datasets}
    if cfg.cache in ("memory", "device"):
        with report.errors():
            require_memory(cfg.cache, sum(images.values()), device)
            report.ok(f"cache: {cfg.cache!r} needs {gigabytes(sum(images.values()))}, which are there")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if cfg.num_workers > cores:
        report.warning(f"num_workers: {cfg.num_workers}, more than the {cores} cores; lower it")
    largest = max(cfg.batch_size, cfg.p_size * cfg.k_size, cfg.test_batch_size)
    needed = cfg.num_workers * PREFETCHED * largest * 3 * math.prod(cfg.image_size)
    if cfg.cache != "device" and SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free
        if free < needed:
            report.warning(
                f"{SHARED_MEMORY}: {gigabytes(free)} left, and num_workers {cfg.num_workers} may fill"
                f" {gigabytes(needed)}; lower num_workers, or use docker's --shm-size"
            )


def check_disks(report: Report, cfg: CfgNode, datasets: list[ReIDDataset], model: nn.Module) -> None:
    """Folders that can be written to, with enough room on their disks."""
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    # (key, folder, bytes)
    needs = [("output_dir", Path(cfg.output_dir) / cfg.dataset, 0 if cfg.test_only else CHECKPOINTS * size)]
    if cfg.cache == "disk":
        with report.errors():
            folder = cache_folder(cfg)
            needs.append(("cache_dir", folder, sum(unwritten_bytes(dataset, folder) for dataset in datasets)))
    on_disk: dict[int, int] = {}  # what is needed so far of each disk
    for key, folder, needed in needs:
        with report.errors():
            there = _require_writable(folder, key)
            disk = there.stat().st_dev
            on_disk[disk] = on_disk.get(disk, 0) + needed
            free = shutil.disk_usage(there).free
            if free < on_disk[disk]:
                raise UserError(
                    f"{key}: {folder}: {gigabytes(free)} free, {gigabytes(on_disk[disk])} needed; set {key} to a"
                    " folder of another disk"
                )
            report.ok(f"{key}: {folder} can be written to; {gigabytes(free)} free, {gigabytes(needed)} needed")


def _require_writable(folder: Path, key: str) -> Path:
    """The folder itself or, where it is still to be made, the one above it; nothing is left in it."""
    there = folder
    try:
        while not there.exists():
            there = there.parent
        with tempfile.TemporaryFile(dir=there):
            return there
    except OSError as error:
        raise UserError(f"{key}: {there} cannot be written to ({error.strerror}); set {key}") from None
