"""A run that was stopped and continued gives bit for bit the results of a run that never stopped."""

import csv
import json
import logging
import multiprocessing
import os
import shutil
import signal
import types
from pathlib import Path

import pytest
import torch

from data.datasets import LLCM
from engine import state as state_module
from engine import trainer as trainer_module
from engine.checkpoints import BEST, save_state
from engine.precision import TorchPrecision
from engine.state import Threads, newest_state
from engine.trainer import train
from main import main
from tests.helpers.runs import arguments, results, run, stopped_run
from tests.helpers.training import EPOCHS, assert_same, make_schedule, make_training, rows, score_of, stop_at
from utils.results import TrialScore
from utils.run.cli import run_program
from utils.run.errors import LoaderDied, Stopped, UserError
from utils.run.files import FolderLock
from utils.run.folder import STATES
from utils.run.logs import set_up_logging


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.6, 0.8, 1.0])
def test_a_stopped_training_ends_as_if_it_had_not_been(share, workers, uninterrupted, tmp_path):
    expected, expected_folder, best, batches = uninterrupted
    training = make_training(workers=workers)
    stop_at(training, max(1, round(share * batches)))
    schedule = make_schedule(num_epoch=EPOCHS, evaluate=score_of)
    with pytest.raises(Stopped):
        train(training, schedule, tmp_path)
    again = make_training(workers=2 - workers)
    assert train(again, schedule, tmp_path) == best
    assert_same(again, expected, tmp_path, expected_folder)


def log_lines(caplog) -> list[str]:
    """The log lines within epochs, such as: epoch 1/3 [2/5] ..., without what depends on the clock."""
    lines = [record.getMessage() for record in caplog.records if record.name == "engine.report"]
    caplog.clear()
    return [line.partition(", lr")[0] for line in lines if "[" in line]


def test_a_training_may_be_stopped_at_every_step(uninterrupted, tmp_path, tmp_path_factory, caplog):
    caplog.set_level(logging.INFO)
    expected, expected_folder, best, batches = uninterrupted
    schedule = make_schedule(num_epoch=EPOCHS, evaluate=score_of)
    train(make_training(), schedule, tmp_path_factory.mktemp("whole"))
    expected_lines = log_lines(caplog)
    for attempt in range(batches + 1):
        training = make_training()
        stop_at(training, 1, (signal.SIGTERM, signal.SIGINT)[attempt % 2])
        try:
            found = train(training, schedule, tmp_path)
        except Stopped as stop:
            assert stop.number == (signal.SIGTERM, signal.SIGINT)[attempt % 2]
            continue
        break
    assert attempt == batches  # each attempt made one step
    assert log_lines(caplog) == expected_lines
    assert found == best
    assert_same(training, expected, tmp_path, expected_folder)


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_a_signal_during_an_evaluation_ends_it_at_once(epoch, uninterrupted, tmp_path):
    expected, expected_folder, best, _ = uninterrupted
    evaluations = []

    def interrupted(model):
        evaluations.append(1)
        if len(evaluations) == epoch:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the signal did not end the evaluation")
        return score_of(model)

    with pytest.raises(Stopped):
        train(make_training(), make_schedule(num_epoch=EPOCHS, evaluate=interrupted), tmp_path)
    again = make_training()
    assert train(again, make_schedule(num_epoch=EPOCHS, evaluate=score_of), tmp_path) == best
    assert_same(again, expected, tmp_path, expected_folder)


def test_states_within_an_epoch_come_by_the_clock(uninterrupted, tmp_path, monkeypatch):
    """With a fake clock of one minute per step, a crash loses at most two minutes of training."""
    expected, expected_folder, best, batches = uninterrupted
    minutes = iter(range(10**6))
    monkeypatch.setattr(state_module.time, "monotonic", lambda: 60.0 * next(minutes))
    saved = []
    save = trainer_module.States.save
    monkeypatch.setattr(trainer_module.States, "save", lambda self, n: (saved.append(n), save(self, n)))
    schedule = make_schedule(num_epoch=EPOCHS, evaluate=score_of, checkpoint_minutes=2)
    training = make_training()

    def crash(images, infrared, augment=training.augment, calls=[]):  # noqa: B006 - counts its calls
        calls.append(1)
        if len(calls) == batches - 1:
            raise MemoryError
        return augment(images, infrared)

    crash.state_dict = training.augment.state_dict
    training.augment = crash
    with pytest.raises(MemoryError):
        train(training, schedule, tmp_path)
    assert batches - 4 <= max(saved) <= batches - 2
    again = make_training()
    assert train(again, schedule, tmp_path) == best
    assert_same(again, expected, tmp_path, expected_folder)


