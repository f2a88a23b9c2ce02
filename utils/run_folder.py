"""The folder of a run."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path

from utils.errors import UnreadableImage, UserError
from utils.logs import set_up_logging


def create_run_folder(output_dir: str | Path, dataset: str, prefix: str, desc: str = "") -> Path:
    """Make ``<output_dir>/<dataset>/<prefix>_Time-<YYYY-MM-DD_hh-mm-ss>[_<desc>]``; no two runs ever share one.

    Characters of ``desc`` that do not belong in a file name become ``-``, so that it cannot lead elsewhere.

    Raises:
        UserError: the folder cannot be made.
    """
    parent = Path(output_dir) / dataset
    name = f"{prefix}_Time-{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if desc:
        name += "_" + re.sub(r"[^\w.+=,-]+", "-", desc)[:100]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in count(1):
            folder = parent / (name if attempt == 1 else f"{name}_{attempt}")
            try:
                folder.mkdir()
            except FileExistsError:  # another run started in the same second
                continue
            return folder
    except OSError as error:
        raise UserError(f"{parent}: the run's folder cannot be made there ({error.strerror}); set output_dir") from None


@contextmanager
def discarded_without_model(folder: Path) -> Iterator[None]:
    """Remove the run's folder again if an image turns out to be unreadable before the run has kept any model."""
    try:
        yield
    except UnreadableImage:
        if not any(folder.glob("*.pth")):
            set_up_logging()  # closes the log
            shutil.rmtree(folder, ignore_errors=True)
        raise
