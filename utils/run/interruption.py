"""What SIGINT (ctrl-C) and SIGTERM do: stop at once, or wait until the training state can be saved."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from utils.run.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_SECONDS = 2  # within this time a second signal counts as the first
WORKER_SECONDS = 20  # job schedulers send SIGKILL about 30 s after SIGTERM

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Inside this context, a signal raises ``Stopped`` at once."""
    with _handling(_stop):
        yield


class Interruption:
    """Delay a signal until the program can save its state.

    A job scheduler may signal each process of a job, and so may the program that started this one. Signals that come
    within ``SAME_SECONDS`` therefore count as one.

    Attributes:
        received: the number of the first signal; None if there was none.
    """

    received: int | None = None
    _time = 0.0  # of the first signal

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Inside this context, the first signal only sets ``received``; a later one raises ``Stopped``."""
        with _handling(self._note):
            yield

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Inside this context, a signal raises ``Stopped`` at once; so does one that was received before.

        For long work that changes nothing, such as an evaluation.
        """
        if self.received:
            raise Stopped(self.received)
        with _handling(_stop):
            yield

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received, self._time = number, time.monotonic()
        elif time.monotonic() - self._time > SAME_SECONDS:
            raise Stopped(number)


def ignore_signals_in_worker(worker: int) -> None:
    """Keep a loader process alive when a signal goes to the whole process group; a ``worker_init_fn``.

    Terminals and job schedulers send signals to every process of a job, but the main process needs its loaders to
    finish the step. SIGINT is ignored. After SIGTERM the loader ends within ``WORKER_SECONDS``; a second one ends it at
    once. It also ends when the main process is killed; torch notices that only if loaders are started by ``fork``.
    """

    def end_later(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(WORKER_SECONDS)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_later)
    threading.Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # only loaders start this thread
    parent.join()
    os._exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


@contextmanager
def _handling(handler: Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python sets handlers in the main thread only
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
