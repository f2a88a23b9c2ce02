"""User and environment errors, as opposed to bugs, and how their messages show values."""

import signal
from reprlib import Repr

MAX_LENGTH = 400  # characters of a shown value

_REPR = Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_REPR.maxlist = _REPR.maxtuple = 10


class UserError(ValueError):
    """A configuration, path, file or argument that cannot be used.

    Each message is one line that says what is wrong, where, and what to do. Programs print the first one and the number
    of the others, and exit with code 2.

    Args:
        messages: one or more problems that were found together.
    """

    def __init__(self, *messages: str):
        more = f" (and {len(messages) - 1} more; python -m tools.doctor lists them)" if len(messages) > 1 else ""
        super().__init__(messages[0] + more)
        self.messages = messages


class FolderInUse(UserError):
    """Another process holds the lock of a folder."""


class UnreadableImage(UserError):
    """An image that cannot be read."""


class LoaderDied(UserError):
    """A loader process was killed. The training state is not affected."""


class Stopped(BaseException):
    """SIGINT or SIGTERM asked the program to stop.

    Programs print the message and exit with 128 plus the signal's number, as shells do. It is not an ``Exception``, so
    that code which handles errors does not catch it.
    """

    def __init__(self, number: int, hint: str = ""):
        super().__init__(number, hint)
        self.number, self.hint = number, hint

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}" + (f"; {self.hint}" if self.hint else "")


def printable(text: str) -> str:
    """``text`` with escapes for line breaks and other unprintable characters, which names of files may hold."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def shown(value: object) -> str:
    """``repr`` in one short printable line, for messages."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}..."


def shown_name(name: object) -> str:
    """A short printable name as it is; anything else as :func:`shown`."""
    return name if isinstance(name, str) and name.isprintable() and 0 < len(name) <= 120 else shown(name)


def reason(error: Exception, max_length: int = 200) -> str:
    """The message of ``error`` in one short printable line, or its type if it has no message."""
    message = "".join(filter(str.isprintable, " ".join(str(error).split())))
    return message[:max_length] or type(error).__name__
