"""The folder of a run."""

import re
from datetime import datetime
from itertools import count
from pathlib import Path

from utils.errors import UserError

MOST_BYTES = 100  # of the description; file systems allow 255 for the whole name


def create_run_folder(output_dir: str | Path, dataset: str, prefix: str, desc: str = "") -> Path:
    """Make ``<output_dir>/<dataset>/<prefix>_Time-<YYYY-MM-DD_hh-mm-ss>[_<desc>]``; no two runs ever share one.

    Characters of ``desc`` that do not belong in a file name become ``-``, so that it cannot lead elsewhere.

    Raises:
        UserError: the folder cannot be made.
    """
    parent = Path(output_dir) / dataset
    name = f"{prefix}_Time-{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if desc:
        plain = re.sub(r"[^\w.+=,-]+", "-", desc).encode()[:MOST_BYTES]
        name += "_" + plain.decode(errors="ignore")  # a character that is cut in two goes
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
