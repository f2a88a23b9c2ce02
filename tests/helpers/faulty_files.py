"""Make the n-th file operation of a program fail."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO
from unittest.mock import patch


class FaultyFiles:
    """Records the names of file operations in ``done`` and calls ``fault`` at number ``at``, counted from 1."""

    def __init__(self, at: int, fault: Callable[[], None]):
        self.at, self.fault = at, fault
        self.done: list[str] = []

    def fails_now(self, name: str) -> bool:
        """Record an operation; whether it is the one that fails."""
        self.done.append(name)
        return len(self.done) == self.at

    def wrap(self, name: str, operation: Callable) -> Callable:
        def call(*arguments, **options):
            if self.fails_now(name):
                self.fault()
            return operation(*arguments, **options)

        return call


class _File:
    """An open file that flushes each write. A write that fails has written the first half of its data."""

    def __init__(self, faults: FaultyFiles, file: BinaryIO):
        self.faults, self.file = faults, file

    def write(self, data) -> None:
        fails = self.faults.fails_now("write")
        self.file.write(data[: len(data) // 2] if fails else data)
        self.file.flush()
        if fails:
            self.faults.fault()

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.file.close()


@contextmanager
def faulty_files(at: int, fault: Callable[[], None]) -> Iterator[FaultyFiles]:
    """Inside this context, ``FaultyFiles`` sees each opening for writing, write, flush, rename and removal.

    With ``at`` 0 none of them fails.
    """
    faults = FaultyFiles(at, fault)
    original_open = Path.open
    open_for_writing = faults.wrap("open", lambda path: _File(faults, original_open(path, "wb")))

    def opened(path: Path, mode: str = "r", *arguments, **options):
        return open_for_writing(path) if mode == "wb" else original_open(path, mode, *arguments, **options)

    with ExitStack() as patches:
        patches.enter_context(patch.object(Path, "open", opened))
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
            patches.enter_context(patch.object(owner, name, faults.wrap(name, getattr(owner, name))))
        yield faults


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def kill_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
