"""A stop where a loss is no number any more."""

from pathlib import Path

import torch
from ignite.engine import Engine

from data.loaders import Loader
from engine.progress import Progress
from utils.run.errors import UserError
from utils.run.files import write_json

REPORT = "not_finite.json"


class FiniteLoss:
    """Stops a training whose loss became NaN or infinite, says in which batch it did first, and keeps its paths.

    Looks at every loss on the device and asks the device only now and then, since each question waits for it.
    """

    def __init__(self, loader: Loader, progress: Progress, folder: Path, device: torch.device):
        self.sampler, self.progress, self.folder = loader.batch_sampler, progress, folder
        self.paths = getattr(loader.dataset, "paths", None)
        self.first = torch.zeros((), dtype=torch.long, device=device)  # iteration of the epoch, from 1

    def look(self, engine: Engine) -> None:
        """At the losses of the iteration that is done."""
        lost = ~torch.stack([loss.isfinite() for loss in engine.state.output.values()]).all()
        self.first = torch.where((self.first == 0) & lost, self.progress.done, self.first)

    def ask(self) -> None:
        """Raise ``UserError`` if a loss was not finite."""
        number = int(self.first)
        if not number:
            return
        positions = self.sampler.batches[number - 1].tolist()
        epoch = self.progress.epoch
        images = self.paths[positions].tolist() if self.paths is not None else positions
        write_json(self.folder / REPORT, {"epoch": epoch, "iteration": number, "images": images})
        raise UserError(
            f"training stopped in epoch {epoch}: a loss is not finite in iteration {number}; its images are listed in"
            f" {self.folder / REPORT}; lower lr, or set fp16 false or amp_dtype bfloat16"
        )
