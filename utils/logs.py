"""Log lines to the terminal and to a file."""

import logging
import sys
from pathlib import Path

FORMAT = "%(asctime)s %(message)s"


def set_up_logging(file: Path | None = None) -> None:
    """Log to standard output and, if given, to ``file``; called again, it replaces the earlier handlers."""
    terminal = logging.StreamHandler(sys.stdout)
    terminal.addFilter(lambda record: record.levelno < logging.ERROR)  # what ends a program goes to standard error
    handlers: list[logging.Handler] = [terminal]
    if file is not None:
        handlers.append(logging.FileHandler(file, encoding="utf-8", errors="backslashreplace"))
    logging.basicConfig(level=logging.INFO, format=FORMAT, datefmt="%H:%M:%S", handlers=handlers, force=True)
    # ignite repeats as an error line what is raised and then reported once
    logging.getLogger("ignite").setLevel(logging.CRITICAL)
    logging.captureWarnings(True)
