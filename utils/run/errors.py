"""What ends a program without being a defect of it."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


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


class UnreadableImage(UserError):
    """An image that cannot be read, which may show only when a run is under way."""


class LoaderDied(UserError):
    """A process that loads images is gone; what the others computed is not touched by it."""


class UserErrors(UserError):
    """Several that were found together; the message is that of the first, and how many more there are."""

    def __init__(self, errors: Sequence[UserError]):
        super().__init__(f"{errors[0]} (and {len(errors) - 1} more such findings; python -m tools.doctor lists them)")
        self.errors = tuple(errors)


def single_errors(error: UserError) -> tuple[UserError, ...]:
    """The errors that ``error`` stands for: those found together, or itself."""
    return error.errors if isinstance(error, UserErrors) else (error,)


class Checks:
    """Checks that do not depend on each other: what each of them finds is gathered, and raised at once."""

    def __init__(self):
        self.found: list[UserError] = []

    @contextmanager
    def check(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self.found += single_errors(error)

    def finish(self) -> None:
        """Raise what was found, if anything was."""
        if self.found:
            raise self.found[0] if len(self.found) == 1 else UserErrors(self.found)
