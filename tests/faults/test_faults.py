"""Faults of the machine: a process killed at any moment, a full disk, writes that end half way, read-only folders."""

import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from engine.trainer import train
from main import main
from tests.helpers.faulty_files import faulty_files, full, kill
from tests.helpers.runs import arguments, results
from tests.helpers.training import assert_same, make_schedule, make_training, rows, score_of
from utils.run.cli import run_program
from utils.run.errors import UserError
from utils.run.files import write_text

# children start from a process that has imported everything and done nothing else
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["utils", "main"])
KILLS = 20
ROOT = Path(__file__).resolve().parents[2]


def assert_intact(folder: Path) -> None:
    """Every file that has its name is whole."""
    for path in folder.glob("*.pth"):
        torch.load(path, weights_only=True)
    for path in folder.glob("*.json"):
        json.loads(path.read_text())
    if (folder / "metrics.csv").exists():
        assert [int(row["epoch"]) for row in rows(folder)] == list(range(1, len(rows(folder)) + 1))


def operations_of_a_training(tmp_path_factory) -> int:
    with faulty_files(0, full) as faults:
        train(
            make_training(),
            make_schedule(num_epoch=3, evaluate=score_of),
            tmp_path_factory.mktemp("counted"),
        )
    return faults.done


def fill_disk_at(at: int, expected, folder: Path) -> None:
    """Fail at an operation, look at what is there, then go on."""
    training, expected_folder, best, _ = expected
    schedule = make_schedule(num_epoch=3, evaluate=score_of)
    with faulty_files(at, full) as faults:
        try:
            train(make_training(), schedule, folder)
        except (UserError, OSError) as error:
            assert "No space left" in str(error)
        else:
            assert faults.done < at  # how often a state is written to depends on the digits of its times
    assert_intact(folder)
    again = make_training()
    assert train(again, schedule, folder) == best
    assert_same(again, training, folder, expected_folder)


@pytest.fixture(scope="module")
def operations(tmp_path_factory) -> int:
    return operations_of_a_training(tmp_path_factory)


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.98])
def test_a_full_disk_leaves_earlier_files_intact(share, operations, uninterrupted, tmp_path):
    fill_disk_at(1 + round(share * (operations - 1)), uninterrupted, tmp_path)


@pytest.mark.faults
def test_a_full_disk_at_every_operation(operations, uninterrupted, tmp_path, tally):
    for at in range(1, operations + 1):
        folder = tmp_path / str(at)
        folder.mkdir()
        fill_disk_at(at, uninterrupted, folder)
    tally(operations, "operations on files of a training at which the disk was full")


def test_a_torn_write_is_never_seen(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "before")
    with faulty_files(0, full) as faults:
        write_text(path, "before")
    for at in range(1, faults.done + 1):
        with faulty_files(at, full), pytest.raises(UserError, match="file.txt: cannot be written"):
            write_text(path, "after")
        assert path.read_text() in ("before", "after")
        assert path.read_text() == "before" or at == faults.done  # only the folder's flush comes after the new name
        write_text(path, "before")
        assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


# --- processes ------------------------------------------------------------------------------------------------------


def child(words: list[str], output, kill_at: int, most_bytes: int) -> None:
    """A run in a process of its own, that is killed at an operation on files or cannot write long files."""
    sys.stdout = sys.stderr = os.fdopen(os.dup(output.fileno()), "w", buffering=1)
    torch.set_num_threads(1)
    if most_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    with faulty_files(kill_at, kill):
        code = run_program(lambda: main(words))
    sys.stdout.flush()
    os._exit(code)


def start(words: list[str], *, kill_at: int = 0, most_bytes: int = 0):
    """The process; its ``output`` is what it prints, at least the first 100 kB."""
    reading, writing = CONTEXT.Pipe(duplex=True)
    process = CONTEXT.Process(target=child, args=(words, writing, kill_at, most_bytes))
    process.start()
    writing.close()
    process.reading = reading
    return process


def output(process) -> str:
    """Of a process that has ended."""
    with os.fdopen(os.dup(process.reading.fileno()), "rb") as file:
        return file.read().decode()


def finish(process, seconds: int = 120) -> int:
    process.join(seconds)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def go_on(folder: Path, **faults):
    return start(["--continue", str(folder), "--gpu", "cpu"], **faults)


@pytest.fixture(scope="module")
def expected(regdb_root, tmp_path_factory):
    """The folder of a run that nothing happens to, and how many seconds it took from its folder on."""
    tmp_path = tmp_path_factory.mktemp("expected")
    process = start(arguments(tmp_path, "regdb", regdb_root))
    folder = wait_for_folder(tmp_path, process)
    begun = time.monotonic()
    assert finish(process) == 0
    return folder, time.monotonic() - begun


