"""Training of a tiny model: the batches of an epoch, the learning rate schedule, and errors that stop it."""

import csv
import json
import logging
import os
import subprocess
import sys
import time
import types
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.augment import BatchAugment
from engine import trainer as trainer_module
from engine.checkpoints import BEST
from engine.evaluator import Evaluation
from engine.precision import ApexPrecision, TorchPrecision, build_precision
from engine.report import CSV_FIELDS, describe, write_rows
from engine.state import newest_state
from engine.step import build_step
from engine.trainer import train
from losses.cmr import cross_modality_retrieval_loss
from tests.helpers.apex import StandInForApex
from tests.helpers.losses import mcja_criterion
from tests.helpers.runs import arguments, run
from tests.helpers.training import CPU, TinyData, losses_of, make_schedule, make_training, rows, stop_at
from utils.results import TrialScore
from utils.run.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def consumed(monkeypatch) -> list[list[int]]:
    """Record the positions of the images in each training batch."""
    seen: list[list[int]] = []

    def build(training):
        step = build_step(training)

        def record(batch):
            seen.append(batch.indices.tolist())
            return step(batch)

        return record

    monkeypatch.setattr(trainer_module, "build_step", build)
    return seen


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_exactly_the_samplers_list(workers, consumed, tmp_path):
    training = make_training(workers=workers)
    train(training, make_schedule(num_epoch=12, eval_interval=0), tmp_path)
    sampler, expected, lengths = training.sampler, [], set()
    for epoch in range(1, 13):
        sampler.set_epoch(epoch)
        expected += sampler.batches.tolist()
        lengths.add(len(sampler))
    assert consumed == expected
    assert len(lengths) > 1  # epochs differ in length


def test_epochs_of_any_length_follow_each_other(consumed, tmp_path):
    training = make_training()
    lengths = {1: 9, 2: 1, 3: 2, 4: 1}
    sampler = training.sampler
    draw = sampler.set_epoch

    def cut(epoch: int) -> None:
        draw(1)
        sampler.batches = sampler.batches[:1].repeat(lengths[epoch], axis=0)

    sampler.set_epoch = cut
    train(training, make_schedule(num_epoch=4), tmp_path)
    assert len(consumed) == sum(lengths.values())


