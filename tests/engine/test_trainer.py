"""The trainer on a tiny model: what an epoch consumes, when the rate falls, what stops it."""

import csv
import json
import logging
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.augment import BatchAugment
from data.datasets.base import Batch
from data.loaders import ProcessLoader
from data.samplers import EpochSampler, Sizes
from engine.checkpoints import BEST
from engine.precision import TorchPrecision, build_precision
from engine.progress import describe, write_rows
from engine.trainer import Schedule, Training, attach_schedule, build_trainer, train
from tests.helpers.losses import mcja_criterion
from utils.results import TrialScore
from utils.run.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
SIZES = Sizes(p_size=2, k_size=2, batch_size=6)


class TinyModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Linear(3, 4)
        self.classifier = torch.nn.Linear(4, 4, bias=False)

    def forward(self, images):
        return self.embed(images.mean(dim=(2, 3)))


class TinyData:
    """Four identities told apart by brightness, with numbers of images that make epochs differ in length."""

    labels = torch.tensor([0] * 9 + [1] * 7 + [2] * 5 + [3] * 5)
    cameras = torch.arange(26) % 2 * 2 + 1

    def __len__(self):
        return 26

    def __getitem__(self, index):
        random = torch.Generator().manual_seed(index)
        image = torch.randint(0, 40, (3, 8, 6), generator=random) + 50 * self.labels[index]
        return Batch(image.to(torch.uint8), self.labels[index], self.cameras[index], index)


def make_training(*, lr=0.01, workers=0, sizes=SIZES, method="norm_triplet") -> Training:
    torch.manual_seed(0)
    model, data = TinyModel(), TinyData()
    sampler = EpochSampler(data.labels.numpy(), data.cameras.numpy() == 3, method=method, sizes=sizes, seed=3)
    return Training(
        model=model,
        criterion=mcja_criterion(),
        optimizer=torch.optim.Adam(model.parameters(), lr=lr),
        augment=BatchAugment(seed=0, padding=1),
        loader=ProcessLoader(data, batch_sampler=sampler, num_workers=workers),
        device=CPU,
        precision=TorchPrecision(CPU),
    )


def make_schedule(**changes) -> Schedule:
    figures = TrialScore(10, 20, 30, 40, 5, 1)
    defaults = {
        "num_epoch": 3,
        "lr_step": [2],
        "log_period": 2,
        "start_eval": 0,
        "eval_interval": 1,
        "evaluate": lambda model: figures,
    }
    return Schedule(**{**defaults, **changes})


def run_recorded(training: Training, epochs: int) -> dict[int, list[list[int]]]:
    trainer = build_trainer(training)
    seen: dict[int, list[list[int]]] = {}
    process = trainer._process_function

    def record(engine: Engine, batch: Batch):
        seen.setdefault(engine.state.epoch, []).append(batch.indices.tolist())
        return process(engine, batch)

    trainer._process_function = record
    trainer.run(training.loader, max_epochs=epochs, epoch_length=len(training.loader))
    return seen


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_exactly_the_samplers_list(workers):
    training = make_training(workers=workers)
    seen = run_recorded(training, 12)
    sampler = training.loader.batch_sampler
    lengths = set()
    for epoch in range(1, 13):
        sampler.set_epoch(epoch)
        assert seen[epoch] == sampler.batches.tolist()
        lengths.add(len(sampler))
    assert len(seen) == 12
    assert len(lengths) > 1  # or else the test would not show what it says


def test_shrinking_epochs_do_not_end_the_run_early():
    """ignite would take epoch length x epochs for the end of the run; here the second epoch is shorter by far."""
    training = make_training()
    lists = {1: 9, 2: 1, 3: 2, 4: 1}
    sampler = training.loader.batch_sampler
    draw = sampler.set_epoch

    def cut(epoch: int) -> None:
        draw(1)
        sampler.batches = sampler.batches[:1].repeat(lists[epoch], axis=0)

    sampler.set_epoch = cut
    seen = run_recorded(training, 4)
    assert {epoch: len(batches) for epoch, batches in seen.items()} == lists


def test_learning_rate_falls_when_the_listed_epochs_are_completed():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = {}

    def step(engine, batch):
        optimizer.step()
        rates.setdefault(engine.state.epoch, []).append(optimizer.param_groups[0]["lr"])

    trainer = Engine(step)
    attach_schedule(trainer, optimizer, [3, 5])
    trainer.run(range(2), max_epochs=7)
    expected = {1: 1, 2: 1, 3: 1, 4: 0.1, 5: 0.1, 6: 0.01, 7: 0.01}
    for epoch, rate in expected.items():
        assert rates[epoch] == pytest.approx([rate] * 2), epoch


