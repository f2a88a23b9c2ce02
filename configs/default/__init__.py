"""Defaults of the configuration."""

from configs.default.strategy import strategy_cfg

__all__ = ["strategy_cfg"]
