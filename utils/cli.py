"""How every program of the project ends: a user's error in one line, code 2; ctrl-C without a traceback, code 130."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from utils.errors import UserError


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, without the usage before it; ``--help`` shows that."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def run_program(main: Callable[[], int]) -> int:
    """Run ``main`` and return the exit code."""
    try:
        return main()
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output is gone; nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def one_line(error: Exception) -> str:
    """The message alone, where a loader process wrapped it in its own traceback."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