def test_learning_rate_falls_when_the_listed_epochs_are_completed():
    schedule = make_schedule(lr=1.0, lr_step=[3, 5])
    expected = [1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    assert [schedule.learning_rate(epoch) for epoch in range(1, 8)] == pytest.approx(expected)


@pytest.mark.parametrize("period", [1, 2, 3])
def test_log_lines_and_curves_are_means_over_log_period_iterations(period, tmp_path, caplog, monkeypatch):
    values = []

    def build(training):
        step = build_step(training)
        return lambda batch: values.append(step(batch)) or values[-1]

    monkeypatch.setattr(trainer_module, "build_step", build)
    training = make_training()
    with caplog.at_level(logging.INFO):
        train(training, make_schedule(log_period=period, num_epoch=2), tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.name == "engine.report"]
    lines = [line for line in lines if "[" in line]  # epoch 1/2 [2/5] ...
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    expected, start = [], 0
    for epoch in (1, 2):  # an incomplete period at the end of an epoch has no line
        training.sampler.set_epoch(epoch)
        batches = len(training.sampler)
        own = values[start : start + batches]
        start += batches
        expected += [own[i : i + period] for i in range(0, batches - period + 1, period)]
    assert len(lines) == len(expected) >= 2
    for name in ("cls_acc", "loss_id", "loss_cmr"):
        means = [sum(float(value[name]) for value in one) / period for one in expected]
        assert [point.value for point in board.Scalars(f"train/{name}")] == pytest.approx(means)
        assert all(describe({name: mean}) in line for mean, line in zip(means, lines, strict=True))
    assert len(board.Scalars("test/rank20")) == 2


@pytest.mark.parametrize("slow", ["loading", "training"])
def test_the_share_of_time_waited_for_data(slow, tmp_path, monkeypatch, caplog):
    load, draw = TinyData.__getitem__, BatchAugment.draw
    if slow == "loading":
        monkeypatch.setattr(TinyData, "__getitem__", lambda *arguments: time.sleep(0.02) or load(*arguments))
    else:
        monkeypatch.setattr(BatchAugment, "draw", lambda *arguments: time.sleep(0.1) or draw(*arguments))
    with caplog.at_level(logging.INFO):
        train(make_training(), make_schedule(num_epoch=2), tmp_path)
    for row in csv.DictReader((tmp_path / "metrics.csv").open()):
        assert (0.5 < float(row["data_wait"]) <= 1) == (slow == "loading")
        assert f"data_wait {describe({'': float(row['data_wait'])}).strip()}" in caplog.text
    assert caplog.text.count("hint: training waited for images") == (slow == "loading")  # once


def test_files_of_a_training(tmp_path):
    scores = iter([30.0, 50.0, 40.0, 50.0, 20.0])
    training = make_training()
    best_weights = {}

    def evaluate(model):
        rank1 = next(scores)
        best_weights[rank1, len(best_weights)] = {name: value.clone() for name, value in model.state_dict().items()}
        return Evaluation(TrialScore(rank1, 60, 70, 80, 33, 3))

    train(training, make_schedule(num_epoch=5, lr_step=[2], evaluate=evaluate), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("[!s]*.pth")) == [BEST, *(f"epoch_00{n}.pth" for n in (3, 4, 5))]
    assert len(list(tmp_path.glob("state_*.pth"))) == 2
    saved = torch.load(tmp_path / BEST, weights_only=True)
    expected = best_weights[50.0, 1]  # of equal scores, the first is kept
    assert all(torch.equal(saved[name], value) for name, value in expected.items())
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == list("12345")
    assert [float(row["rank1"]) for row in rows] == [30, 50, 40, 50, 20]
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.001])
    assert all(float(row["loss_id"]) > 0 and float(row["loss_cmr"]) >= 0 for row in rows)
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("start", "interval", "expected"), [(0, 1, [1, 2, 3, 4, 5, 6]), (3, 2, [4, 6]), (4, 1, [4, 5, 6]), (0, 0, [])]
)
def test_when_it_evaluates(start, interval, expected, tmp_path):
    schedule = make_schedule(start_eval=start, eval_interval=interval)
    assert [epoch for epoch in range(1, 7) if schedule.evaluates(epoch)] == expected
    if not expected:
        train(make_training(), schedule, tmp_path)
        assert not (tmp_path / BEST).exists()


@pytest.mark.parametrize(("log_period", "signalled"), [(2, False), (100, False), (100, True)])
def test_a_loss_that_is_not_finite_stops_the_run(log_period, signalled, tmp_path):
    training = make_training()
    if signalled:
        stop_at(training, 1)
    with torch.no_grad():
        training.model.layer.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="epoch 1: a loss is not finite in iteration 1"):
        train(training, make_schedule(log_period=log_period), tmp_path)
    report = json.loads((tmp_path / "not_finite.json").read_text())
    assert (report["epoch"], report["iteration"]) == (1, 1)
    training.sampler.set_epoch(1)
    assert report["images"] == [training.dataset.paths[i] for i in training.sampler.batches[0]]
    assert [path.name for path in tmp_path.glob("*.pth")] == ["state_00000000.pth"]  # none is saved after a loss of NaN


def test_training_learns():
    losses = losses_of(make_training(lr=0.05), epochs=30)
    assert sum(losses[-20:]) < sum(losses[:20]) * 0.7


def test_rows_of_metrics(tmp_path):
    path = tmp_path / "m.csv"
    write_rows(path, [{"epoch": 1, "lr": 0.1}, {"epoch": 2, "lr": 0.1, "rank1": 5}])
    first, second = csv.DictReader(path.open())
    assert first == dict.fromkeys(CSV_FIELDS, "") | {"epoch": "1", "lr": "0.1"}
    assert second == dict.fromkeys(CSV_FIELDS, "") | {"epoch": "2", "lr": "0.1", "rank1": "5"}