def test_a_state_that_is_due_is_written_before_an_evaluation(tmp_path, monkeypatch):
    """With a fake clock: a minute passes between the last step and the evaluation."""
    clock, states = [0.0], []
    monkeypatch.setattr(state_module, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(trainer_module.Report, "log_epoch", lambda *_, **__: clock.append(clock.pop() + 60))

    def evaluate(model):
        states.append(newest_state(tmp_path)[0]["progress"]["iteration"])
        return score_of(model)

    training = make_training()
    train(training, make_schedule(num_epoch=1, evaluate=evaluate, checkpoint_minutes=1), tmp_path)
    assert states == [len(training.sampler.batches)]


def test_the_number_of_threads_goes_on_on_a_cpu(tmp_path):
    before = torch.get_num_threads()
    train(make_training(), make_schedule(num_epoch=1), tmp_path)
    try:
        torch.set_num_threads(before + 1)
        Threads(torch.device("cuda")).load_state_dict({"count": before})
        assert torch.get_num_threads() == before + 1
        train(make_training(), make_schedule(num_epoch=1), tmp_path)
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)


def test_the_time_waited_for_data_goes_on(tmp_path, monkeypatch):
    """With a fake clock: 3 s to load a batch, 1 s for the rest of a step; writing states takes no time.

    The time of an evaluation does not count, also if a signal ends it.
    """
    clock = [0.0]
    fake = types.SimpleNamespace(perf_counter=lambda: clock[0])
    for module in ("engine.data_wait", "engine.progress"):
        monkeypatch.setattr(f"{module}.time", fake)

    def slow_training():
        training = make_training()
        load, augment = type(training.loader.dataset).__getitem__, training.augment
        batch = training.sampler.batches.shape[1]

        class SlowData(type(training.loader.dataset)):
            def __getitem__(self, index):
                clock[0] += 3 / batch
                return load(self, index)

        training.loader.dataset.__class__ = SlowData

        def slow(images, is_infrared):
            clock[0] += 1
            return augment(images, is_infrared)

        slow.state_dict, slow.load_state_dict = augment.state_dict, augment.load_state_dict
        training.augment = slow
        return training

    def evaluate(model):
        clock[0] += 1000
        if not evaluations:
            evaluations.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        return score_of(model)

    schedule, evaluations = make_schedule(num_epoch=2, evaluate=evaluate), []
    stopped_in_a_step, stopped_in_an_evaluation, again = (slow_training() for _ in range(3))
    stop_at(stopped_in_a_step, 2)
    for stopped in (stopped_in_a_step, stopped_in_an_evaluation):
        with pytest.raises(Stopped):
            train(stopped, schedule, tmp_path)
        clock[0] += 1000  # between the processes
    train(again, schedule, tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for epoch, row in enumerate(rows, start=1):
        again.sampler.set_epoch(epoch)
        assert float(row["seconds"]) == pytest.approx(4 * len(again.sampler.batches))
        assert float(row["data_wait"]) == 0.75


def test_loss_scaling_goes_on(tmp_path):
    """The loss scale grows over the steps; if it restarted at its first value, later weights would differ."""

    def scaled():
        training = make_training()
        training.precision = TorchPrecision(training.device, torch.float16)
        training.precision.scaler.set_growth_interval(3)
        return training

    schedule = make_schedule(num_epoch=EPOCHS, evaluate=score_of)
    expected, whole, parts = scaled(), tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    train(expected, schedule, whole)
    stopped = scaled()
    stop_at(stopped, 7)
    with pytest.raises(Stopped):
        train(stopped, schedule, parts)
    again = scaled()
    train(again, schedule, parts)
    assert again.precision.scaler.get_scale() == expected.precision.scaler.get_scale() > 2.0**16
    assert_same(again, expected, parts, whole)


# --- damaged states -------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Flip one bit of a weight, which torch.load does not notice."""
    content = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)["model"]["layer.weight"].numpy().tobytes()
    content[content.index(weight)] ^= 1
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    save_state({"format": 999}, path)


