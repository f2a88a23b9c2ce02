"""How every program of the project ends: a user's error in one line, code 2; ctrl-C without a traceback, code 130."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from utils.errors import UserError

logger = logging.getLogger(__name__)
logger.addHandler(logging.NullHandler())  # without a log, errors are printed once


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, without the usage before it; ``--help`` shows that."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def run_program(main: Callable[[], int]) -> int:
    """Run ``main`` and return the exit code; why it failed goes to the log, too, if there is one."""
    try:
        return main()
    except UserError as error:
        logger.error("error: %s", one_line(error))
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        logger.error("interrupted")
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output is gone; nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:
        logger.error("stopped by a defect of the program", exc_info=True)
        raise


def one_line(error: Exception) -> str:
    """The message alone, where a loader process wrapped it in its own traceback."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")
