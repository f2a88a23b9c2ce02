"""How far a training is, and its metrics so far."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn


class Averages:
    """Means over iterations. The sums stay on the device, so that adding does not synchronise."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        self.count += 1
        for name, value in values.items():
            value = value.detach().double()
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def means(self) -> dict[str, float]:
        return {name: float(value) / self.count for name, value in self.sums.items()}

    def state_dict(self) -> dict:
        return {"count": self.count, "sums": {name: value.cpu() for name, value in self.sums.items()}}

    def load_state_dict(self, state: Mapping) -> None:
        self.count, self.sums = state["count"], dict(state["sums"])


@dataclass
class Best:
    """The best model so far: its epoch, the metric that selected it in percent, and its weights on the CPU."""

    epoch: int
    value: float
    weights: dict[str, Tensor]


@dataclass
class Progress:
    """Counters and metrics of a training. Its state holds all of them."""

    epoch: int = 1  # the current epoch
    done: int = 0  # completed iterations of the current epoch
    iteration: int = 0  # completed iterations of all epochs
    seconds: float = 0.0  # of training in the current epoch, before its clock was last started
    started: float | None = None  # when its clock was last started; None while it is stopped
    epoch_averages: Averages = field(default_factory=Averages)
    period_averages: Averages = field(default_factory=Averages)  # since the last log line
    rows: list[dict[str, float]] = field(default_factory=list)  # metrics of the completed epochs
    best: Best | None = None

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count an iteration and its values (scalars)."""
        self.done += 1
        self.iteration += 1
        self.epoch_averages.add(values)
        self.period_averages.add(values)

    def end_period(self) -> dict[str, float]:
        """Means since the last call, or since the epoch began."""
        means = self.period_averages.means()
        self.period_averages = Averages()
        return means

    def end_epoch(self, row: dict[str, float]) -> None:
        """Keep the epoch's metrics and go to the next epoch."""
        self.rows.append(row)
        self.epoch, self.done = self.epoch + 1, 0
        self.seconds = 0.0
        self.epoch_averages, self.period_averages = Averages(), Averages()

    def start_clock(self) -> None:
        """Count the time of the current epoch from now on."""
        self.started = time.perf_counter()

    def stop_clock(self) -> None:
        """Do not count the time from now on, because it is not spent on training."""
        self.seconds, self.started = self.elapsed(), None

    def elapsed(self) -> float:
        """Seconds of training in the epoch, in all processes that worked on it."""
        return self.seconds + (0.0 if self.started is None else time.perf_counter() - self.started)

    def is_best(self, value: float) -> bool:
        """Whether this is the best value so far. Ties keep the earlier epoch."""
        return self.best is None or value > self.best.value

    def set_best(self, value: float, model: nn.Module) -> Best:
        """Keep a copy of the model's weights as the best model."""
        weights = {name: value.cpu().clone() for name, value in model.state_dict().items()}
        self.best = Best(self.epoch, value, weights)
        return self.best

    def state_dict(self) -> dict:
        return {
            **{name: getattr(self, name) for name in ("epoch", "done", "iteration", "rows")},
            "seconds": self.elapsed(),
            "epoch_averages": self.epoch_averages.state_dict(),
            "period_averages": self.period_averages.state_dict(),
            "best": vars(self.best) if self.best else None,
        }

    def load_state_dict(self, state: Mapping) -> None:
        for name in ("epoch", "done", "iteration", "seconds", "rows"):
            setattr(self, name, state[name])
        self.epoch_averages.load_state_dict(state["epoch_averages"])
        self.period_averages.load_state_dict(state["period_averages"])
        self.best = Best(**state["best"]) if state["best"] else None
        self.started = None


class Pace:
    """How fast this process trains and evaluates, and so how long the rest may take. It is not in the training state.

    The clock of a GPU's work is right if the process has waited for the GPU before ``end_period``.
    """

    def __init__(self) -> None:
        self.steps, self.training_seconds = 0, 0.0
        self.evaluations, self.evaluation_seconds = 0, 0.0
        self.start_period(0)

    def start_period(self, iteration: int) -> None:
        """Count time and steps from now on, after ``iteration`` completed iterations."""
        self.started, self.first = time.perf_counter(), iteration

    def end_period(self, iteration: int) -> float:
        """Steps per second since the period started. The next one starts."""
        steps, seconds = iteration - self.first, time.perf_counter() - self.started
        self.steps += steps
        self.training_seconds += seconds
        self.start_period(iteration)
        return steps / seconds

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Count the time of an evaluation."""
        started = time.perf_counter()
        yield
        self.evaluations += 1
        self.evaluation_seconds += time.perf_counter() - started

    def seconds(self, steps: int, evaluations: int = 0) -> float:
        """How long these take at the mean pace so far. Evaluations count when one has been timed."""
        evaluation = self.evaluation_seconds / max(1, self.evaluations)
        return steps * self.training_seconds / self.steps + evaluations * evaluation
