"""Build the resolved configuration from defaults, a YAML file and command-line overrides."""

import math
from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from configs.checks import check_values, nearest
from configs.default import dataset_cfg, strategy_cfg
from configs.yaml_file import decode, read_yaml
from utils.run.errors import UserError
from utils.run.messages import shown, shown_name

COMMAND_LINE = "command line"
LARGEST = 10**300  # beyond it there is no float


def get_config(path: str | Path, overrides: Sequence[str] = ()) -> CfgNode:
    """Resolve a configuration.

    Args:
        path: YAML file with any of the keys in ``configs/default``.
        overrides: flat sequence ``KEY VALUE KEY VALUE ...``; wins over the file.

    Returns:
        The frozen configuration.

    Raises:
        UserError: unknown key, wrong type or impossible value; names the key, the value, where it was given, and what
            would be valid.
    """
    given = {key: (value, str(path)) for key, value in _read_file(Path(path)).items()}
    given |= {key: (value, COMMAND_LINE) for key, value in _pair(overrides).items()}

    cfg = strategy_cfg.clone()
    dataset, source = given.get("dataset", (cfg.dataset, "default"))
    dataset = _convert("dataset", dataset, cfg.dataset, source)
    if dataset not in dataset_cfg:
        raise UserError(
            f"dataset: {shown(dataset)} ({source}) is unknown; choose from {', '.join(dataset_cfg)}"
            f"{nearest(dataset, dataset_cfg)}"
        )
    cfg.update(dataset_cfg[dataset].clone())

    for key, (value, source) in given.items():
        if key not in cfg:
            raise UserError(f"{shown_name(key)}: {shown(value)} ({source}) sets an unknown key{nearest(key, cfg)}")
        cfg[key] = _convert(key, value, cfg[key], source)
    check_values(cfg, {key: source for key, (_, source) in given.items()})
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


def _pair(overrides: Sequence[str]) -> dict[str, object]:
    if len(overrides) % 2:
        raise UserError(f"{COMMAND_LINE}: overrides are KEY VALUE pairs; {shown(overrides[-1])} has no partner")
    return dict(zip(overrides[::2], overrides[1::2], strict=True))  # the last one wins, as with other programs


def _convert(key: str, value: object, default: object, source: str) -> object:
    """``value`` as the type of ``default``; text is read as a Python or YAML literal unless text is wanted."""
    wanted = type(default)
    decoded = decode(value) if isinstance(value, str) and wanted is not str else value
    if wanted is float and type(decoded) is int:
        return float(decoded) if abs(decoded) < LARGEST else math.inf  # which no rule lets pass
    if wanted in (list, tuple) and isinstance(decoded, list | tuple):
        if all(type(item) is int for item in decoded):
            return wanted(decoded)
    elif type(decoded) is wanted:
        return decoded
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text (quote it)"}
    raise UserError(f"{key}: {shown(value)} ({source}) should be {names.get(wanted, 'a list of whole numbers')}")
