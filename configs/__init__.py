"""Configuration: defaults, then the data set's defaults, then a YAML file, then overrides; checked and frozen."""

from configs.loading import get_config

__all__ = ["get_config"]
