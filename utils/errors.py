"""What ends a program without being a defect of it, and how messages show what was given."""

import signal
from reprlib import Repr


class UserError(ValueError):
    """A configuration, path, file or argument that cannot be used.

    The message is one line that says what is wrong, where, and what to do. Programs print it and exit with code 2; a
    traceback would only hide it.
    """


class Stopped(BaseException):
    """A signal asked the program to end; no ``Exception``, so that nothing takes it for an error and goes on.

    Programs print the message and exit with 128 plus the signal's number, as shells do.
    """

    def __init__(self, number: int, hint: str = ""):
        super().__init__(number, hint)
        self.number, self.hint = number, hint

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}" + (f"; {self.hint}" if self.hint else "")


_REPR = Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_REPR.maxlist = _REPR.maxtuple = 10


def shown(value: object) -> str:
    """``repr`` for a message: one printable line that stays short whatever the value."""
    try:
        return _REPR.repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a number of thousands of digits"


def shown_name(name: object) -> str:
    """A name as it is, where it is short and printable; else as :func:`shown`."""
    return name if isinstance(name, str) and name.isprintable() and 0 < len(name) <= 120 else shown(name)


def reason(error: Exception, most: int = 200) -> str:
    """What ``error`` says, on one printable line of at most ``most`` characters; its type where it says nothing."""
    message = "".join(filter(str.isprintable, " ".join(str(error).split())))
    return message[:most] or type(error).__name__
