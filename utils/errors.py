"""What ends a program without being a defect of it."""

import signal


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