def test_the_board_shows_what_the_log_lines_say(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        train(make_training(), make_schedule(log_period=2), tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.name == "engine.trainer"]
    lines = [line for line in lines if "/" in line]  # epoch 1 [2/5] ...
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    for name in ("cls_acc", "loss_id", "loss_cmr"):
        points = board.Scalars(f"train/{name}")
        assert len(points) == len(lines) > 3
        assert all(describe({name: point.value}) in line for point, line in zip(points, lines, strict=True))


def test_files_of_a_training(tmp_path):
    figures = iter([30.0, 50.0, 40.0, 50.0, 20.0])
    training = make_training()
    best_weights = {}

    def evaluate(model):
        rank1 = next(figures)
        best_weights[rank1, len(best_weights)] = {name: value.clone() for name, value in model.state_dict().items()}
        return TrialScore(rank1, 60, 70, 80, 33, 3)

    train(training, make_schedule(num_epoch=5, lr_step=[2], evaluate=evaluate), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("[!s]*.pth")) == [BEST, *(f"epoch_00{n}.pth" for n in (3, 4, 5))]
    assert len(list(tmp_path.glob("state_*.pth"))) == 2
    saved = torch.load(tmp_path / BEST, weights_only=True)
    expected = best_weights[50.0, 1]  # the first of the equals
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


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    training = make_training()
    with torch.no_grad():
        training.model.embed.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="epoch 1: a loss is not finite in iteration 1"):
        train(training, make_schedule(), tmp_path)
    report = json.loads((tmp_path / "not_finite.json").read_text())
    assert (report["epoch"], report["iteration"]) == (1, 1)
    training.loader.batch_sampler.set_epoch(1)
    assert report["images"] == training.loader.batch_sampler.batches[0].tolist()
    assert [path.name for path in tmp_path.glob("*.pth")] == ["state_00000000.pth"]  # from before it was lost


def test_training_learns():
    losses = []
    training = make_training(lr=0.05)
    trainer = build_trainer(training)
    process = trainer._process_function

    def record(engine, batch):
        output = process(engine, batch)
        losses.append(output["loss_id"].item())
        return output

    trainer._process_function = record
    trainer.run(training.loader, max_epochs=30, epoch_length=len(training.loader))
    assert sum(losses[-20:]) < sum(losses[:20]) * 0.7


def test_rows_of_figures(tmp_path):
    path = tmp_path / "m.csv"
    write_rows(path, [{"epoch": 1, "lr": 0.1}, {"epoch": 2, "lr": 0.1, "rank1": 5}])
    assert path.read_text().splitlines()[1:] == ["1,0.1,,,,,,,,", "2,0.1,,,,,,5,,"]


# --- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fp16", [True, False])
def test_a_cpu_computes_in_float32(fp16):
    precision = build_precision(None, None, CPU, fp16=fp16, amp_dtype="float16", amp_backend="torch")
    assert str(precision) == "float32"
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_bfloat16_autocast_and_step():
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    precision = TorchPrecision(CPU, torch.bfloat16)
    before = model.weight.clone()
    with precision.autocast():
        output = model(torch.ones(3, 2))
    assert output.dtype == torch.bfloat16
    precision.step(output.float().sum(), optimizer)
    torch.testing.assert_close(model.weight, before - 0.3)
    assert "bfloat16" in str(precision)


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


def test_apex_is_used_at_o1(monkeypatch):
    calls = []

    class ScaledLoss:
        def __init__(self, loss, optimizer):
            self.loss = loss * 8

        def __enter__(self):
            return self.loss

        def __exit__(self, *error):
            calls.append("unscaled")

    amp = types.SimpleNamespace(
        initialize=lambda model, optimizer, **options: calls.append(options["opt_level"]), scale_loss=ScaledLoss
    )
    monkeypatch.setitem(sys.modules, "apex", types.SimpleNamespace(amp=amp))
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    precision = build_precision(
        model, optimizer, torch.device("cuda"), fp16=True, amp_dtype="float16", amp_backend="apex"
    )
    before = model.weight.clone()
    precision.step(model(torch.ones(1, 2)).sum(), optimizer)
    assert calls == ["O1", "unscaled"]
    assert not torch.equal(model.weight, before)


# --- compiled -------------------------------------------------------------------------------------------------------


def losses_of(training: Training, epochs: int = 2) -> list[float]:
    found = []
    trainer = build_trainer(training)
    process = trainer._process_function

    def record(engine, batch):
        output = process(engine, batch)
        found.append(sum(value.item() for name, value in output.items() if name.startswith("loss")))
        return output

    trainer._process_function = record
    trainer.run(training.loader, max_epochs=epochs, epoch_length=len(training.loader))
    return found


def test_compiled_training_follows_the_same_curve():
    """One graph of fixed shape, whatever the mix of modalities in a batch: it is compiled once."""
    torch._dynamo.reset()
    eager, compiled = make_training(), make_training()
    for training in (eager, compiled):
        training.criterion = mcja_criterion("builtin")
    compiled.compile = True
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert losses_of(compiled) == pytest.approx(losses_of(eager), rel=1e-3)


def test_what_cannot_be_compiled_is_said():
    """In a process of its own, because torch remembers the compilers that it found."""
    program = """
import utils, torch
from engine.trainer import as_one_graph
from utils.run.cli import run_program
raise SystemExit(run_program(lambda: as_one_graph(lambda values: (values * 2).sum())(torch.rand(5))))
"""
    environment = os.environ | {"CXX": "/nonexistent/c++"}
    options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", program], **options)
    assert done.returncode == 2
    assert done.stderr.startswith("error: compile: torch could not compile the step (")
    assert done.stderr.endswith("set compile false\n")
    assert done.stderr.count("\n") == 1


def test_mixed_precision_follows_the_curve_of_float32():
    plain, mixed = make_training(), make_training()
    mixed.precision = TorchPrecision(CPU, torch.bfloat16)
    assert losses_of(mixed) == pytest.approx(losses_of(plain), rel=0.05)
