"""A time limit for code that might hang."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail what hangs; not by an ``Exception``, which the code that hangs might take for damage of a file."""

    def late(*_):
        pytest.fail(f"took more than {seconds} s")

    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
