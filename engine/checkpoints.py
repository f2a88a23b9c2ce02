"""Model checkpoints: bare state dicts with the released names, written so that none is ever lost or seen half done."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from torch import nn

from utils.files import write_atomically

BEST, LAST = "best.pth", "last.pth"
RECENT = "epoch_{global_step:03d}.pth"
RECENT_KEPT = 3


class DurableSaver(DiskSaver):
    """Removes an older file only after the newer one is on the disk; ignite's saver does it the other way round."""

    def __init__(self, folder: Path):
        super().__init__(str(folder), require_empty=False)
        self._obsolete: list[str] = []

    def __call__(self, checkpoint: Mapping, filename: str, metadata: Mapping | None = None) -> None:
        save_state(checkpoint, self.dirname / filename)
        for name in self._obsolete:
            if name != filename:
                (self.dirname / name).unlink(missing_ok=True)
        self._obsolete.clear()

    def remove(self, filename: str) -> None:
        self._obsolete.append(filename)


def save_state(state: Mapping, path: Path) -> None:
    write_atomically(path, lambda file: torch.save(state, file))


def keep_recent(trainer: Engine, model: nn.Module, folder: Path) -> None:
    """Keep the models of the newest epochs."""
    recent = Checkpoint(
        {"model": model},
        DurableSaver(folder),
        filename_pattern=RECENT,
        n_saved=RECENT_KEPT,
        global_step_transform=lambda engine, _: engine.state.epoch,
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, recent)


def best_keeper(model: nn.Module, folder: Path, score: Callable[[Engine], float]) -> Checkpoint:
    """A handler that keeps the model with the highest score so far; call it after each evaluation."""
    return Checkpoint({"model": model}, DurableSaver(folder), filename_pattern=BEST, n_saved=1, score_function=score)
