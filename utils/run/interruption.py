"""SIGINT and SIGTERM: when they end a program, and how they wait until it is at a point from which it can go on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from utils.run.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LINGER_SECONDS = 20  # schedulers give about half a minute before they kill


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Within it, a signal raises ``Stopped`` wherever the program is."""
    with _handling(_stop):
        yield


class Interruption:
    """Within it, a first signal is only noted, for the program to look at; a second one raises ``Stopped`` at once."""

    received: int | None = None

    @contextmanager
    def noted(self) -> Iterator["Interruption"]:
        with _handling(self._note):
            yield self

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Within it, nothing would be lost: a signal raises ``Stopped`` at once, also one that was noted before."""
        if self.received:
            raise Stopped(self.received)
        with _handling(_stop):
            yield

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise Stopped(number)
        self.received = number


def leave_signals_to_the_main_process(worker: int) -> None:
    """For loader processes: ctrl-C and job schedulers signal whole groups of processes, and a training has to finish
    its step, for which it needs its loaders. They end some time after a first SIGTERM, and at once with a second."""

    def linger(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(LINGER_SECONDS)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, linger)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


@contextmanager
def _handling(handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