def test_a_group_of_parameters_may_have_a_factor(tmp_path):
    training, rates = make_training(), []
    layer, classifier = (list(part.parameters()) for part in (training.model.layer, training.model.classifier))
    groups = [{"params": classifier}, {"params": layer, "lr_factor": 0.1}]
    training.optimizer = torch.optim.SGD(groups, lr=1.0)

    def evaluate(model):
        rates.append([group["lr"] for group in training.optimizer.param_groups])
        return Evaluation(TrialScore(*[0] * 6))

    train(training, make_schedule(lr=0.01, lr_step=[2], warmup_epochs=2, evaluate=evaluate), tmp_path)
    assert rates == [pytest.approx([rate, 0.1 * rate]) for rate in (0.005, 0.01, 0.001)]
    assert [float(row["lr"]) for row in rows(tmp_path)] == pytest.approx([0.005, 0.01, 0.001])


# --- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fp16", [True, False])
def test_a_cpu_computes_in_float32(fp16):
    precision = build_precision(None, None, CPU, fp16=fp16, amp_dtype="float16", amp_backend="torch")
    assert str(precision) == "float32"
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:.*GradScaler is enabled")  # there may be no GPU
@pytest.mark.parametrize(("amp_dtype", "dtype"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_a_gpu_computes_in_the_configured_precision(amp_dtype, dtype):
    for fp16, expected in ((True, dtype), (False, None)):
        options = {"fp16": fp16, "amp_dtype": amp_dtype, "amp_backend": "torch"}
        assert build_precision(None, None, torch.device("cuda"), **options).dtype == expected


def test_bfloat16_autocast_and_step():
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    precision = TorchPrecision(CPU, torch.bfloat16)
    before = model.weight.clone()
    with precision.autocast():
        output = model(torch.ones(3, 2))
        with precision.no_autocast():
            assert model(torch.ones(3, 2)).dtype == torch.float32
    assert output.dtype == torch.bfloat16
    precision.step(output.float().sum(), optimizer)
    torch.testing.assert_close(model.weight, before - 0.3)
    assert "bfloat16" in str(precision)


def test_logits_beyond_half_precision_do_not_end_a_run(tmp_path):
    """They are computed in float32, as the losses are. Gradients that overflow are skipped by the loss scaling."""
    training = make_training()
    training.precision = TorchPrecision(CPU, torch.float16)
    with torch.no_grad():
        training.model.classifier.weight.mul_(1e6)
    batch = next(iter(training.loader))
    logits = training.model.classifier(training.model(training.augment(batch.images, batch.is_infrared)))
    assert logits.abs().max() > torch.finfo(torch.float16).max
    before = training.precision.scaler.get_scale()
    train(training, make_schedule(num_epoch=1, eval_interval=0), tmp_path)
    assert training.precision.scaler.get_scale() < before
    assert float(rows(tmp_path)[0]["loss_id"]) > 1e5


def test_apex_that_is_not_there_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "apex", None)
    options = {"fp16": True, "amp_dtype": "float16", "amp_backend": "apex"}
    with pytest.raises(UserError, match="NVIDIA removed it.*amp_backend torch"):
        build_precision(None, None, torch.device("cuda"), **options)
    with pytest.raises(UserError, match="NVIDIA removed it"):
        build_precision(None, None, CPU, **options)
    monkeypatch.setitem(sys.modules, "apex", types.SimpleNamespace(amp=None))
    with pytest.raises(UserError, match="needs a CUDA GPU"):
        build_precision(None, None, CPU, **options)


def test_apex_casts_the_network_and_not_the_losses(monkeypatch):
    training = make_training()
    training.criterion = mcja_criterion("builtin")
    apex = StandInForApex(monkeypatch)
    training.precision = ApexPrecision(training.model, training.optimizer)
    assert apex.level == "O1"
    dtypes = {}
    criterion = training.criterion.forward

    def watch(outputs, *others):
        losses = criterion(outputs, *others)
        dtypes.update(logits=outputs.logits.dtype, loss=sum(losses.values()).dtype)
        return losses

    monkeypatch.setattr(training.criterion, "forward", watch)
    plain = make_training()
    plain.criterion = mcja_criterion("builtin")
    found = losses_of(training)
    assert dtypes == {"logits": torch.float32, "loss": torch.float32}
    assert training.model(torch.rand(2, 3, 8, 6)).dtype == torch.float16
    apex.casting = False
    assert found == pytest.approx(losses_of(plain), rel=0.05)


def test_apex_does_not_cast_the_gradient_of_the_soft_rank(monkeypatch):
    """Its casts are on during the backward pass, and its loss scale may be large."""

    def gradient(apex=None, scale=1.0):
        embeddings = torch.rand(8, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with apex.disable_casts() if apex else nullcontext():
            labels, is_infrared = torch.arange(8) // 4, torch.arange(8) % 2 == 1
            loss = cross_modality_retrieval_loss(embeddings, labels, is_infrared, backend="builtin")
        (loss * scale).backward()
        return embeddings.grad / scale

    expected = gradient()
    torch.testing.assert_close(gradient(StandInForApex(monkeypatch), 2.0**24), expected)


# --- compiled -------------------------------------------------------------------------------------------------------


def test_compiled_training_follows_the_same_curve():
    torch._dynamo.reset()
    eager, compiled = make_training(), make_training()
    for training in (eager, compiled):
        training.criterion = mcja_criterion("builtin")
    compiled.compile = True
    assert losses_of(compiled) == pytest.approx(losses_of(eager), rel=1e-3)


@pytest.mark.faults  # slow
def test_a_run_is_compiled_once(sysu_root, tmp_path, monkeypatch):
    """Neither the mix of modalities in a batch nor evaluations between the epochs compile the step again."""
    torch._dynamo.reset()
    graphs = []

    def compile_quickly(graph, inputs):
        graphs.append(graph.code)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compile_quickly))
    folder = run(tmp_path, *arguments(tmp_path, "sysu", sysu_root, compile="true", mser="false"))
    assert newest_state(folder)[0]["progress"]["iteration"] > 4
    assert len(graphs) == 1
    assert "torch.ops.mcja.sort_and_pool" in graphs[0]
    assert "cummax" not in graphs[0]


