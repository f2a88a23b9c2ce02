"""Write checkpoints: bare state dicts with the released names. ``models/loading.py`` reads them."""

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from utils.run.files import write_atomically

BEST, LAST = "best.pth", "last.pth"
RECENT = "epoch_{:03d}.pth"
RECENT_KEPT = 3
# Disk space of a run in units of the model size: five checkpoints (best, last and three recent ones) and three training
# states (one of which is being written), each with the weights, two moments per weight, and the best weights.
RUN_MODEL_SIZES = 2 + RECENT_KEPT + 3 * 4


def save_state(state: Mapping, path: Path) -> None:
    """Write a checkpoint or a training state atomically."""
    buffer = io.BytesIO()  # torch.save would replace an error of the disk by an error of its own
    torch.save(state, buffer)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def keep_recent(model: nn.Module, folder: Path, epoch: int) -> None:
    """Keep the models of the three newest epochs; the oldest is deleted when the newest is written."""
    save_state(model.state_dict(), folder / RECENT.format(epoch))
    (folder / RECENT.format(epoch - RECENT_KEPT)).unlink(missing_ok=True)


def run_bytes(model: nn.Module) -> int:
    """The disk space that a training of ``model`` needs for its checkpoints and training states."""
    return RUN_MODEL_SIZES * sum(value.numel() * value.element_size() for value in model.state_dict().values())
