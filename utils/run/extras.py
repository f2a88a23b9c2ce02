"""Packages that only some tools need."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from utils.run.cli import run_program
from utils.run.errors import UserError


@contextmanager
def optional_packages() -> Iterator[None]:
    """Exit with one line that says what to install if an import of the block fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = UserError(f"{error.name} is not installed; run: pip install -r requirements-tools.txt")
        sys.exit(run_program(lambda: _raise(missing)))


def _raise(error: Exception) -> int:
    raise error
