"""What a training reports: log lines, TensorBoard curves and ``metrics.csv``."""

import csv
import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from losses import LOSSES
from utils.results import TrialScore
from utils.run.files import write_text

logger = logging.getLogger(__name__)

METRICS = "metrics.csv"
SLOW_DATA = 0.1  # share of the time waited for images above which the log has a hint
CSV_FIELDS = ("epoch", "lr", "seconds", "images_per_second", "data_wait", "cls_acc", *LOSSES, *TrialScore._fields)


class Report:
    """Writes log lines and TensorBoard curves of one training.

    Args:
        folder: of the run.
        first_iteration: the first iteration of this process, counted over all epochs from 1. TensorBoard hides the
            training points that an earlier process wrote from there on.
    """

    def __init__(self, folder: Path, first_iteration: int):
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_iteration)
        self.hinted = False

    def log_period(self, where: str, values: Mapping[str, float], *, iteration: int) -> None:
        """Log the means of accuracy (a fraction) and losses over the last ``log_period`` iterations."""
        logger.info("%s %s", where, describe(values))
        for name, value in values.items():
            self.board.add_scalar(f"train/{name}", value, iteration)

    def log_epoch(self, row: Mapping[str, float], *, iteration: int) -> None:
        """Log the means over an epoch."""
        logger.info("epoch %d done: %s", row["epoch"], describe(row))
        self.board.add_scalar("train/lr", row["lr"], iteration)
        if row["data_wait"] > SLOW_DATA and not self.hinted:
            logger.info(
                "hint: training waited for images %.0f %% of the time; set `cache device` or `cache disk`, or a larger"
                " num_workers (12 for a fast GPU)",
                100 * row["data_wait"],
            )
            self.hinted = True

    def log_evaluation(self, score: TrialScore, *, epoch: int) -> None:
        """Log the metrics of the test set, in percent."""
        logger.info("epoch %d test: %s", epoch, describe(score._asdict()))
        for name, value in score._asdict().items():
            self.board.add_scalar(f"test/{name}", value, epoch)

    def close(self) -> None:
        self.board.close()


def write_rows(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write ``CSV_FIELDS`` of each epoch; missing values stay empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, CSV_FIELDS)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def describe(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items() if name != "epoch")


def _short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) and abs(value) < 0.01 else f"{value:.3f}".rstrip("0").rstrip(".")
