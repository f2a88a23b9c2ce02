"""Log lines to the terminal and to a file."""

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from utils.run.errors import UserError

FORMAT = "%(asctime)s %(message)s"


class LogFile(logging.FileHandler):
    """A file whose failure ends the program, as that of any other file; it then takes no more."""

    def handleError(self, record: logging.LogRecord) -> None:
        self.addFilter(lambda _: False)
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise UserError(f"{self.baseFilename}: cannot be written ({error.strerror}); make room there") from None
        super().handleError(record)


class Terminal(logging.StreamHandler):
    """Standard output, without which a run goes on: its reader may be gone, or the disk of its file full."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
            return
        self.addFilter(lambda _: False)
        with suppress(OSError, ValueError):  # what is left in its buffer would fail again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def set_up_logging(file: Path | None = None) -> None:
    """Log to standard output and, if given, to the end of ``file``; called again, it replaces the earlier handlers."""
    terminal = Terminal(sys.stdout)
    terminal.addFilter(lambda record: record.levelno < logging.ERROR)  # what ends a program goes to standard error
    handlers: list[logging.Handler] = [terminal]
    if file is not None:
        handlers.append(LogFile(file, encoding="utf-8", errors="backslashreplace"))
    logging.basicConfig(level=logging.INFO, format=FORMAT, datefmt="%H:%M:%S", handlers=handlers, force=True)
    # ignite repeats as an error line what is raised and then reported once
    logging.getLogger("ignite").setLevel(logging.CRITICAL)
    logging.captureWarnings(True)
