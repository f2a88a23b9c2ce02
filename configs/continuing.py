"""The configuration of a run that goes on."""

from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from configs.loading import get_config
from configs.yaml_file import read_yaml
from utils.run.errors import UserError

# keys that a run may go on with other values of; all others could change its results
HARMLESS = ("num_workers", "cache", "cache_dir", "data_root", "checkpoint_minutes", "log_period", "save_features")


def get_continued_config(path: Path, overrides: Sequence[str] = ()) -> CfgNode:
    """The configuration that a run wrote into its folder, with overrides of ``HARMLESS`` keys.

    Raises:
        UserError: as :func:`get_config`; the file lacks a key; the run was a test alone; or an override could change
            its results.
    """
    before, cfg = get_config(path), get_config(path, overrides)
    lacking = sorted(set(before) - set(read_yaml(path)))
    if lacking:
        raise UserError(
            f"{path}: lacks {', '.join(lacking[:5])}{' ...' if lacking[5:] else ''}; a run writes every key, and"
            " goes on with what it began with: write what is missing as it was, or start a new run"
        )
    for key in cfg:
        if cfg[key] != before[key] and key not in HARMLESS:
            raise UserError(
                f"{key}: {cfg[key]!r} (command line) could change the results of a run that began with {before[key]!r};"
                f" --continue takes {', '.join(HARMLESS)}"
            )
    if cfg.test_only:
        raise UserError(f"--continue: {path.parent} is a test, which has no state to go on from; run it anew")
    return cfg
