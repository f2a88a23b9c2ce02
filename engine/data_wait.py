"""How long a training waits for its batches."""

import time
from collections.abc import Mapping

import torch
from ignite.engine import Engine, Events


class DataWait:
    """Adds up the time in which the device has nothing to do because the next batch is not there yet.

    On a GPU the time is taken by events in its stream. The CPU runs ahead of the GPU, so a CPU that waits for a batch
    does not mean that the GPU waits, too. No call but ``seconds`` and ``state_dict`` synchronises with the GPU.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.reset()

    def reset(self) -> None:
        """Start from 0, for a new epoch."""
        self.earlier = 0.0  # seconds, in earlier processes
        self.waits: list[tuple] = []  # start and end of each wait

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._start)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._end)

    def seconds(self) -> float:
        if self.device.type != "cuda":
            return self.earlier + sum(end - start for start, end in self.waits)
        torch.cuda.synchronize(self.device)
        return self.earlier + sum(start.elapsed_time(end) for start, end in self.waits) / 1000

    def state_dict(self) -> dict:
        return {"seconds": self.seconds()}

    def load_state_dict(self, state: Mapping) -> None:
        self.reset()
        self.earlier = state["seconds"]

    def _start(self, engine: Engine) -> None:
        self.started = self._now()

    def _end(self, engine: Engine) -> None:
        self.waits.append((self.started, self._now()))

    def _now(self) -> "float | torch.cuda.Event":
        """The time in seconds; on a GPU an event, which has a time when the GPU has done all work queued before."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
