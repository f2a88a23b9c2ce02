"""Killed processes, full disks, interrupted writes and signals: files stay whole and runs continue."""

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
from typing import NamedTuple

import pytest
import torch

from engine.trainer import train
from main import main
from tests.helpers.faulty_files import faulty_files, fill_disk, kill_process
from tests.helpers.runs import arguments, results
from tests.helpers.training import assert_same, make_schedule, make_training, rows, score_of
from utils.run.cli import run_program
from utils.run.errors import UserError
from utils.run.files import write_text
from utils.run.folder import CONFIG

ROOT = Path(__file__).resolve().parents[2]
KILLS = 8
# child processes fork from a process that has imported everything but run nothing
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["utils", "main"])


def assert_whole_files(folder: Path) -> None:
    for path in folder.glob("*.pth"):
        torch.load(path, weights_only=True)
    for path in folder.glob("*.json"):
        json.loads(path.read_text())
    if (folder / "metrics.csv").exists():
        assert [int(row["epoch"]) for row in rows(folder)] == list(range(1, len(rows(folder)) + 1))


# --- full disks -----------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "before")
    with faulty_files(0, fill_disk) as faults:
        write_text(path, "before")
    assert faults.done == ["open", "write", "fsync", "replace", "fsync"]
    for at, name in enumerate(faults.done, start=1):
        with faulty_files(at, fill_disk), pytest.raises(UserError, match="file.txt: cannot be written"):
            write_text(path, "after")
        assert path.read_text() == ("after" if at == len(faults.done) else "before"), name
        write_text(path, "before")
        assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


@pytest.fixture(scope="module")
def operations(tmp_path_factory) -> int:
    """How many file operations a training does."""
    folder = tmp_path_factory.mktemp("counted")
    with faulty_files(0, fill_disk) as faults:
        train(make_training(), make_schedule(evaluate=score_of), folder)
    return len(faults.done)


def fail_and_continue(at: int, uninterrupted, folder: Path) -> None:
    """Train with a disk that is full at operation ``at``, check the files, then continue to the end."""
    expected, expected_folder, best, _ = uninterrupted
    schedule = make_schedule(evaluate=score_of)
    with faulty_files(at, fill_disk), pytest.raises((UserError, OSError), match="No space left"):
        train(make_training(), schedule, folder)
    assert_whole_files(folder)
    training = make_training()
    assert train(training, schedule, folder) == best
    assert_same(training, expected, folder, expected_folder)


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 0.75, 1])
def test_a_full_disk_leaves_whole_files(share, operations, uninterrupted, tmp_path):
    fail_and_continue(1 + round(share * (operations - 1)), uninterrupted, tmp_path)


@pytest.mark.faults
def test_a_full_disk_at_every_operation(operations, uninterrupted, tmp_path, tally):
    for at in range(1, operations + 1):
        folder = tmp_path / str(at)
        folder.mkdir()
        fail_and_continue(at, uninterrupted, folder)
    tally(operations, "file operations of a training at which the disk was full")


# --- processes ------------------------------------------------------------------------------------------------------


