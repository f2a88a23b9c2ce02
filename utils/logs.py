"""Log lines to the terminal and to a file."""

import logging
import sys
from pathlib import Path

from utils.errors import UserError

FORMAT = "%(asctime)s %(message)s"


class LogFile(logging.FileHandler):
    """A file whose failure ends the program, as that of any other file; it then takes no more."""

    def handleError(self, record: logging.LogRecord) -> None:
        self.addFilter(lambda _: False)
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise UserError(f"{self.baseFilename}: cannot be written ({error.strerror}); make room there") from None
        super().handleError(record)


def set_up_logging(file: Path | None = None) -> None:
    """Log to standard output and, if given, to the end of ``file``; called again, it replaces the earlier handlers."""
    terminal = logging.StreamHandler(sys.stdout)
    terminal.addFilter(lambda record: record.levelno < logging.ERROR)  # what ends a program goes to standard error
    handlers: list[logging.Handler] = [terminal]
    if file is not None:
        handlers.append(LogFile(file, encoding="utf-8", errors="backslashreplace"))
    logging.basicConfig(level=logging.INFO, format=FORMAT, datefmt="%H:%M:%S", handlers=handlers, force=True)
    # ignite repeats as an error line what is raised and then reported once
    logging.getLogger("ignite").setLevel(logging.CRITICAL)
    logging.captureWarnings(True)
