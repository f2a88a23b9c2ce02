"""What a training shows: the bar on a terminal, log lines, the table of the best so far, and TensorBoard."""

import fcntl
import logging
import os
import re
import struct
import sys
import termios
import threading
from types import SimpleNamespace

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine import progress as progress_module
from engine.evaluator import Evaluation
from engine.progress import Pace
from engine.report import Report
from engine.trainer import train
from tests.helpers.training import make_schedule, make_training
from utils.results import TrialScore
from utils.run.logs import set_up_logging

LEFT = r"left: epoch \d\d:\d\d, training \d\d:\d\d"


class Terminal:
    """A pseudo terminal of 40 lines. ``text`` is what was written to it."""

    def __init__(self, columns: int):
        self.main, other = os.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.file, self.text = os.fdopen(other, "w"), ""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        with os.fdopen(self.main, errors="replace", newline="") as file:
            try:
                while piece := file.read(1):
                    self.text += piece
            except OSError:  # on Linux, the end
                pass

    def close(self) -> None:
        self.file.close()
        self.reader.join()


@pytest.mark.parametrize("columns", [80, 140])
def test_a_terminal_shows_a_bar_and_whole_lines(columns, tmp_path, monkeypatch):
    terminal = Terminal(columns)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal.file)
        patch.setattr(sys, "stderr", terminal.file)
        set_up_logging(tmp_path / "log.txt")
        train(make_training(), make_schedule(num_epoch=2, log_period=1), tmp_path)
        logging.shutdown()
    terminal.close()
    pieces = re.split(r"[\r\n]+|\x1b\[A", terminal.text)
    bars = [piece for piece in pieces if re.match(r"epoch 1/2 +\d+%\|", piece)]
    values = [
        piece for piece in pieces if re.match(r"  cls_acc .*loss_id .*loss_cmr .*lr 0.01, [\d.]+ images/s", piece)
    ]
    assert any(re.search(r"\| \d+/\d+ \[.*, training \d\d:\d\d left\]$", bar.rstrip()) for bar in bars)
    assert values
    assert all(len(piece) <= columns for piece in bars + values)
    log = (tmp_path / "log.txt").read_text().splitlines()
    assert [line for line in log if re.search(LEFT, line)]
    shown = [line for line in log if not re.search(LEFT, line)]  # the bar has shown the others
    assert any("epoch 1 done" in line for line in shown)
    assert any("new best" in line for line in shown)
    assert all(line in pieces for line in shown if line)
    assert not re.search(LEFT, terminal.text)


def test_without_a_terminal_lines_have_the_time_left(tmp_path, caplog, capsys):
    with caplog.at_level(logging.INFO):
        train(make_training(), make_schedule(num_epoch=2), tmp_path)
    lines = [record.getMessage() for record in caplog.records if "[" in record.getMessage()]
    assert lines
    values = r"cls_acc [\d.e-]+, loss_id [\d.]+, loss_cmr [\d.]+, lr 0.01, [\d.]+ images/s"
    assert all(re.fullmatch(rf"epoch [12]/2 \[\d/\d\] {values}, {LEFT}", line) for line in lines)
    assert capsys.readouterr().err == ""


def test_the_time_left_is_that_of_steps_and_evaluations_so_far(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: clock.now)
    pace = Pace()
    pace.start_period(100)
    clock.now += 20
    assert pace.end_period(110) == 0.5  # steps per second
    clock.now += 40
    assert pace.end_period(120) == 0.25
    assert pace.seconds(10, evaluations=5) == 30  # no evaluation was timed
    for seconds in (7, 9):
        with pace.evaluation():
            clock.now += seconds
    assert pace.seconds(10) == 30
    assert pace.seconds(10, evaluations=5) == 30 + 5 * 8


def test_the_best_so_far_is_beside_each_evaluation(tmp_path, caplog):
    scores = iter([30.0, 50.0, 40.0])

    def evaluate(model):
        return Evaluation(TrialScore(next(scores), 60, 70, 80, 33, 3), Image.new("RGB", (20, 10)))

    with caplog.at_level(logging.INFO):
        for num_epoch in (2, 3):  # stopped after epoch 2 and continued
            train(make_training(), make_schedule(num_epoch=num_epoch, evaluate=evaluate), tmp_path)
    tables = [record.getMessage().splitlines() for record in caplog.records if " test, in percent" in record.msg]
    rows = [[line.split()[:-5] for line in table[2:]] for table in tables]
    assert rows == [
        [["epoch", "1:", "new", "best", "30.00"]],
        [["epoch", "2:", "new", "best", "50.00"]],
        [["epoch", "3", "40.00"], ["best:", "epoch", "2", "50.00"]],
    ]

    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    found = {tag: [point.value for point in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    assert found["test/rank1"] == [30, 50, 40]
    assert found["best/rank1"] == [30, 50, 50]
    assert found["train/lr"][0] == pytest.approx(0.01)
    assert all(value > 0 for value in found["train/images_per_second"])
    assert len(found["train/lr"]) == len(found["train/images_per_second"]) == len(found["train/loss_id"])
    assert len(found["train/data_wait"]) == 3
    assert [(image.step, image.width, image.height) for image in board.Images("rank_lists")] == [
        (epoch, 20, 10) for epoch in (1, 2, 3)
    ]


def test_points_of_steps_that_are_made_again_are_hidden(tmp_path):
    for first, last in ((1, 4), (3, 5)):  # stopped in step 5, and continued from the state after step 2
        report = Report(tmp_path, first_iteration=first)
        for iteration in range(first, last + 1):
            report.board.add_scalar("train/lr", first, iteration)
        report.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(point.step, point.value) for point in board.Scalars("train/lr")] == [
        (1, 1),
        (2, 1),
        (3, 3),
        (4, 3),
        (5, 3),
    ]
