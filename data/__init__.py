"""Data sets, samplers, loaders and augmentation."""

from torch.utils.data import DataLoader
from yacs.config import CfgNode

from data.augment import BatchAugment
from data.base import ReIDDataset
from data.loaders import train_loader
from data.regdb import RegDB
from data.samplers import EpochSampler, Sizes
from data.sysu import SYSU
from utils.errors import UserError

__all__ = ["DATASETS", "build_augment", "build_dataset", "build_train_loader"]

DATASETS: dict[str, type[ReIDDataset]] = {"sysu": SYSU, "regdb": RegDB}


def build_dataset(cfg: CfgNode, split: str) -> ReIDDataset:
    """Open and check one split of the configured data set."""
    dataset = DATASETS[cfg.dataset](cfg.data_root, split, cfg.image_size, trial=cfg.trial)
    if cfg.num_cam != len(dataset.cameras):
        raise UserError(f"num_cam: {cfg.num_cam}, but {dataset.name} has {len(dataset.cameras)} cameras")
    if split == "train" and cfg.num_id != dataset.num_identities:
        raise UserError(
            f"num_id: {cfg.num_id}, but {cfg.data_root} has {dataset.num_identities} training identities;"
            f" set num_id {dataset.num_identities}"
        )
    return dataset


def build_train_loader(cfg: CfgNode, dataset: ReIDDataset, *, seed: int, pin_memory: bool) -> DataLoader:
    sizes = Sizes(cfg.p_size, cfg.k_size, cfg.batch_size)
    sampler = EpochSampler(dataset.labels, dataset.infrared, method=cfg.sample_method, sizes=sizes, seed=seed)
    return train_loader(dataset, sampler, num_workers=cfg.num_workers, pin_memory=pin_memory)


def build_augment(cfg: CfgNode, *, seed: int) -> BatchAugment:
    keys = ("color_jitter", "vimc_wg", "vimc_cc", "vimc_sj", "cutmix_region", "padding")
    switches = ("random_flip", "random_crop", "random_erase")
    return BatchAugment(**{key: cfg[key] for key in keys + switches}, seed=seed)
