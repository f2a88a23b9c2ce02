"""A layer under the files that a program writes, in which the n-th operation goes wrong."""

import errno
import os
import pathlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

FULL = OSError(errno.ENOSPC, "No space left on device")


class FaultyFiles:
    """Counts openings, writes, flushes, renames and removals, and at number ``at`` fails with ``fault``.

    A write that fails has put down the first half of what it was given.
    """

    def __init__(self, at: int, fault: Callable[[], None]):
        self.at, self.fault, self.done = at, fault, 0

    def step(self, before: Callable[[], object] = lambda: None) -> None:
        self.done += 1
        if self.done == self.at:
            before()
            self.fault()


class _File:
    """An unbuffered file opened for writing: what is written is written."""

    def __init__(self, faults: FaultyFiles, path: pathlib.Path):
        self.faults, self.raw = faults, _open(path, "wb", buffering=0)

    def write(self, data) -> int:
        data = bytes(data)
        self.faults.step(lambda: self.raw.write(data[: len(data) // 2]))
        return self.raw.write(data)

    def __getattr__(self, name: str):
        return getattr(self.raw, name)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.raw.close()


_open = pathlib.Path.open


@contextmanager
def faulty_files(at: int, fault: Callable[[], None]) -> Iterator[FaultyFiles]:
    """Within it, operations on files go through a :class:`FaultyFiles`; ``at`` 0 only counts them."""
    faults = FaultyFiles(at, fault)
    originals = {(os, "fsync"): os.fsync, (pathlib.Path, "replace"): None, (pathlib.Path, "unlink"): None}

    def patch(owner, name):
        original = getattr(owner, name)
        originals[owner, name] = original

        def counted(*args, **kwargs):
            faults.step()
            return original(*args, **kwargs)

        setattr(owner, name, counted)

    def opened(path, mode="r", *args, **kwargs):
        if mode != "wb":
            return _open(path, mode, *args, **kwargs)
        faults.step()
        return _File(faults, path)

    for owner, name in list(originals):
        patch(owner, name)
    pathlib.Path.open = opened
    try:
        yield faults
    finally:
        pathlib.Path.open = _open
        for (owner, name), original in originals.items():
            setattr(owner, name, original)


def full() -> None:
    raise FULL


def kill() -> None:
    with suppress(ProcessLookupError):
        os.kill(os.getpid(), signal.SIGKILL)
