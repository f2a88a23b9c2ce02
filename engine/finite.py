"""Stop on NaN or infinite loss."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.samplers import EpochSampler
from engine.progress import Progress
from utils.run.errors import UserError
from utils.run.files import write_json

REPORT = "not_finite.json"


class FiniteLoss:
    """Stops a training whose loss became NaN or infinite, and lists the images of the first such batch.

    Losses are checked on the device. Only ``require`` reads the result, because reading synchronises with the device.

    Args:
        paths: (N,) paths of all training images.
    """

    def __init__(self, sampler: EpochSampler, paths: np.ndarray, progress: Progress, device: torch.device):
        self.sampler, self.paths, self.progress = sampler, paths, progress
        # first bad iteration of the epoch, from 1; 0: none
        self.first = torch.zeros((), dtype=torch.long, device=device)

    def check(self, losses: dict[str, Tensor]) -> None:
        """Check the losses of the iteration that was last added to ``progress``."""
        bad = ~torch.stack([loss.isfinite() for loss in losses.values()]).all()
        self.first = torch.where((self.first == 0) & bad, self.progress.done, self.first)

    def require(self, folder: Path) -> None:
        """Raise ``UserError`` if a loss was not finite; its images are listed in a file in ``folder``."""
        number = int(self.first)
        if not number:
            return
        epoch, images = self.progress.epoch, [str(self.paths[i]) for i in self.sampler.batches[number - 1]]
        write_json(folder / REPORT, {"epoch": epoch, "iteration": number, "images": images})
        raise UserError(
            f"training stopped in epoch {epoch}: a loss is not finite in iteration {number}; its images are listed in"
            f" {folder / REPORT}; lower lr, or set fp16 false or amp_dtype bfloat16"
        )
