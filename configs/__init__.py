"""Configuration: defaults, the data set's defaults, a YAML file, then overrides; checked and frozen."""

from configs.continuing import get_continued_config
from configs.loading import get_config
from configs.resume import check_resume

__all__ = ["check_resume", "get_config", "get_continued_config"]
