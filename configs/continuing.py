"""The configuration of a continued run."""

from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from configs.loading import get_config
from configs.yaml_file import read_yaml
from utils.run.errors import UserError

# Keys that may change on --continue, because they do not change results.
MAY_CHANGE = ("num_workers", "cache", "cache_dir", "data_root", "checkpoint_minutes", "log_period", "save_features")


def get_continued_config(path: Path, overrides: Sequence[str] = ()) -> CfgNode:
    """The configuration of the run that is continued, with overrides of the keys in ``MAY_CHANGE``.

    Args:
        path: ``config.yml`` in the folder of the run.
        overrides: ``KEY VALUE KEY VALUE ...``.

    Raises:
        UserError: as :func:`get_config`; or a key is missing in the file, an override could change the results, or the
            run is a test.
    """
    before, cfg = get_config(path), get_config(path, overrides)
    missing = sorted(before.keys() - read_yaml(path).keys())
    if missing:  # the default may have changed since the run began
        names = f"{', '.join(missing[:5])}{' ...' if missing[5:] else ''}"
        raise UserError(f"{path}: lacks {names}; add each with the value that the run began with, or start a new run")
    for key in cfg:
        if cfg[key] != before[key] and key not in MAY_CHANGE:
            raise UserError(
                f"{key}: {cfg[key]!r} (command line) could change the results of a run that began with {before[key]!r};"
                f" --continue takes {', '.join(MAY_CHANGE)}"
            )
    if cfg.test_only:
        raise UserError(f"--continue: {path.parent} is a test, which cannot be continued; start it again")
    return cfg
