"""Imports run one way: programs -> engine -> models, losses, data -> utils; cfg stops at each package's __init__."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "utils": set(),
    "configs": {"data", "models", "losses", "utils"},
    "data": {"utils"},
    "models": {"utils"},
    "losses": {"utils"},
    "engine": {"models", "losses", "data", "utils"},
    "tools": {"configs", "engine", "models", "losses", "data", "utils"},
    "benchmarks": {"configs", "tools", "engine", "models", "losses", "data", "utils"},
}
FILES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    own = {name.split(".")[0] for name in imported(path)} & (MAY_IMPORT.keys() | {"main"})
    assert own <= MAY_IMPORT[package] | {package}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_cfg_stops_at_the_init_of_a_package(path):
    package = path.relative_to(ROOT).parts[0]
    if package not in ("configs", "tools", "benchmarks") and path.name != "__init__.py":
        assert not {name for name in imported(path) if name.startswith("yacs")}


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: path.name)
def test_no_test_file_imports_another(path):
    assert not {name for name in imported(path) if name.split(".")[-1].startswith("test_")}
