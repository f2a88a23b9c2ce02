"""All benchmarks and the GPU tests, one after the other: ``python -m benchmarks.all [--gpu 0] [--out DIR]``.

Each part is a program of its own with its own time limit, so one that fails or takes too long does not stop the others.
Together they take at most nine minutes. The folder gets a JSON file from each benchmark, a log of what the parts
printed, and a summary. With ``--gpu cpu`` the sizes are small and the GPU tests are left out.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from benchmarks.timing import table
from utils.run.cli import Parser, run_program
from utils.run.files import write_json
from utils.run.versions import versions

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["backbone", "resnet18", "p_size", "2", "k_size", "4", "batch_size", "16", "num_workers", "0"]
TINY = ["backbone", "resnet10", "image_size", "(96,48)", "p_size", "4", "k_size", "4", "num_workers", "0"]
END_SECONDS = 3  # in which a part that is ended may remove its temporary files


class Part(NamedTuple):
    """A program, ``python -m <arguments>``."""

    name: str
    seconds: int  # a part that takes longer is ended
    arguments: list[str]


def parts(gpu: str, out: Path) -> list[Part]:
    """All parts, for a GPU or ``cpu``. Together they take at most nine minutes."""
    return small_parts(out) if gpu == "cpu" else gpu_parts(out)


def gpu_parts(out: Path) -> list[Part]:
    gpu = "0"  # the only visible one
    return [
        Part("tests", 105, ["pytest", "-q", "-m", "gpu", "--durations=10", "--continue-on-collection-errors", "tests"]),
        benchmark("step", 30, gpu, out),
        benchmark("step", 85, gpu, out, "compile", "true", name="step-compiled"),
        benchmark("scoring", 75, gpu, out, "--repeats", "1"),
        benchmark("data", 40, gpu, out),
        benchmark("extraction", 35, gpu, out, "--repeats", "1", "--images", "512"),
        benchmark("training", 150, gpu, out),
    ]


def small_parts(out: Path) -> list[Part]:
    step = ["--repeats", "1", "--steps", "2", *SMALL]
    return [
        benchmark("step", 45, "cpu", out, *step),
        benchmark("step", 100, "cpu", out, *step, "compile", "true", name="step-compiled"),
        benchmark("scoring", 110, "cpu", out, "--repeats", "1", "--small"),
        benchmark("data", 60, "cpu", out, "--repeats", "2", "--images", "128"),
        benchmark("extraction", 60, "cpu", out, "--repeats", "1", "--images", "24", *SMALL),
        benchmark("training", 140, "cpu", out, "--identities", "16", *TINY),
    ]


def benchmark(program: str, seconds: int, gpu: str, out: Path, *words: str, name: str = "") -> Part:
    """A program of this folder, whose report is ``<name>.json``."""
    name = name or program
    return Part(name, seconds, [f"benchmarks.{program}", "--gpu", gpu, "--json", str(out / f"{name}.json"), *words])


def run(part: Part, log: IO[bytes], environment: dict[str, str]) -> dict[str, object]:
    """Run a part with its output in ``log``. One row of the summary."""
    command = [sys.executable, "-m", *part.arguments]
    start = time.perf_counter()
    # in a session of its own, so that its child processes are ended with it
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    )
    try:
        code = process.wait(part.seconds)
        outcome = f"failed (exit code {code})" if code else "done"
    except subprocess.TimeoutExpired:
        outcome = f"stopped after {part.seconds} s"
    finally:
        end(process)
    command[0] = "python"
    seconds = round(time.perf_counter() - start, 1)
    return {"part": part.name, "seconds": seconds, "outcome": outcome, "command": shlex.join(command)}


def end(process: subprocess.Popen) -> None:
    """End a program, which removes its temporary files, and then what is left of its session."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def visible_gpu(gpu: str) -> str:
    """``CUDA_VISIBLE_DEVICES`` for the parts: the GPU with this index among the visible ones, or none."""
    if gpu == "cpu":
        return ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[int(gpu)] if visible else gpu


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.all", description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", default="cpu", help="index of a GPU, or cpu (small sizes)")
    parser.add_argument("--out", default="bench", type=Path, metavar="DIR", help="folder of the reports")
    arguments = parser.parse_args(argv)
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": visible_gpu(arguments.gpu)}
    rows: list[dict[str, object]] = []
    with (out / "log.txt").open("w+b") as log:
        for part in parts(arguments.gpu, out):
            print(f"\n== {part.name} (at most {part.seconds} s)", flush=True)
            begin = log.seek(0, os.SEEK_END)
            rows.append(run(part, log, environment))
            log.seek(begin)
            print(log.read().decode(errors="replace"), flush=True)
            write_json(out / "summary.json", {"parts": rows, "versions": versions()})
    print(table([{name: value for name, value in row.items() if name != "command"} for row in rows]))
    return int(any(row["outcome"] != "done" for row in rows))


if __name__ == "__main__":
    sys.exit(run_program(main))
