"""How far a training is, and what it has found so far."""

import csv
import io
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from losses import LOSSES
from utils.results import TrialScore
from utils.run.files import write_text

TESTED = ("rank1", "mAP", "mINP")
CSV_FIELDS = ("epoch", "lr", "seconds", "images_per_second", "cls_acc", *LOSSES, *TESTED)


@dataclass
class Best:
    """The best model so far; its weights on the CPU."""

    epoch: int
    rank1: float
    weights: dict[str, Tensor]


@dataclass
class Progress:
    """Counters and figures of a training; as a state, all of it that is needed to go on."""

    epoch: int = 1  # the one under way
    done: int = 0  # iterations of it
    iteration: int = 0  # iterations since the training began
    seconds: float = 0.0  # that it took, until `started`
    sums: dict[str, Tensor] = field(default_factory=dict)  # of each figure, over the iterations of this epoch
    rows: list[dict[str, float]] = field(default_factory=list)  # figures of the epochs that are completed
    best: Best | None = None
    started: float = field(default_factory=time.perf_counter)  # when this process began with the epoch

    def begin(self, epoch: int) -> None:
        self.epoch, self.done, self.seconds, self.sums, self.started = epoch, 0, 0.0, {}, time.perf_counter()

    def add(self, figures: dict[str, Tensor]) -> None:
        """Count an iteration; figures stay on the device, so that nothing waits for it."""
        self.done += 1
        self.iteration += 1
        for name, value in figures.items():
            value = value.detach().double()
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def elapsed(self) -> float:
        """Seconds of this epoch, over all processes that worked on it."""
        return self.seconds + time.perf_counter() - self.started

    def means(self) -> dict[str, float]:
        return {name: float(value) / self.done for name, value in self.sums.items()}

    def consider(self, epoch: int, figures: TrialScore, model: nn.Module) -> bool:
        """Whether ``model`` is the best so far, by rank-1; of equals the earlier one is."""
        if self.best is not None and figures.rank1 <= self.best.rank1:
            return False
        self.best = Best(epoch, figures.rank1, {name: v.cpu().clone() for name, v in model.state_dict().items()})
        return True

    def state_dict(self) -> dict:
        return {
            **{name: getattr(self, name) for name in ("epoch", "done", "iteration", "rows")},
            "seconds": self.elapsed(),
            "sums": {name: value.cpu() for name, value in self.sums.items()},
            "best": vars(self.best) if self.best else None,
        }

    def load_state_dict(self, state: dict) -> None:
        for name in ("epoch", "done", "iteration", "seconds", "rows"):
            setattr(self, name, state[name])
        self.sums = dict(state["sums"])
        self.best = Best(**state["best"]) if state["best"] else None
        self.started = time.perf_counter()


def write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    """``CSV_FIELDS`` of each epoch; what is not measured stays empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, CSV_FIELDS)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def describe(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in figures.items() if name != "epoch")


def _short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) and abs(value) < 0.01 else f"{value:.3f}".rstrip("0").rstrip(".")
