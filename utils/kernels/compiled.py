"""Loops compiled by numba, parallel over rows; what compiling gives is kept on the disk."""

from collections.abc import Callable

from numba import config, njit

# threads of its own: with OpenMP's, the first call would change how many of them torch computes with, and so the last
# digits of what a training finds after it
config.THREADING_LAYER = "workqueue"


def compiled(function: Callable) -> Callable:
    """``function`` in machine code, which is kept on the disk; compiled anew where what is kept there is damaged, or
    nothing can be kept."""
    fresh = njit(parallel=True, nogil=True)(function)
    try:
        kept = njit(parallel=True, nogil=True, cache=True)(function)
    except RuntimeError:  # no folder can be written to
        return fresh

    def call(*arguments):
        try:
            return kept(*arguments)
        except Exception:  # numba raises nearly anything on a damaged file; an error of the loops comes again
            return fresh(*arguments)

    return call
