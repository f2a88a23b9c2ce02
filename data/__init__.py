"""Data sets, samplers, loaders and augmentation."""

from pathlib import Path

import torch
from yacs.config import CfgNode

from data.augment import BatchAugment
from data.cache import cached_source
from data.datasets import DATASETS
from data.datasets.base import ReIDDataset
from data.loaders import Loader, train_loader
from data.samplers import EpochSampler, Sizes
from data.unreadable import find_unreadable, leave_out
from utils.run.errors import UserError

__all__ = [
    "DATASETS",
    "build_augment",
    "build_dataset",
    "build_sampler",
    "build_train_loader",
    "cache_folder",
    "cache_images",
    "check_numbers",
    "open_dataset",
    "skips_unreadable",
]


def build_dataset(cfg: CfgNode, split: str) -> ReIDDataset:
    """Open and check one split of the configured data set."""
    dataset = open_dataset(cfg, split)
    check_numbers(cfg, dataset)
    if skips_unreadable(cfg, split):
        leave_out(dataset, find_unreadable(dataset, num_workers=cfg.num_workers))
    return dataset


def open_dataset(cfg: CfgNode, split: str) -> ReIDDataset:
    return DATASETS[cfg.dataset](cfg.data_root, split, cfg.image_size, trial=cfg.trial)


def check_numbers(cfg: CfgNode, dataset: ReIDDataset) -> None:
    """Raise ``UserError`` unless identities and cameras are as many as configured."""
    if cfg.num_cam != len(dataset.cameras):
        cameras = len(dataset.cameras)
        raise UserError(f"num_cam: {cfg.num_cam}, but {dataset.name} has {cameras} cameras; set num_cam {cameras}")
    if dataset.split == "train" and cfg.num_id != dataset.num_identities:
        raise UserError(
            f"num_id: {cfg.num_id}, but {cfg.data_root} has {dataset.num_identities} training identities;"
            f" set num_id {dataset.num_identities}"
        )


def skips_unreadable(cfg: CfgNode, split: str) -> bool:
    """Never of the test set: without some of its images it would not be the published one."""
    return cfg.skip_unreadable and split == "train"


def cache_images(cfg: CfgNode, dataset: ReIDDataset, device: torch.device) -> None:
    """Put the configured cache, built where there is none, in the place of the image files."""
    if cfg.cache != "none":
        folder = cache_folder(cfg)
        dataset.source = cached_source(dataset, cfg.cache, folder=folder, device=device, num_workers=cfg.num_workers)


def cache_folder(cfg: CfgNode) -> Path:
    return Path(cfg.cache_dir) if cfg.cache_dir else Path(cfg.output_dir) / "cache"


def build_sampler(cfg: CfgNode, dataset: ReIDDataset, *, seed: int) -> EpochSampler:
    sizes = Sizes(cfg.p_size, cfg.k_size, cfg.batch_size)
    return EpochSampler(dataset.labels, dataset.infrared, method=cfg.sample_method, sizes=sizes, seed=seed)


def build_train_loader(cfg: CfgNode, dataset: ReIDDataset, device: torch.device, *, seed: int) -> Loader:
    sampler = build_sampler(cfg, dataset, seed=seed)
    cache_images(cfg, dataset, device)  # last, because it may take long
    return train_loader(dataset, sampler, num_workers=cfg.num_workers, pin_memory=device.type == "cuda")


def build_augment(cfg: CfgNode, *, seed: int) -> BatchAugment:
    keys = ("color_jitter", "vimc_wg", "vimc_cc", "vimc_sj", "cutmix_region", "padding")
    switches = ("random_flip", "random_crop", "random_erase")
    return BatchAugment(**{key: cfg[key] for key in keys + switches}, seed=seed)
