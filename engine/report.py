"""What a training reports: a progress bar, log lines, TensorBoard and ``metrics.csv``."""

import csv
import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from losses import LOSSES
from utils.results import TrialScore, plain_table
from utils.run.files import write_text
from utils.run.logs import IN_BAR

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.csv"
BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
SLOW_DATA = 0.1  # share of the time waited for images above which the log has a hint
CSV_FIELDS = ("epoch", "lr", "seconds", "images_per_second", "data_wait", "cls_acc", *LOSSES, *TrialScore._fields)


class Report:
    """Shows a progress bar, writes log lines and TensorBoard of one training.

    Args:
        folder: of the run.
        first_iteration: the first iteration of this process, counted over all epochs from 1. TensorBoard hides the
            training points that an earlier process wrote from there on.
    """

    def __init__(self, folder: Path, first_iteration: int):
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_iteration)
        self.hinted = False

    @contextmanager
    def bar(self, epoch: str, *, done: int, batches: int) -> Iterator[tqdm]:
        """On a terminal, a progress bar of an epoch, and below it a line of values from ``log_period``."""
        options = {"leave": False, "disable": None, "dynamic_ncols": True}
        with (
            tqdm(desc=epoch, total=batches, initial=done, bar_format=BAR, **options) as self.progress_bar,
            tqdm(position=1, bar_format="  {desc}", **options) as self.values,
        ):
            yield self.progress_bar

    def log_period(self, where: str, values: Mapping[str, float], *, left: tuple[float, float], iteration: int) -> None:
        """Log the last ``log_period`` iterations.

        Args:
            values: means of accuracy (a fraction) and losses, learning rate, images per second.
            left: seconds of the epoch and of the whole training.
        """
        epoch_left, training_left = map(tqdm.format_interval, left)
        text = describe(values)
        self.progress_bar.set_postfix_str(f"training {training_left} left")
        self.values.set_description_str(text)
        logger.info("%s %s, left: epoch %s, training %s", where, text, epoch_left, training_left, extra={IN_BAR: True})
        for name, value in values.items():
            self.board.add_scalar(f"train/{name}", value, iteration)

    def log_epoch(self, row: Mapping[str, float], *, iteration: int) -> None:
        """Log the means over an epoch."""
        logger.info("epoch %d done: %s", row["epoch"], describe(row))
        self.board.add_scalar("train/data_wait", row["data_wait"], iteration)
        if row["data_wait"] > SLOW_DATA and not self.hinted:
            logger.info(
                "hint: training waited for images %.0f %% of the time; set `cache device` or `cache disk`, or a larger"
                " num_workers (12 for a fast GPU)",
                100 * row["data_wait"],
            )
            self.hinted = True

    def log_evaluation(
        self, epoch: int, score: TrialScore, *, best: tuple[int, TrialScore] | None, picture: Image.Image | None
    ) -> None:
        """Log the metrics of the test set, in percent, beside those of the best epoch so far.

        Args:
            best: its epoch and metrics; None if no model is selected.
            picture: rank lists, if there is one.
        """
        rows = {f"epoch {epoch}": score}
        if best and best[0] == epoch:
            rows = {f"epoch {epoch}: new best": score}
        elif best:
            rows[f"best: epoch {best[0]}"] = best[1]
        logger.info("epoch %d test, in percent:\n%s", epoch, plain_table(rows))
        for kind, metrics in (("test", score), ("best", best[1] if best else None)):
            for name, value in metrics._asdict().items() if metrics else ():
                self.board.add_scalar(f"{kind}/{name}", value, epoch)
        if picture:
            self.board.add_image("rank_lists", np.asarray(picture), epoch, dataformats="HWC")

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
    return ", ".join(
        f"{value:.1f} images/s" if name == "images_per_second" else f"{name} {_short(value)}"
        for name, value in values.items()
        if name != "epoch"
    )


def _short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) and abs(value) < 0.01 else f"{value:.3f}".rstrip("0").rstrip(".")