def lacking(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    del state["model"]
    save_state(state, path)


@pytest.mark.parametrize("damage", [truncate, flip, empty, foreign, lacking])
def test_a_damaged_state_gives_way_to_the_one_before(damage, uninterrupted, tmp_path, caplog):
    expected, expected_folder, best, _ = uninterrupted
    schedule = make_schedule(num_epoch=EPOCHS, evaluate=score_of)
    training = make_training()
    stop_at(training, 8)
    with pytest.raises(Stopped):
        train(training, schedule, tmp_path)
    newest = max(tmp_path.glob(STATES))
    damage(newest)
    again = make_training()
    assert train(again, schedule, tmp_path) == best
    assert f"{newest} is damaged" in caplog.text
    assert newest.with_name(newest.name + ".damaged").exists()  # renamed, not deleted
    assert_same(again, expected, tmp_path, expected_folder)


def test_a_state_that_cannot_be_read_now_stays(tmp_path, monkeypatch):
    schedule = make_schedule(num_epoch=2, evaluate=score_of)
    train(make_training(), schedule, tmp_path)
    before = sorted(tmp_path.glob(STATES))

    def fail(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("engine.state._read", fail)
        with pytest.raises(UserError, match="cannot be read now"):
            train(make_training(), schedule, tmp_path)
    assert sorted(tmp_path.glob(STATES)) == before


def test_a_state_of_another_network_is_refused(tmp_path):
    schedule = make_schedule(num_epoch=1, evaluate=score_of)
    train(make_training(), schedule, tmp_path)
    other = make_training()
    other.model.layer = torch.nn.Linear(3, 7)
    with pytest.raises(UserError, match="does not belong to the run's configuration"):
        train(other, schedule, tmp_path)


@pytest.mark.parametrize("when", ["training", "evaluation"])
def test_a_killed_loader_loses_nothing(when, uninterrupted, tmp_path):
    expected, expected_folder, best, _ = uninterrupted
    training = make_training(workers=1)

    def kill_workers(*_):
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        if when == "evaluation":  # score_of uses no loader, so raise the error of one
            raise LoaderDied("a loader process was killed")
        return score_of(training.model)

    evaluations = []

    def evaluate(model):
        evaluations.append(1)
        return kill_workers() if len(evaluations) == 1 else score_of(model)

    with pytest.raises(UserError, match=f"a loader process was killed.*--continue {tmp_path}"):
        train(training, make_schedule(num_epoch=EPOCHS, evaluate=evaluate), tmp_path)
    again = make_training()
    assert train(again, make_schedule(num_epoch=EPOCHS, evaluate=score_of), tmp_path) == best
    assert_same(again, expected, tmp_path, expected_folder)


def torch_with_an_accelerator() -> types.ModuleType:
    """For the DataLoader, which pins memory only if there is an accelerator."""
    module = types.ModuleType("torch")
    module.__dict__.update(torch.__dict__)
    module.accelerator = types.SimpleNamespace(
        is_available=lambda: True, current_accelerator=lambda: None, current_device_index=lambda: 0
    )
    return module


def test_a_killed_loader_may_end_the_thread_that_pins_memory(uninterrupted, tmp_path, monkeypatch, capfd):
    """With a GPU, a thread of the main process reads what the loaders send. It fails if a loader dies meanwhile."""
    expected, expected_folder, best, _ = uninterrupted

    def read_once(incoming, outgoing, *_):
        outgoing.put(incoming.get())
        for child in multiprocessing.active_children():
            child.kill()
        raise ConnectionResetError(104, "Connection reset by peer")

    set_up_logging(tmp_path / "log.txt")
    training = make_training(workers=1)
    training.loader.pin_memory = True
    schedule = make_schedule(num_epoch=EPOCHS, evaluate=score_of)
    with monkeypatch.context() as patch:
        patch.setattr("torch.utils.data.dataloader.torch", torch_with_an_accelerator())
        patch.setattr("torch.utils.data._utils.pin_memory._pin_memory_loop", read_once)
        assert run_program(lambda: train(training, schedule, tmp_path)) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: a loader process was killed")
    assert error.endswith(f"--continue {tmp_path}\n")
    assert error.count("\n") == 1
    assert "Connection reset by peer" in (tmp_path / "log.txt").read_text()
    assert newest_state(tmp_path)[0]["progress"]["iteration"] == 1
    again = make_training()
    assert train(again, schedule, tmp_path) == best
    assert_same(again, expected, tmp_path, expected_folder)


def test_no_intact_state_is_an_error(tmp_path):
    schedule = make_schedule(num_epoch=1)
    train(make_training(), schedule, tmp_path)
    for path in tmp_path.glob(STATES):
        truncate(path)
    with pytest.raises(UserError, match="none of its 2 training states is intact"):
        train(make_training(), schedule, tmp_path)


def test_a_best_model_that_the_state_does_not_know_of_is_taken_back(uninterrupted, tmp_path):
    """best.pth was written after the state was saved; on a GPU, the continued run may find another best epoch."""
    _, expected_folder, _, _ = uninterrupted
    training = make_training()
    stop_at(training, 2)
    schedule = make_schedule(num_epoch=EPOCHS, evaluate=score_of)
    with pytest.raises(Stopped):
        train(training, schedule, tmp_path)
    save_state({"from": torch.zeros(1)}, tmp_path / BEST)
    again = make_training()
    train(again, make_schedule(num_epoch=EPOCHS, eval_interval=0), tmp_path)
    assert not (tmp_path / BEST).exists()


def test_files_that_are_newer_than_the_state_are_written_again(tmp_path, monkeypatch):
    schedule = make_schedule(num_epoch=2, evaluate=score_of)
    train(make_training(), schedule, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("metrics.csv", BEST)}
    for name in before:
        (tmp_path / name).write_bytes(b"written after the state")
    first = []
    report = trainer_module.Report
    monkeypatch.setattr(trainer_module, "Report", lambda *a, **k: first.append(k["first_iteration"]) or report(*a, **k))
    train(make_training(), schedule, tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == before["metrics.csv"]
    assert torch.load(tmp_path / BEST, weights_only=True).keys() == make_training().model.state_dict().keys()
    assert first == [newest_state(tmp_path)[0]["progress"]["iteration"] + 1]  # TensorBoard hides later points


def test_states_of_other_images_are_refused(tmp_path):
    training = make_training()
    training.dataset.fingerprint = "these"
    train(training, make_schedule(num_epoch=1), tmp_path)
    training = make_training()
    training.dataset.fingerprint = "others"
    with pytest.raises(UserError, match="not those that the run began with"):
        train(training, make_schedule(num_epoch=1), tmp_path)


# --- through the main program ---------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_to_the_same_results(whole_run, regdb_root, tmp_path, monkeypatch, capsys):
    folder = stopped_run(tmp_path, regdb_root, monkeypatch, 5)
    assert f"stopped by SIGTERM; continue with: python main.py --continue {folder} --gpu cpu" in capsys.readouterr().err
    assert not (folder / "results.json").exists()
    assert main(["--continue", str(folder), "--gpu", "cpu", "num_workers", "2", "cache", "device"]) == 0
    assert results(folder) == results(whole_run)
    for name in ("best.pth", "last.pth"):
        ours, theirs = (torch.load(f / name, weights_only=True) for f in (folder, whole_run))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert len(json.loads((folder / "results.json").read_text())["continued"]) == 1
    log = (folder / "log.txt").read_text()
    assert "stopped by SIGTERM" in log
    assert "continuing from state_" in log
    # a complete run has nothing left to do
    before = (folder / "results.json").read_bytes()
    capsys.readouterr()
    assert main(["--continue", str(folder), "--gpu", "cpu"]) == 0
    assert "is complete" in capsys.readouterr().out
    assert (folder / "results.json").read_bytes() == before


def test_a_stopped_run_on_llcm_goes_on_to_the_same_results_in_both_directions(llcm_root, tmp_path, monkeypatch):
    keys = {"llcm_visible_search": "released", "llcm_gallery": "all"}
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "whole", *arguments(tmp_path / "whole", "llcm", llcm_root, **keys))
    folder = stopped_run(tmp_path / "stopped", llcm_root, monkeypatch, 2, "llcm", **keys)
    assert main(["--continue", str(folder), "--gpu", "cpu"]) == 0
    assert results(folder) == results(whole)
    found = json.loads((folder / "results.json").read_text())
    both, added = (
        LLCM.selection,
        [name for values in LLCM.variants.values() for names in values.values() for name in names],
    )
    assert set(found["results"]) == {*both, *added}  # without MSER, which is off by default
    assert [len(found["trials"][name]) for name in (*both, *added)] == [10, 10, 10, 1, 1]
    best = next(row for row in rows(folder) if int(row["epoch"]) == found["best_epoch"])
    assert float(best["rank1"]) == pytest.approx(sum(found["results"][name]["rank1"] for name in both) / 2, abs=1e-3)


def test_a_run_killed_in_its_last_test_only_tests_again(whole_run, tmp_path):
    folder = Path(shutil.copytree(whole_run, tmp_path / "killed"))
    for name in ("results.json", "results.md", "last.pth"):
        (folder / name).unlink()
    (folder / ".results.json.partial").write_text("half")
    assert main(["--continue", str(folder), "--gpu", "cpu"]) == 0
    assert results(folder) == results(whole_run)
    assert rows(folder) == rows(whole_run)
    assert not list(folder.glob(".*.partial"))
    assert all(row[name] for row in rows(folder) for name in TrialScore._fields)


def test_a_run_killed_before_its_first_state_begins_anew(whole_run, tmp_path):
    folder = tmp_path / "killed"
    folder.mkdir()
    for name in ("config.yml", "run.json"):
        shutil.copy(whole_run / name, folder)
    assert main(["--continue", str(folder), "--gpu", "cpu"]) == 0
    assert results(folder) == results(whole_run)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr", "0.1"], "lr: 0.1 (command line) could change the results"),
        (["num_epoch", "9"], "num_epoch"),
        (["no_such_key", "9"], "unknown key"),
        (["--seed", "3"], "neither --seed nor --desc"),
        (["--desc", "x"], "neither --seed nor --desc"),
        (["--cfg", "configs/demo.yml"], "not allowed with"),
    ],
)
def test_what_would_change_the_results_is_refused(words, message, whole_run, capsys):
    folder = whole_run
    (folder / "results.json").rename(folder / "kept")
    try:
        before = {path: path.read_bytes() for path in folder.glob("*.*[!t]")}
        assert run_program(lambda: main(["--continue", str(folder), "--gpu", "cpu", *words])) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert {path: path.read_bytes() for path in folder.glob("*.*[!t]")} == before
    finally:
        (folder / "kept").rename(folder / "results.json")


