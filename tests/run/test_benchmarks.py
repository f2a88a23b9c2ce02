"""Benchmarks run one after the other, each within its own time."""

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks import all as benchmarks
from benchmarks import step
from benchmarks.all import Part


@pytest.mark.parametrize("gpu", ["0", "cpu"])
def test_all_parts_together_take_less_than_nine_minutes(gpu, tmp_path):
    parts = benchmarks.parts(gpu, tmp_path)
    assert sum(part.seconds for part in parts) < 540
    assert [part.name for part in parts[-2:]] == ["extraction", "training"]
    for part in parts:
        assert part.name == "tests" or part.arguments[1:5] == ["--gpu", gpu, "--json", f"{tmp_path}/{part.name}.json"]


def test_a_part_that_fails_or_hangs_does_not_stop_the_others(tmp_path, monkeypatch, capfd):
    child = "import subprocess; subprocess.run(['sh', '-c', 'echo $$; sleep 60; true'])"
    parts = [
        Part("fails", 20, ["timeit", "-n", "1", "raise ValueError"]),
        Part("hangs", 2, ["timeit", "-n", "1", child]),
        Part("works", 20, ["timeit", "-n", "1", "print('some output')"]),
    ]
    monkeypatch.setattr(benchmarks, "parts", lambda gpu, out: parts)
    start = time.monotonic()
    assert benchmarks.main(["--gpu", "cpu", "--out", str(tmp_path / "new" / "bench")]) == 1
    assert time.monotonic() - start < 30
    summary = json.loads((tmp_path / "new" / "bench" / "summary.json").read_text())
    outcomes = {row["part"]: row["outcome"] for row in summary["parts"]}
    assert outcomes == {"fails": "failed (exit code 1)", "hangs": "stopped after 2 s", "works": "done"}
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
