"""Configuration: defaults, then the data set's defaults, then a YAML file, then overrides; checked and frozen."""

from configs.loading import get_config
from configs.resume import check_resume

__all__ = ["check_resume", "get_config"]
