"""YAML files, read by the safe loader."""

from ast import literal_eval
from pathlib import Path

import yaml

from utils.run.errors import UserError, shown


def read_yaml(path: Path, *, nested: bool = False) -> dict:
    """Read the keys and values of a YAML file.

    Args:
        nested: values may be mappings and lists of any depth; else they are scalars or lists of scalars.

    Raises:
        FileNotFoundError: no such file.
        UserError: not valid YAML in UTF-8, a key given twice, or a nested value. The message names file, line and
            column.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}: {error.reason}); save it as UTF-8") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise _error("expected lines of 'key: value'", node)
        if not nested:
            _check_flat(node)
        _check_keys(node)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-13-31
        mark = getattr(error, "problem_mark", None)
        position = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"{path}{position}: not valid YAML: {' '.join(problem.split())}") from None


def _check_keys(node: yaml.Node) -> None:
    """Raise if a mapping, also a nested one, has the same key twice. PyYAML would silently take the last one."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a key is text", key)
            if key.value in seen:
                raise _error(f"key {shown(key.value)} is given twice", key)
            seen.add(key.value)
            _check_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item)


def _check_flat(node: yaml.MappingNode) -> None:
    """Raise unless ``node`` maps keys to scalars or lists of scalars."""
    for key, value in node.value:
        items = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for part in (key, *items):
            if not isinstance(part, yaml.ScalarNode):
                raise _error("a value is a number, true or false, text, or a list of numbers", part)


def _error(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def decode(text: str) -> object:
    """Read text as a Python literal, such as ``(384, 192)`` or ``5e-4``, or as YAML; return other text unchanged."""
    for read in (literal_eval, yaml.safe_load):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, yaml.YAMLError):
            continue
    return text
