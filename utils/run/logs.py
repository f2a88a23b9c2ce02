"""Logging to standard output and to a file."""

import logging
import sys
import threading
from pathlib import Path

from tqdm import tqdm

logger = logging.getLogger(__name__)

IN_BAR = "in_bar"  # attribute of log records whose content the progress bar shows, too


class TerminalHandler(logging.StreamHandler):
    """Writes lines above the progress bars, which are cleared and drawn again."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def set_up_logging(file: Path | None = None) -> None:
    """Log to standard output and, if given, append to ``file``. A second call replaces the handlers of the first."""
    terminal = TerminalHandler(sys.stdout)
    terminal.addFilter(lambda record: record.levelno < logging.ERROR)  # run_program prints errors to standard error
    if sys.stdout.isatty() and sys.stderr.isatty():
        terminal.addFilter(lambda record: not hasattr(record, IN_BAR))
    handlers: list[logging.Handler] = [terminal]
    if file is not None:
        handlers.append(logging.FileHandler(file, encoding="utf-8", errors="backslashreplace"))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers, force=True
    )
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # ignite logs every exception as an error, then raises it
    logging.captureWarnings(True)
    threading.excepthook = _log_thread
    logging.raiseExceptions = False  # a line that cannot be written is lost without a traceback, e.g. after `| head`


def _log_thread(error: threading.ExceptHookArgs) -> None:
    """Log why a thread ended. The terminal only shows what the main thread makes of it."""
    if not issubclass(error.exc_type, SystemExit):
        name = error.thread.name if error.thread else "unknown"
        logger.error("a thread (%s) ended with an error", name, exc_info=error.exc_value)