class Process(NamedTuple):
    process: multiprocessing.Process
    output: int  # a pipe, which holds at least the first 64 kB of what the process prints

    def finish(self, seconds: int = 120) -> tuple[int, str]:
        """Wait for the end; the exit code and what was printed."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, "the process hangs"
        with os.fdopen(self.output, errors="replace") as file:
            return self.process.exitcode, file.read()


def start(words: list[str], *, kill_at: int = 0, file_size: int = 0) -> Process:
    """Start a run in a process that is killed at a file operation, or cannot write files longer than ``file_size``."""
    reading, writing = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=run_in_child, args=(words, writing, kill_at, file_size))
    process.start()
    writing.close()
    return Process(process, os.dup(reading.fileno()))


def run_in_child(words: list[str], output, kill_at: int, file_size: int) -> None:
    sys.stdout = sys.stderr = os.fdopen(os.dup(output.fileno()), "w", buffering=1)
    torch.set_num_threads(1)
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    with faulty_files(kill_at, kill_process):
        code = run_program(lambda: main(words))
    sys.stdout.flush()
    os._exit(code)


def start_continued(folder: Path, **faults) -> Process:
    return start(["--continue", str(folder), "--gpu", "cpu"], **faults)


def wait_for(name: str, tmp_path: Path, run: Process) -> Path:
    """Wait until the run has written a file of this name; the run folder."""
    while not (found := list(tmp_path.glob(f"runs/*/*/{name}"))):
        assert run.process.is_alive(), run.finish()
        time.sleep(0.01)
    return found[0].parent


class ChildRun(NamedTuple):
    """A run in a child process that was never stopped."""

    folder: Path
    seconds: float  # since its folder was made


@pytest.fixture(scope="module")
def child_run(regdb_root, tmp_path_factory) -> ChildRun:
    tmp_path = tmp_path_factory.mktemp("whole")
    run = start(arguments(tmp_path, "regdb", regdb_root))
    folder = wait_for(CONFIG, tmp_path, run)
    started = time.monotonic()
    code, printed = run.finish()
    assert code == 0, printed
    return ChildRun(folder, time.monotonic() - started)


def assert_equal_runs(folder: Path, expected: Path) -> None:
    assert results(folder) == results(expected)
    assert rows(folder) == rows(expected)
    for name in ("best.pth", "last.pth"):
        ours, theirs = (torch.load(run / name, weights_only=True) for run in (folder, expected))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    assert not list(folder.glob(".*.partial"))


def kill_and_continue(run: Process, folder: Path, child_run: ChildRun) -> None:
    run.process.kill()
    run.finish()
    assert_whole_files(folder)
    code, printed = start_continued(folder).finish()
    assert code == 0, printed
    assert_equal_runs(folder, child_run.folder)


@pytest.mark.faults  # slow
def test_a_killed_run_continues(child_run, regdb_root, tmp_path):
    run = start(arguments(tmp_path, "regdb", regdb_root))
    kill_and_continue(run, wait_for("epoch_001.pth", tmp_path, run), child_run)


@pytest.mark.faults
def test_runs_killed_at_random_moments_continue(child_run, regdb_root, tmp_path, tally):
    draw = random.Random(1)
    for number in range(KILLS):
        path = tmp_path / str(number)
        path.mkdir()
        run = start(arguments(path, "regdb", regdb_root, num_workers=str(number % 2)))
        folder = wait_for(CONFIG, path, run)
        time.sleep(draw.uniform(0, child_run.seconds))
        kill_and_continue(run, folder, child_run)
    tally(KILLS, "runs killed at random moments and continued to the same weights and results")


@pytest.mark.faults
def test_a_run_killed_again_and_again_continues(child_run, regdb_root, tmp_path, tally):
    """It is killed at a random file operation, often within a write, each time it continues."""
    draw = random.Random(2)
    run = start(arguments(tmp_path, "regdb", regdb_root), kill_at=20)
    folder = wait_for(CONFIG, tmp_path, run)
    kills = 0
    while (ended := run.finish())[0] != 0:
        assert ended[0] == -signal.SIGKILL, ended
        kills += 1
        assert kills < 100, "the run makes no progress"
        assert_whole_files(folder)
        # an epoch has about 25 operations: later processes get further
        run = start_continued(folder, kill_at=draw.randrange(1, 40 + 5 * kills))
    assert kills >= 5
    assert_equal_runs(folder, child_run.folder)
    tally(kills, "kills of one run at file operations, with the same weights and results in the end")


@pytest.mark.faults
@pytest.mark.parametrize(("number", "expected_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_to_a_process_and_its_loaders(number, expected_code, child_run, regdb_root, tmp_path):
    """Terminals and job schedulers send signals to all processes of a run."""
    run = start(arguments(tmp_path, "regdb", regdb_root, num_workers="1"))
    folder = wait_for("epoch_001.pth", tmp_path, run)  # loaders are running, and there is a second epoch
    for pid in [*children(run.process.pid), run.process.pid]:
        os.kill(pid, number)
    code, printed = run.finish(30)
    assert code == expected_code, printed
    assert f"stopped by {number.name}; continue with: python main.py --continue {folder}" in printed
    assert "Traceback" not in printed
    code, printed = start_continued(folder).finish()
    assert code == 0, printed
    assert_equal_runs(folder, child_run.folder)


@pytest.mark.faults
def test_loaders_end_when_their_run_is_killed(regdb_root, tmp_path):
    run = start(arguments(tmp_path, "regdb", regdb_root, num_workers="1"))
    wait_for("epoch_001.pth", tmp_path, run)
    loaders = [pid for child in children(run.process.pid) for pid in (child, *children(child))]
    assert loaders
    run.process.kill()
    deadline = time.monotonic() + 60
    while any(map(is_running, loaders)):
        assert time.monotonic() < deadline, "loader processes are left"
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def is_running(pid: int) -> bool:
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.faults
@pytest.mark.parametrize("stdout", ["full disk", "closed pipe"])
def test_a_run_goes_on_without_standard_output(stdout, regdb_root, tmp_path):
    command = [sys.executable, "main.py", *arguments(tmp_path, "regdb", regdb_root, num_epoch="1", mser="false")]
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full" if stdout == "full disk" else writing, "w") as file:  # noqa: PTH123 - Path opens no pipes
        done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode in (0, 2), done.stderr  # whether something is left to flush depends on Python's buffer
    (results_file,) = tmp_path.glob("runs/*/*/results.json")
    assert json.loads(results_file.read_text())["results"]
    assert "results in" in results_file.with_name("log.txt").read_text()


@pytest.mark.parametrize("seconds", [0.5, 1.5])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_program_starts(number, seconds, tmp_path):
    process = subprocess.Popen([sys.executable, "main.py", "--help"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(number)
    _, printed = process.communicate(timeout=60)
    assert process.returncode in (0, -number, 128 + number)  # main.py may not have begun yet, or be done
    assert "Traceback" not in printed or process.returncode == -number


@pytest.mark.parametrize("file_size", [200, 5000, 1_000_000])
def test_the_system_refuses_to_write(file_size, regdb_root, tmp_path):
    """A limit on the length of files stands for a full disk."""
    code, printed = start(arguments(tmp_path, "regdb", regdb_root), file_size=file_size).finish()
    assert code == 2
    assert printed.splitlines()[-1].startswith("error: ")
    assert "File too large" in printed.splitlines()[-1]
