"""Folders and lists of a data set, read as they are meant; what cannot be is a ``UserError`` that names the path."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from utils.run.errors import UserError

LONGEST_NUMBER = 9  # digits of an identity


def _mode(path: Path) -> int:
    """Type and permissions, 0 where there is nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except (OSError, ValueError) as error:  # names may be too long, or hold what no name can
        raise _unreadable(path, error) from None


def _unreadable(path: Path | str, error: Exception) -> UserError:
    return UserError(f"{str(path)[:300]}: cannot be read ({getattr(error, 'strerror', None) or error})")


def is_file(path: Path) -> bool:
    """Whether there is a file, or a link to one; a ``UserError`` where that cannot be known."""
    return stat.S_ISREG(_mode(path))


def require_file(path: Path, purpose: str) -> Path:
    """``path`` if it is a file, else a ``UserError`` that says what it is for."""
    if not is_file(path):
        raise UserError(f"{path}: {'is no file' if _mode(path) else 'no such file'}; it holds {purpose}")
    return path


def require_folder(path: Path, advice: str) -> Path:
    """``path`` if it is a folder that can be read, else a ``UserError`` with ``advice``."""
    mode = _mode(path)
    if not stat.S_ISDIR(mode):
        raise UserError(f"{path}: {'is no folder' if mode else 'no such folder'}; {advice}")
    try:
        os.scandir(path).close()
    except OSError as error:
        raise _unreadable(path, error) from None
    return path


def list_files(folder: Path) -> list[str]:
    """Names of the files in a folder, and of links to files; none where there is no such folder."""
    at, names = str(folder), []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                at = entry.path
                if entry.is_file():
                    names.append(entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(at, error) from None
    return names


def read_lines(path: Path, purpose: str) -> list[str]:
    """The non-blank lines of a text file, stripped; a byte-order mark and CRLF are harmless."""
    try:
        text = require_file(path, purpose).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as text: {error}; save it as UTF-8") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def parse_number(word: str) -> int | None:
    """The number that these digits write, None where it is none or has more digits than an identity."""
    # isascii, because int() would read other digits, too
    return int(word) if word.isascii() and word.isdigit() and len(word) <= LONGEST_NUMBER else None


def parse_identities(words: Iterable[str], path: Path) -> list[int]:
    """Identity numbers from words; ``path`` is named where one is not a number above 0 or stands twice."""
    identities = []
    for word in words:
        identity = parse_number(word)
        if not identity:
            raise UserError(f"{path}: {word[:40]!r} is not an identity number")
        identities.append(identity)
    twice = [identity for identity, count in Counter(identities).items() if count > 1]
    if twice:
        raise UserError(f"{path}: identity {twice[0]} is listed twice")
    return identities


def inside_root(relative: str, source: Path) -> str:
    """A listed path with forward slashes; refused where it would leave the root. ``source`` lists it."""
    path = PurePosixPath(relative.replace("\\", "/"))
    if not path.parts or not relative.isprintable():
        raise UserError(f"{source}: {relative[:80]!r} is not the path of a file")
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise UserError(f"{source}: {relative[:80]!r} leads outside the data set; paths are relative to its root")
    return str(path)
