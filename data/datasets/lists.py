"""Folders and text lists of a data set. Every error is a ``UserError`` that names the path."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from utils.run.errors import UserError

LONGEST_NUMBER = 9  # digits of an identity


def is_file(path: Path) -> bool:
    """Whether ``path`` is a file, or a link to one; False if it is not accessible."""
    try:
        return path.is_file()
    except OSError:
        return False


def file_problem(path: Path, content: str) -> str:
    """Error message if ``path`` is not a readable file, else an empty string.

    Args:
        content: what the file should hold; part of the message.
    """
    try:
        if path.is_file():
            path.open("rb").close()
            return ""
        return f"{path}: {'not a file' if path.exists() else 'no such file'}; expected: {content}"
    except OSError as error:
        return _cannot_be_read(path, error)


def folder_problem(path: Path, advice: str) -> str:
    """Error message with ``advice`` if ``path`` is not a readable folder, else an empty string."""
    try:
        if path.is_dir():
            os.scandir(path).close()
            return ""
        return f"{path}: {'not a folder' if path.exists() else 'no such folder'}; {advice}"
    except OSError as error:
        return _cannot_be_read(path, error)


def require(problems: Iterable[str]) -> None:
    """Raise one ``UserError`` with all non-empty problems, if there are any."""
    found = [problem for problem in problems if problem]
    if found:
        raise UserError(*found)


def list_files(folder: Path) -> list[str]:
    """Names of the files in ``folder``, links to files included; empty if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_file()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(_cannot_be_read(folder, error)) from None


def read_lines(path: Path, content: str) -> list[str]:
    """The non-blank lines of a text file, stripped. A byte-order mark and Windows line ends are accepted."""
    require([file_problem(path, content)])
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as text ({error.reason}); save it as UTF-8") from None
    return [line.strip() for line in lines if line.strip()]


def read_identities(path: Path, content: str) -> list[int]:
    """The identities of a list: numbers above 0, separated by commas, each listed once."""
    identities = []
    for word in ",".join(read_lines(path, content)).split(","):
        number = parse_number(word.strip())
        if number:
            identities.append(number)
        elif word.strip():
            raise UserError(f"{path}: {word.strip()[:40]!r} is not an identity number")
    twice = [identity for identity, count in Counter(identities).items() if count > 1]
    if twice:
        raise UserError(f"{path}: identity {twice[0]} is listed twice")
    if not identities:
        raise UserError(f"{path}: lists no identity")
    return identities


def parse_number(word: str) -> int | None:
    """The number written in ``word``; None if it is not a whole number or has too many digits."""
    # isascii, because int() also reads other scripts' digits
    return int(word) if word.isascii() and word.isdigit() and len(word) <= LONGEST_NUMBER else None


def inside_root(relative: str, source: Path) -> str:
    """A listed path with forward slashes.

    Args:
        relative: the path, relative to the root of the data set.
        source: the list that it was read from.

    Raises:
        UserError: the path leads outside the root.
    """
    path = PurePosixPath(relative.replace("\\", "/"))
    if not path.parts or not relative.isprintable():
        raise UserError(f"{source}: {relative[:80]!r} is not the path of a file")
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise UserError(f"{source}: {relative[:80]!r} leads outside the data set; paths are relative to its root")
    return str(path)


def _cannot_be_read(path: Path, error: OSError) -> str:
    return f"{str(error.filename or path)[:300]}: cannot be read ({error.strerror})"
