"""Data sets, samplers, loaders and augmentation."""

from pathlib import Path

import torch
from yacs.config import CfgNode

from data.augment import BatchAugment
from data.cache import device_source, disk_source
from data.datasets import DATASETS
from data.datasets.base import ReIDDataset
from data.datasets.images import ImageFiles, ImageSource
from data.samplers import EpochSampler, Sizes
from data.unreadable import find_unreadable
from utils.run.errors import UserError


def build_dataset(cfg: CfgNode, split: str) -> ReIDDataset:
    """The training or test split of the configured data set, with ``num_id`` and ``num_cam`` checked.

    Unreadable training images are left out if ``skip_unreadable`` says so.
    """
    dataset = open_dataset(cfg, split)
    check_numbers(cfg, dataset)
    if skips_unreadable(cfg, split):
        dataset = dataset.without(find_unreadable(dataset, cfg.image_size, num_workers=cfg.num_workers))
    return dataset


def open_dataset(cfg: CfgNode, split: str) -> ReIDDataset:
    return DATASETS[cfg.dataset](cfg.data_root, split, trial=cfg.trial)


def check_numbers(cfg: CfgNode, dataset: ReIDDataset) -> None:
    """Raise ``UserError`` if ``num_cam`` or ``num_id`` differs from the data set.

    A device that records both modalities has two camera numbers and is counted once.
    """
    cameras = dataset.defaults["num_cam"]
    if cfg.num_cam != cameras:
        raise UserError(f"num_cam: {cfg.num_cam}, but {dataset.name} has {cameras} cameras; set num_cam {cameras}")
    if dataset.split == "train" and cfg.num_id != dataset.num_identities:
        raise UserError(
            f"num_id: {cfg.num_id}, but {cfg.data_root} has {dataset.num_identities} training identities;"
            f" set num_id {dataset.num_identities}"
        )


def variants_of(cfg: CfgNode) -> dict[str, str]:
    """The configured variants of the test protocol."""
    return {key: cfg[key] for key in DATASETS[cfg.dataset].variants}


def skips_unreadable(cfg: CfgNode, split: str) -> bool:
    """Whether unreadable images of the split are left out.

    Test images never are: metrics of a smaller test set cannot be compared with published ones.
    """
    return cfg.skip_unreadable and split == "train"


def build_source(cfg: CfgNode, dataset: ReIDDataset, device: torch.device) -> ImageSource:
    """The source of the images: their files, or the configured cache, which is filled first if necessary."""
    if cfg.cache == "none":
        return ImageFiles(dataset, cfg.image_size, resize=cfg.resize)
    options = {"num_workers": cfg.num_workers, "resize": cfg.resize}
    if cfg.cache == "disk":
        return disk_source(dataset, cfg.image_size, cache_folder(cfg), **options)
    return device_source(dataset, cfg.image_size, cache_folder(cfg), device, **options)


def cache_folder(cfg: CfgNode) -> Path:
    return Path(cfg.cache_dir) if cfg.cache_dir else Path(cfg.output_dir) / "cache"


def build_sampler(cfg: CfgNode, dataset: ReIDDataset, *, seed: int) -> EpochSampler:
    sizes = Sizes(cfg.p_size, cfg.k_size, cfg.batch_size)
    return EpochSampler(dataset.labels, dataset.infrared, method=cfg.sample_method, sizes=sizes, seed=seed)


def build_augment(cfg: CfgNode, *, seed: int) -> BatchAugment:
    colours = ("color_jitter", "vimc_wg", "vimc_cc", "vimc_sj", "vimc_p", "hue_range", "cutmix_region", "cutmix_area")
    others = ("random_flip", "random_crop", "padding", "padding_value", "random_erase", "erase_p", "erase_area")
    return BatchAugment(**{key: cfg[key] for key in colours + others}, seed=seed)
