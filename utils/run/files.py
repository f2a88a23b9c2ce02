"""Writing files so that a reader never sees half of one, and a folder that one process alone may write to."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from utils.run.errors import UserError

try:
    import fcntl
except ImportError:  # not on Windows: nothing is locked there
    fcntl = None

PARTIAL = ".partial"
LOCK = ".lock"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Have ``write`` fill a file beside ``path``, flush and rename it; on failure ``path`` is as before.

    Raises:
        UserError: the file cannot be written: a full disk, a folder that is read-only or gone.
    """
    beside = path.with_name(f".{path.name}{PARTIAL}")
    try:
        try:
            with beside.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            _flush_folder(path.parent)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); make room or allow writing there; what was written"
            " before is intact"
        ) from None


def write_text(path: Path, text: str) -> None:
    """``text`` in UTF-8; bytes of a path that no character stands for are written as escapes."""
    write_atomically(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


class FolderLock:
    """A folder's lock, held until the process ends, however it ends; not handed on to the processes that it starts.

    Raises:
        UserError: another process holds it.
    """

    def __init__(self, folder: Path):
        try:
            self.file = (folder / LOCK).open("w")
        except OSError as error:
            raise UserError(f"{folder}: cannot be written to ({error.strerror}); allow it, or make room") from None
        try:
            if fcntl:
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.close()
            raise UserError(f"{folder}: another process is at work there; wait for it, or end it") from None

    def release(self) -> None:
        self.file.close()


def _flush_folder(folder: Path) -> None:
    """Have the new name on the disk, too, where folders can be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
