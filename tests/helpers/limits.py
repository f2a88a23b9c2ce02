"""A time limit for code that might hang."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail the test if the code takes longer.

    ``pytest.fail`` raises a ``BaseException``, so code that catches ``Exception`` cannot take it for a damaged file.
    """

    def late(*_):
        pytest.fail(f"took more than {seconds} s")

    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