def test_models_without_a_state_are_not_overwritten(whole_run, tmp_path, capsys):
    folder = Path(shutil.copytree(whole_run, tmp_path / "run"))
    for path in (*folder.glob("state_*"), folder / "results.json"):
        path.unlink()
    assert run_program(lambda: main(["--continue", str(folder), "--gpu", "cpu"])) == 2
    assert "holds models, but no training state" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "{}", '{"seed": -4}', '{"seed": 5, "continued": 3}'])
def test_damaged_conditions(content, whole_run, tmp_path, capsys):
    folder = Path(shutil.copytree(whole_run, tmp_path / "run"))
    (folder / "results.json").unlink()
    (folder / "run.json").write_text(content)
    assert run_program(lambda: main(["--continue", str(folder), "--gpu", "cpu"])) == 2
    assert f"error: {folder / 'run.json'}: " in capsys.readouterr().err


@pytest.mark.parametrize(("keep", "words"), [(0, "lacks amp_backend, amp_dtype, "), (9, "lacks ")])
def test_a_configuration_that_was_cut(keep, words, whole_run, tmp_path, capsys):
    """Missing keys are an error: they are not replaced by the defaults."""
    folder = Path(shutil.copytree(whole_run, tmp_path / "run"))
    (folder / "results.json").unlink()
    lines = (folder / "config.yml").read_text().splitlines(keepends=True)
    (folder / "config.yml").write_text("".join(lines[:keep]))
    assert run_program(lambda: main(["--continue", str(folder), "--gpu", "cpu"])) == 2
    message = capsys.readouterr().err
    assert f"error: {folder / 'config.yml'}: {words}" in message
    assert message.count("\n") == 1


