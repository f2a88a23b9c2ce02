"""Flat YAML files, read so that nothing in them can run code, take long, or mean something else than it seems to."""

import re
import warnings
from ast import literal_eval
from pathlib import Path

import yaml
from yaml.constructor import ConstructorError

from utils.run.errors import UserError
from utils.run.messages import shown, shown_name

MOST_BYTES = 100_000  # a file with every key takes 3,000
MOST_LITERAL = 1000  # characters; Python's parser may exhaust its stack on long expressions
NAME_TAG = "tag:yaml.org,2002:str"
SURPRISING = re.compile(r"[-+]?0[0-9_]|.*:")  # YAML 1.1 reads 010 as 8 and 1:30 as 90


class _Loader(yaml.SafeLoader):
    """Safe YAML without values that are something else than they seem to be."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if SURPRISING.match(node.value):
            raise _problem(f"{shown(node.value)} is octal or in base 60 to YAML; write a decimal number", node)
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        if ":" in node.value:
            raise _problem(f"{shown(node.value)} is in base 60 to YAML; write a decimal number", node)
        return super().construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _problem(problem: str, node: yaml.Node) -> ConstructorError:
    return ConstructorError(None, None, problem, node.start_mark)


def _require_flat(value: yaml.Node) -> None:
    """No nesting: aliases of nested lists would grow without bounds."""
    items = value.value if isinstance(value, yaml.SequenceNode) else [value]
    if not all(isinstance(item, yaml.ScalarNode) for item in items):
        raise _problem("a value is a number, true or false, text, or a list of numbers", value)


def _require_names(mapping: yaml.MappingNode) -> None:
    """Keys are names, each given once, where PyYAML would silently let the last one win."""
    seen = set()
    for key, _ in mapping.value:
        if key.tag != NAME_TAG or not isinstance(key, yaml.ScalarNode):
            what = shown_name(key.value) if isinstance(key, yaml.ScalarNode) else "of several parts"
            raise _problem(f"key {what} is not a name", key)
        if key.value in seen:
            raise _problem(f"key {shown(key.value)} is given twice", key)
        seen.add(key.value)


def _flat_mapping(text: str) -> dict[str, object]:
    loader = _Loader(text)
    node = loader.get_single_node()
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else shown(node.value)
        raise _problem(f"expected lines of 'key: value', found {kind}", node)
    _require_names(node)
    return {key.value: _construct(loader, value) for key, value in node.value}


def _construct(loader: _Loader, value: yaml.Node) -> object:
    _require_flat(value)
    try:
        return loader.construct_object(value, deep=True)
    except (ValueError, LookupError, AttributeError, TypeError):  # PyYAML on what does not fit its tag, or is too long
        raise _problem(f"{shown(value.value)} cannot be read as {value.tag.rpartition(':')[2]}", value) from None


def read_yaml(path: Path) -> dict[str, object]:
    """The keys and values of a YAML file.

    Raises:
        FileNotFoundError: no such file.
        UserError: too large a one, or one that is not flat, valid YAML in UTF-8; names the place.
    """
    text = _read_text(path)
    try:
        return _flat_mapping(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}{_where(error)}") from None


def _read_text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a file; give a YAML file with the configuration")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UserError(f"{path}: is larger than {MOST_BYTES} bytes; is it a configuration?")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: cannot be read as text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    deep = isinstance(error, RecursionError)
    problem = "nested too deeply" if deep else getattr(error, "problem", None) or str(error)
    place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
    return f"{place}: not valid YAML: {' '.join(problem.split())}"


def decode(text: str) -> object:
    """Text as the Python or YAML literal that it is, or else as it stands."""
    if len(text) > MOST_LITERAL:
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in what is no literal anyway
            return literal_eval(text)  # also reads `(384, 192)` and `5e-4`, which YAML takes for text
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        pass
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return text if node is None else _construct(loader, node)
    except (yaml.YAMLError, RecursionError):
        return text
