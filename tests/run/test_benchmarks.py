"""Benchmarks run one after the other, each within its own time."""

import json
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks import all as benchmarks
from benchmarks import step, training
from benchmarks.all import Part
from benchmarks.timing import write_report

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("gpu", ["0", "1", "cpu"])
def test_all_parts_together_take_less_than_nine_minutes(gpu, tmp_path):
    parts = benchmarks.parts(gpu, tmp_path)
    assert sum(part.seconds + benchmarks.END_SECONDS for part in parts) <= 541
    assert [part.name for part in parts[-2:]] == ["extraction", "training"]
    for part in parts:
        device = "cpu" if gpu == "cpu" else "0"  # the only visible one
        report = ["--gpu", device, "--json", f"{tmp_path}/{part.name}.json"]
        assert part.name == "tests" or part.arguments[1:5] == report


def test_the_parts_see_one_gpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [benchmarks.visible_gpu(gpu) for gpu in ("0", "1", "cpu")] == ["0", "1", ""]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [benchmarks.visible_gpu(gpu) for gpu in ("0", "1", "cpu")] == ["4", "6", ""]


@pytest.mark.parametrize(("words", "set_up"), [(["RUN=python3"], False), ([], True)])
def test_with_run_nothing_is_installed(words, set_up):
    missing = ["VENV=/nonexistent/venv", "OUT=here", "GPU=cpu"]
    done = subprocess.run(["make", "-n", "bench-gpu", *missing, *words], cwd=ROOT, capture_output=True, text=True)
    run = "python3" if words else "/nonexistent/venv/bin/python"
    assert f"{run} -m benchmarks.all --gpu cpu --out here" in done.stdout
    assert ("pip" in done.stdout) == set_up


@pytest.mark.faults  # slow
def test_a_part_that_fails_or_hangs_does_not_stop_the_others(tmp_path, monkeypatch, capfd):
    child = "import subprocess; subprocess.run(['sh', '-c', 'echo $$; sleep 60; true'])"
    parts = [
        Part("fails", 20, ["timeit", "-n", "1", "raise ValueError"]),
        Part("hangs", 5, ["timeit", "-n", "1", child]),
        Part("works", 20, ["timeit", "-n", "1", "print('some output')"]),
    ]
    monkeypatch.setattr(benchmarks, "parts", lambda gpu, out: parts)
    start = time.monotonic()
    assert benchmarks.main(["--gpu", "cpu", "--out", str(tmp_path / "new" / "bench")]) == 1
    assert time.monotonic() - start < 30
    summary = json.loads((tmp_path / "new" / "bench" / "summary.json").read_text())
    outcomes = {row["part"]: row["outcome"] for row in summary["parts"]}
    assert outcomes == {"fails": "failed (exit code 1)", "hangs": "stopped after 5 s", "works": "done"}
    printed = capfd.readouterr().out
    assert "some output" in printed
    assert "some output" in (tmp_path / "new" / "bench" / "log.txt").read_text()
    number = next(int(line) for line in printed.splitlines() if line.isdecimal())
    with suppress(FileNotFoundError, ProcessLookupError):
        assert not Path(f"/proc/{number}/cmdline").read_bytes()  # ended: the file is empty or gone


def test_a_report_of_the_step(tmp_path):
    small = ["backbone", "resnet10", "image_size", "(32,32)", "p_size", "2", "k_size", "4"]
    words = ["--gpu", "cpu", "--json", str(tmp_path / "step.json"), "--repeats", "1", "--steps", "2", *small]
    assert step.main(words) == 0
    (row,) = json.loads((tmp_path / "step.json").read_text())["rows"]
    assert row["transfer and augmentation"] == pytest.approx(1 - row["baseline seconds"] / row["seconds"])
    assert row["images/s"] == pytest.approx(8 / row["seconds"])


@pytest.mark.faults  # slow
def test_a_report_of_short_trainings(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "cases", lambda device: [{"cache": "disk"}, {"cache": "device"}])
    small = ["backbone", "resnet10", "image_size", "(64,32)", "p_size", "2", "k_size", "4", "num_workers", "0"]
    assert training.main(["--gpu", "cpu", "--json", str(tmp_path / "t.json"), "--identities", "4", *small]) == 0
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert ["cache disk" in row["case"] for row in rows] == [True, False]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["images/s"] / row["baseline images/s"])
        assert 0 <= row["waiting for data"] <= 1
        assert row["loss_id, last epoch"] > 0


def test_a_report_is_kept_after_each_row(tmp_path):
    def rows():
        yield {"case": "first"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path / "r.json", "step", rows(), seed=3)
    content = json.loads((tmp_path / "r.json").read_text())
    assert (content["rows"], content["seed"]) == ([{"case": "first"}], 3)
