"""How every program of the project ends: errors of the user in one line, code 2; ctrl-C without a traceback, code 130."""

import os
import sys
from collections.abc import Callable

from utils.errors import UserError


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
