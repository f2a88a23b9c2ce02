"""How every program of the project ends.

0 when all went well, 2 with one line for an error of the user's or a full disk, 130 or 143 where ctrl-C or SIGTERM
ended it; a traceback is a defect.
"""

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import torch

from utils.run.errors import Stopped, UserError
from utils.run.interruption import stop_on_signals

logger = logging.getLogger(__name__)
logger.addHandler(logging.NullHandler())  # without a log, errors are printed once

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, without the usage before it; ``--help`` shows that."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def run_program(main: Callable[[], int]) -> int:
    """Run ``main`` and return the exit code; why it failed goes to the log, too, if there is one."""
    try:
        with stop_on_signals():
            return main()
    except UserError as error:
        return _end(f"error: {one_line(error)}", 2)
    except (Stopped, KeyboardInterrupt) as stop:
        stop = stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT)
        return _end(str(stop), 128 + stop.number)
    except BrokenPipeError:  # the reader of our output is gone; nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            logger.error("stopped by a defect of the program", exc_info=True)
            raise
        return _end(f"error: {error.filename or 'a file'}: {error.strerror}; what was written before is intact", 2)
    except torch.OutOfMemoryError:
        advice = "lower p_size, k_size or batch_size in training, test_batch_size in testing, or set another cache"
        return _end(f"error: the memory of the GPU does not suffice; {advice}", 2)
    except Exception:
        logger.error("stopped by a defect of the program", exc_info=True)
        raise


def _end(message: str, code: int) -> int:
    with suppress(UserError):  # a log that cannot be written may be why the program ends
        logger.error("%s", message)
    print(message, file=sys.stderr)
    return code


def one_line(error: Exception) -> str:
    """The message alone, where a loader process wrapped it in its own traceback."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")
