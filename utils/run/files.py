"""Atomic writes and the lock of a folder."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from utils.run.errors import FolderInUse, UserError

try:
    import fcntl
except ImportError:  # Windows: folders are not locked
    fcntl = None  # type: ignore[assignment]  # on Windows

PARTIAL = ".partial"
LOCK = ".lock"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file completely or not at all.

    ``write`` fills a temporary file in the same folder, which is flushed to disk and then renamed to ``path``. If
    anything fails, ``path`` does not change.

    Raises:
        UserError: the file cannot be written, for example because the disk is full or the folder read-only.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _flush_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            why = error.strerror or error
            message = f"{path}: cannot be written ({why}); free some space or allow writing; earlier files are intact"
            raise UserError(message) from None
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` atomically, in UTF-8; characters that UTF-8 cannot encode are written as escapes."""
    write_atomically(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def write_json(path: Path, content: object) -> None:
    """Write ``content`` atomically as JSON."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def remove_partial_files(folder: Path) -> None:
    """Remove the temporary files of a process that was killed while it wrote."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


class FolderLock:
    """Lock a folder until :meth:`release` or the end of this process, even if it is killed.

    Child processes do not hold the lock.

    Raises:
        FolderInUse: another process holds the lock.
        UserError: the folder is not writable, or its file system has no locks.
    """

    def __init__(self, folder: Path):
        try:
            self.file = (folder / LOCK).open("w")
        except OSError as error:
            raise UserError(f"{folder}: not writable ({error.strerror}); free some space or allow writing") from None
        try:
            if fcntl:
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.file.close()
            if isinstance(error, (BlockingIOError, PermissionError)):
                raise FolderInUse(f"{folder}: another process is using this folder; wait for it or stop it") from None
            raise UserError(f"{folder}: cannot be locked ({error.strerror}); use another file system") from None

    def release(self) -> None:
        self.file.close()


def _flush_folder(folder: Path) -> None:
    """Flush a rename to disk, on systems where a folder can be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