@pytest.mark.faults  # slow
def test_what_cannot_be_compiled_is_said(tmp_path):
    """Runs in its own process, because torch caches which compilers it found."""
    program = """
import utils
from pathlib import Path
from engine.state import newest_state
from engine.step import build_step
from tests.helpers.losses import mcja_criterion
from tests.helpers.training import make_training
from utils.run.cli import run_program
from utils.run.logs import set_up_logging

def main():
    set_up_logging(Path("log.txt"))
    training = make_training()
    training.criterion, training.compile = mcja_criterion("builtin"), True
    build_step(training)(next(iter(training.loader)))

raise SystemExit(run_program(main))
"""
    environment = os.environ | {"CXX": "/nonexistent/c++", "PYTHONPATH": str(ROOT)}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", program], **options)
    assert done.returncode == 2
    assert done.stderr.startswith("error: compile: torch could not compile the step (")
    assert done.stderr.endswith("set compile false\n")
    assert done.stderr.count("\n") == 1
    assert "Traceback" in (tmp_path / "log.txt").read_text()
    assert "Traceback" not in done.stdout


def test_mixed_precision_follows_the_curve_of_float32():
    plain, mixed = make_training(), make_training()
    mixed.precision = TorchPrecision(CPU, torch.bfloat16)
    assert losses_of(mixed) == pytest.approx(losses_of(plain), rel=0.05)
