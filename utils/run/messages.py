"""How messages show what was given: on one printable line that stays short."""

from reprlib import Repr

MOST = 400  # characters; Repr shortens each part of a value, but not how many parts are in parts
_REPR = Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_REPR.maxlist = _REPR.maxtuple = 10


def shown(value: object) -> str:
    """``repr`` for a message: one printable line that stays short whatever the value."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= MOST else f"{text[:MOST]}..."


def shown_name(name: object) -> str:
    """A name as it is, where it is short and printable; else as :func:`shown`."""
    return name if isinstance(name, str) and name.isprintable() and 0 < len(name) <= 120 else shown(name)


def reason(error: Exception, most: int = 200) -> str:
    """What ``error`` says, on one printable line of at most ``most`` characters; its type where it says nothing."""
    message = "".join(filter(str.isprintable, " ".join(str(error).split())))
    return message[:most] or type(error).__name__
