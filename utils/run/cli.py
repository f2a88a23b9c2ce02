"""Run a program's ``main`` and turn errors into exit codes.

====  ==============================================================================================
code  meaning
====  ==============================================================================================
0     success
1     a bug, with its traceback
2     a user or environment error, in one line: wrong arguments, a full disk, out of GPU memory
130   stopped by ctrl-C (SIGINT)
143   stopped by SIGTERM
====  ==============================================================================================
"""

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import torch

from utils.run.errors import Stopped, UserError, printable
from utils.run.interruption import stop_on_signals

logger = logging.getLogger(__name__)
logger.addHandler(logging.NullHandler())  # without it, logging would print errors a second time if there is no log

WRITE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EPIPE,
    errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG,
}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def run_program(main: Callable[[], int]) -> int:
    """Call ``main`` and return the exit code. Errors are printed to standard error and logged."""
    open_closed_streams()
    code = _run(main)
    try:
        print(end="", flush=True)
    except OSError as error:
        # Python flushes again when it exits; that would fail and change the exit code to 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if code == 0:
            _report(f"error: standard output: {error.strerror}")
            return 2
    return code


def open_closed_streams() -> None:
    """Write standard output and error to the null device if the program was started without them.

    Libraries write to both without asking. A file that the program opens could also get the file descriptor of one, and
    then messages would be written into it.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open until the program ends


def _run(main: Callable[[], int]) -> int:
    try:
        with stop_on_signals():
            return main()
    except (Stopped, KeyboardInterrupt) as stop:
        stop = stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT)
        _report(str(stop))
        return 128 + stop.number
    except Exception as error:
        message = _user_message(error)
        if message is None:
            logger.exception("stopped by a bug")
            raise
        _report(f"error: {message}")
        return 2


def _user_message(error: Exception) -> str | None:
    """What to tell the user, in one line; None for a bug."""
    if isinstance(error, UserError):
        return one_line(error)
    if isinstance(error, torch.OutOfMemoryError):
        sizes = "p_size, k_size or batch_size (test_batch_size in testing)"
        return f"out of GPU memory; lower {sizes}, or use cache none or disk"
    if isinstance(error, OSError) and error.errno in WRITE_ERRORS:
        return f"{error.filename or 'a file or standard output'}: {error.strerror}; earlier files are intact"
    return None


def _report(message: str) -> None:
    logger.error("%s", message)
    print(message, file=sys.stderr)


def one_line(error: Exception) -> str:
    """The message of ``error``, without the traceback that torch puts before it in a loader process."""
    line = str(error).strip().splitlines()[-1]
    return printable(line.removeprefix(f"{type(error).__module__}.{type(error).__name__}: "))