def test_folders_that_are_no_runs(tmp_path, capsys):
    for make in (
        lambda: None,
        tmp_path.joinpath("run").mkdir,
        lambda: (tmp_path / "run/config.yml").write_text("a: 1"),
    ):
        make()
        assert run_program(lambda: main(["--continue", str(tmp_path / "run"), "--gpu", "cpu"])) == 2
        assert capsys.readouterr().err.startswith("error: --continue: ")
    (tmp_path / "run/run.json").write_text("{")
    assert run_program(lambda: main(["--continue", str(tmp_path / "run")])) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_two_processes_never_work_in_one_folder(whole_run, capsys, tmp_path):
    folder = Path(shutil.copytree(whole_run, tmp_path / "busy"))
    (folder / "results.json").unlink()
    ready, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # a lock only excludes other processes
        held = FolderLock(folder)
        os.write(ready[1], b"x")
        os.read(go_on[0], 1)
        held.release()
        os._exit(0)
    try:
        os.read(ready[0], 1)
        assert run_program(lambda: main(["--continue", str(folder), "--gpu", "cpu"])) == 2
        assert "another process is using this folder" in capsys.readouterr().err
    finally:
        os.write(go_on[1], b"x")
        os.waitpid(child, 0)
    FolderLock(folder).release()
