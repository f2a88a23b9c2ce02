"""What all benchmarks share: timing, the machine, and reports."""

import argparse
import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from engine.device import select_device
from utils.run.files import write_json
from utils.run.seeds import seed_everything
from utils.run.versions import commit, versions

try:
    import numba
except ImportError:
    numba = None


class Timing(NamedTuple):
    """Seconds per call."""

    median: float
    minimum: float
    runs: tuple[float, ...]


def prepare(gpu: str, *, seed: int) -> torch.device:
    """The device, with torch set up on it as for a run."""
    device = select_device(gpu)
    seed_everything(seed)
    return device


def at_least_one(word: str) -> int:
    """A count, as an argument of a program."""
    if not word.isdecimal() or not 0 < int(word[:9]) == int(word):
        raise argparse.ArgumentTypeError(f"{word[:20]!r} should be a number from 1 on")
    return int(word)


def json_file(word: str) -> Path:
    """Where a report can be written to; asked before anything is measured."""
    path = Path(word)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def measure(function: Callable[[], object], *, repeats: int = 5, warmup: int = 1) -> Timing:
    """Call ``function`` ``warmup`` times for nothing, then time ``repeats`` calls, each until the GPU is done."""
    for _ in range(warmup):
        function()
    runs = []
    for _ in range(repeats):
        _synchronize()
        start = time.perf_counter()
        function()
        _synchronize()
        runs.append(time.perf_counter() - start)
    return Timing(statistics.median(runs), min(runs), tuple(runs))


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch and compiled loops compute with a single thread."""
    libraries = [torch, numba] if numba else [torch]
    before = [library.get_num_threads() for library in libraries]
    for library in libraries:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, threads in zip(libraries, before, strict=True):
            library.set_num_threads(threads)


def peak_memory(work: Callable[[], object], device: torch.device) -> float | None:
    """GB that ``work`` holds on ``device`` at its peak beside what was there before; None where nobody counts them."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    try:
        Path("/proc/self/clear_refs").write_text("5")  # has Linux forget the peak until now
    except OSError:
        return None
    before = _resident_peak()
    work()
    return (_resident_peak() - before) / 2**20


def _resident_peak() -> int:
    """In KiB."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def machine() -> dict[str, object]:
    """Processor, cores that may be used, torch's threads, and the GPU."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def write_report(path: str | Path | None, name: str, rows: Sequence[dict[str, object]], **more: object) -> None:
    """Print ``rows``, and write them as JSON to ``path``, if any, with what they were measured on, and by what.

    ``more`` (the seed, settings) is added to the file as it is.
    """
    print(table(rows))
    if path is None:
        return
    module = f"benchmarks.{name}"
    write_json(
        Path(path),
        {
            "benchmark": name,
            "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
            "machine": machine(),
            "versions": versions(),
            "commit": commit(),
            **more,
            "rows": list(rows),
        },
    )


def table(rows: Sequence[dict[str, object]]) -> str:
    """``rows`` in columns, one per key of any; numbers with three significant digits, blank where a row has none."""
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


def _synchronize() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
