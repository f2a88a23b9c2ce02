"""Build the resolved configuration from defaults, a YAML file and command-line overrides."""

from ast import literal_eval
from collections.abc import Sequence
from pathlib import Path

import yaml
from yacs.config import CfgNode

from configs.checks import check_values, nearest
from configs.default import dataset_cfg, strategy_cfg
from utils.errors import UserError

COMMAND_LINE = "command line"


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
    given = {key: (value, str(path)) for key, value in _read_yaml(Path(path)).items()}
    given |= {key: (value, COMMAND_LINE) for key, value in _pair(overrides).items()}

    cfg = strategy_cfg.clone()
    dataset, source = given.get("dataset", (cfg.dataset, "default"))
    dataset = _convert("dataset", dataset, cfg.dataset, source)
    if dataset not in dataset_cfg:
        raise UserError(
            f"dataset: {dataset!r} ({source}) is unknown; choose from {', '.join(dataset_cfg)}"
            f"{nearest(dataset, dataset_cfg)}"
        )
    cfg.update(dataset_cfg[dataset].clone())

    for key, (value, source) in given.items():
        if key not in cfg:
            raise UserError(f"{key}: {value!r} ({source}) sets an unknown key{nearest(key, cfg)}")
        cfg[key] = _convert(key, value, cfg[key], source)
    check_values(cfg, {key: source for key, (_, source) in given.items()})
    cfg.freeze()
    return cfg


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, where PyYAML would silently let the last one win."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a name", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, object]:
    if path.suffix.lower() not in (".yml", ".yaml"):
        raise UserError(f"{path}: a configuration is a .yml or .yaml file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        siblings = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise UserError(f"{path}: no such configuration file{nearest(path.name, siblings)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {error}") from None
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path}{_where(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected lines of 'key: value', found {type(content).__name__}")
    return content


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error) or type(error).__name__
    place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
    return f"{place}: not valid YAML: {' '.join(problem.split())}"


def _pair(overrides: Sequence[str]) -> dict[str, object]:
    if len(overrides) % 2:
        raise UserError(f"{COMMAND_LINE}: overrides are KEY VALUE pairs; {overrides[-1]!r} has no partner")
    return dict(zip(overrides[::2], overrides[1::2], strict=True))  # the last one wins, as with other programs


def _convert(key: str, value: object, default: object, source: str) -> object:
    """``value`` as the type of ``default``; text is read as a Python or YAML literal unless text is wanted."""
    wanted = type(default)
    decoded = _decode(value) if isinstance(value, str) and wanted is not str else value
    if wanted is float and type(decoded) is int:
        return float(decoded)
    if wanted in (list, tuple) and isinstance(decoded, list | tuple):
        if all(type(item) is int for item in decoded):
            return wanted(decoded)
    elif type(decoded) is wanted:
        return decoded
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text (quote it)"}
    raise UserError(f"{key}: {value!r} ({source}) should be {names.get(wanted, 'a list of whole numbers')}")


def _decode(text: str) -> object:
    try:
        return literal_eval(text)  # also reads `(384, 192)` and `5e-4`, which YAML takes for text
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        pass
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return text
