"""Timing, memory, description of the machine, and reports, for all benchmarks."""

import argparse
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from engine.device import select_device
from utils.run.files import write_json
from utils.run.seeds import seed_everything
from utils.run.versions import commit, versions


class Timing(NamedTuple):
    """Seconds per call."""

    median: float
    minimum: float


def prepare(gpu: str, *, seed: int) -> torch.device:
    """Select the device and seed the random generators, as a run does."""
    device = select_device(gpu)
    seed_everything(seed)
    return device


def at_least_one(word: str) -> int:
    """Parse a positive number from the command line."""
    if not word.isdecimal() or not 0 < int(word[:9]) == int(word):
        raise argparse.ArgumentTypeError(f"{word[:20]!r} should be a whole number, 1 or more")
    return int(word)


def json_file(word: str) -> Path:
    """Parse the path of a report. Its folder is checked before anything is measured."""
    path = Path(word)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def measure(function: Callable[[], object], *, repeats: int = 5, warmup: int = 1) -> Timing:
    """Call ``function`` ``warmup`` times, then time ``repeats`` calls. A call ends when the GPU has finished."""
    for _ in range(warmup):
        function()
    seconds = [_seconds(function) for _ in range(repeats)]
    return Timing(statistics.median(seconds), min(seconds))


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside this context, torch computes with a single thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def peak_memory(work: Callable[[], object], device: torch.device) -> float | None:
    """Peak memory of ``work`` on ``device`` in GiB, in addition to what was used before.

    None if it cannot be measured.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux resets the peak
    except OSError:
        return None
    before = _resident_peak()
    work()
    return (_resident_peak() - before) / 2**20


def _resident_peak() -> int:
    """Peak resident memory of this process, in KiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0])


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, object]:
    """Processor, usable cores, threads of torch, and GPU."""
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def write_report(path: str | Path | None, name: str, rows: Iterable[dict[str, object]], **more: object) -> None:
    """Print ``rows`` as a table and, given a ``path``, write them as JSON with command, machine and versions.

    Args:
        rows: may be computed one at a time; the file is written after each, so that an interruption loses only one.
        more: further entries of the JSON file, such as the seed and the sizes.
    """
    done: list[dict[str, object]] = []
    conditions = {
        "benchmark": name,
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        **more,
    }
    for row in rows:
        done.append(row)
        if path is not None:
            write_json(Path(path), {**conditions, "rows": done})
    print(table(done))


def table(rows: Sequence[dict[str, object]]) -> str:
    """``rows`` as text, with one column per key. Numbers have three digits; missing values are blank."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [keys, *([_short(row.get(key, "")) for key in keys] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def _short(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _seconds(function: Callable[[], object]) -> float:
    """Time of one call; with a GPU, between two events in its stream."""
    if not torch.cuda.is_initialized():
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    torch.cuda.synchronize()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    function()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000