def wait_for_folder(tmp_path: Path, process) -> Path:
    while not (found := list(tmp_path.glob("runs/*/*/config.yml"))):
        assert process.is_alive(), output(process)
        time.sleep(0.01)
    return found[0].parent


def assert_equal_runs(folder: Path, expected_folder: Path) -> None:
    assert results(folder) == results(expected_folder)
    assert rows(folder) == rows(expected_folder)
    for name in ("best.pth", "last.pth"):
        ours, theirs = (torch.load(f / name, weights_only=True) for f in (folder, expected_folder))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    assert not list(folder.glob(".*.partial"))


def kill_and_go_on(moment: float, words, expected, tmp_path) -> None:
    expected_folder, _ = expected
    process = start(words)
    folder = wait_for_folder(tmp_path, process)
    time.sleep(moment)
    process.kill()
    process.join()
    assert_intact(folder)
    process = go_on(folder)
    assert finish(process) == 0, output(process)
    assert_equal_runs(folder, expected_folder)


def test_a_run_that_is_killed_goes_on(expected, regdb_root, tmp_path):
    kill_and_go_on(expected[1] * 0.6, arguments(tmp_path, "regdb", regdb_root), expected, tmp_path)


@pytest.mark.faults
def test_runs_that_are_killed_at_random_moments_go_on(expected, regdb_root, tmp_path, tally):
    draw = random.Random(1)
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        words = arguments(folder, "regdb", regdb_root, num_workers=str(number % 2))
        kill_and_go_on(draw.uniform(0, expected[1]), words, expected, folder)
    tally(KILLS, "runs killed at random moments, continued to the same weights and results")


@pytest.mark.faults
def test_a_run_that_is_killed_again_and_again_goes_on(expected, regdb_root, tmp_path, tally):
    """One run, killed at an operation on files, which is often within a write, each time that it goes on."""
    draw = random.Random(2)
    process = start(arguments(tmp_path, "regdb", regdb_root), kill_at=200)
    folder = wait_for_folder(tmp_path, process)
    kills = 0
    while (code := finish(process)) != 0:
        assert code == -signal.SIGKILL, output(process)
        kills += 1
        assert kills < 200, "it gets nowhere"
        assert_intact(folder)
        # a state takes some 600 operations and an epoch three times as many: later processes get further
        process = go_on(folder, kill_at=draw.randrange(1, 2000 + 200 * kills))
    assert kills >= 5
    assert_equal_runs(folder, expected[0])
    tally(kills, "times that one run was killed at an operation on files, with the same result in the end")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_process_with_their_code(number, code, expected, regdb_root, tmp_path):
    """To the process and its loaders alike, as a terminal or a scheduler sends them."""
    process = start(arguments(tmp_path, "regdb", regdb_root, num_workers="1"))
    folder = wait_for_folder(tmp_path, process)
    time.sleep(expected[1] * 0.5)
    for pid in [*_children(process.pid), process.pid]:
        os.kill(pid, number)
    assert finish(process, 30) == code, output(process)
    printed = output(process)
    assert f"stopped by {number.name}; continue with: python main.py --continue {folder}" in printed
    assert "Traceback" not in printed
    assert finish(go_on(folder)) == 0
    assert_equal_runs(folder, expected[0])


@pytest.mark.parametrize("stdout", ["/dev/full", "closed pipe"])
def test_a_terminal_that_is_gone_does_not_end_a_run(stdout, regdb_root, tmp_path):
    command = [sys.executable, "main.py", *arguments(tmp_path, "regdb", regdb_root, num_epoch="1", mser="false")]
    options = {"cwd": ROOT, "stderr": subprocess.PIPE, "text": True}
    if stdout == "/dev/full":
        with open("/dev/full", "w") as full_disk:  # noqa: PTH123
            process = subprocess.Popen(command, stdout=full_disk, **options)
    else:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, **options)
        process.stdout.close()
    assert process.wait(120) == 0
    assert "Traceback" not in process.stderr.read()
    (results_file,) = tmp_path.glob("runs/*/*/results.json")
    assert json.loads(results_file.read_text())["results"]


@pytest.mark.parametrize("seconds", [0.15, 0.6, 1.5])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_program_starts(number, seconds, tmp_path):
    process = subprocess.Popen([sys.executable, "main.py", "--help"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(number)
    code = process.wait(60)
    assert code in (0, -number, 128 + number)  # Python itself takes some time to start
    assert "Traceback" not in process.stderr.read() or seconds < 0.5


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


@pytest.mark.parametrize("most_bytes", [200, 5000, 1_000_000])
def test_a_disk_that_takes_no_more_is_one_line(most_bytes, regdb_root, tmp_path):
    """The system itself refuses, here because of a limit to the length of files."""
    process = start(arguments(tmp_path, "regdb", regdb_root), most_bytes=most_bytes)
    assert finish(process) == 2
    printed = output(process)
    assert "error: " in printed
    assert "Traceback" not in printed
    assert "File too large" in printed
