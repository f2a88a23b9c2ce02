"""Defaults of every configuration key."""

from configs.default.dataset import dataset_cfg
from configs.default.strategy import strategy_cfg

__all__ = ["dataset_cfg", "strategy_cfg"]
