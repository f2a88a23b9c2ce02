"""Model checkpoints: bare state dicts with the released names, each written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn

from utils.run.files import write_atomically

BEST, LAST = "best.pth", "last.pth"
RECENT = "epoch_{:03d}.pth"
RECENT_KEPT = 3


class _Reporting:
    """A file whose error torch.save cannot hide behind one of its own."""

    def __init__(self, file: BinaryIO):
        self.file, self.error = file, None

    def write(self, data) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_state(state: Mapping, path: Path) -> None:
    def write(file: BinaryIO) -> None:
        reporting = _Reporting(file)
        try:
            torch.save(state, reporting)
        except Exception:
            if reporting.error:
                raise reporting.error from None
            raise

    write_atomically(path, write)


def keep_recent(model: nn.Module, folder: Path, epoch: int) -> None:
    """Keep the models of the newest epochs; an older one goes only when the newer one is on the disk."""
    save_state(model.state_dict(), folder / RECENT.format(epoch))
    (folder / RECENT.format(epoch - RECENT_KEPT)).unlink(missing_ok=True)
