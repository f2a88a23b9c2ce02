"""Build the configuration of a run from defaults, a YAML file and command-line overrides."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from yacs.config import CfgNode

from configs.checks import check_choice, check_values, nearest
from configs.default import strategy_cfg
from configs.yaml_file import decode, read_yaml
from data.datasets import DATASETS
from utils.run.errors import UserError, shown, shown_name

COMMAND_LINE = "command line"
TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text (quote it)"}
LIST_NAMES = {int: "whole numbers", float: "numbers", str: "words"}
ITEM_TYPES = {int: (int,), float: (float, int), str: (str,)}  # of a list's first default -> the types that are taken


def get_config(path: str | Path, overrides: Sequence[str] = (), *, sources: Mapping[str, str] | None = None) -> CfgNode:
    """Build, check and freeze a configuration.

    Args:
        path: YAML file with any of the keys in ``configs/default/strategy.py``.
        overrides: ``KEY VALUE KEY VALUE ...``; they replace the values of the file.
        sources: key -> where an override was given, for messages; default: the command line.

    Raises:
        UserError: unknown key, wrong type or impossible value. The message names the key, the value, where it was
            given, and what would be valid.
    """
    given = {key: (value, str(path)) for key, value in _read_file(Path(path)).items()}
    named = sources or {}
    given |= {key: (value, named.get(key, COMMAND_LINE)) for key, value in pair(overrides).items()}
    sources = {key: source for key, (_, source) in given.items()}
    values = {key: _convert(key, value, source) for key, (value, source) in given.items()}

    cfg = strategy_cfg.clone()
    cfg.update(values)
    check_choice(cfg, "dataset", DATASETS, sources)
    cfg.update({**DATASETS[cfg.dataset].defaults, **values})
    check_values(cfg, sources)
    cfg.freeze()
    return cfg


def _read_file(path: Path) -> dict[str, object]:
    if path.suffix.lower() not in (".yml", ".yaml"):
        raise UserError(f"{path}: a configuration is a .yml or .yaml file")
    try:
        return read_yaml(path)
    except FileNotFoundError:
        siblings = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise UserError(f"{path}: no such configuration file{nearest(path.name, siblings)}") from None


def pair(overrides: Sequence[str]) -> dict[str, str]:
    """Key -> value of the overrides."""
    if len(overrides) % 2:
        raise UserError(f"{COMMAND_LINE}: overrides are KEY VALUE pairs; {shown(overrides[-1])} has no value")
    return dict(zip(overrides[::2], overrides[1::2], strict=True))  # the last one wins, as usual on command lines


def _convert(key: str, value: object, source: str) -> object:
    """``value`` converted to the type of the key's default."""
    if key not in strategy_cfg:
        hint = nearest(key, strategy_cfg)
        raise UserError(f"{shown_name(key)}: {shown(value)} ({source}) sets an unknown key{hint}")
    wanted = type(strategy_cfg[key])
    decoded = decode(value) if isinstance(value, str) and wanted is not str else value
    if wanted is float and type(decoded) is int:
        return float(decoded)
    if wanted in (list, tuple):
        kinds = ITEM_TYPES[type(strategy_cfg[key][0])]
        if isinstance(decoded, list | tuple) and all(type(item) in kinds for item in decoded):
            return wanted(kinds[0](item) for item in decoded)
        raise UserError(f"{key}: {shown(value)} ({source}) should be a list of {LIST_NAMES[kinds[0]]}")
    if type(decoded) is wanted:
        return decoded
    raise UserError(f"{key}: {shown(value)} ({source}) should be {TYPE_NAMES[wanted]}")
