"""Run a sweep and make its tables: ``python -m tools.sweep SWEEP.yml [--jobs N] [--gpus 0,1] [KEY VALUE ...]``.

What is complete is skipped, what was stopped is continued, what failed does not stop the others.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path

import torch

from tools.sweep.jobs import Watch, build_executor
from tools.sweep.plan import Job, Sweep, read_sweep
from tools.sweep.table import collect, read_csv, write_tables
from utils.run.cli import Parser, run_program
from utils.run.errors import Stopped, UserError, shown


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.sweep", description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, metavar="SWEEP.yml")
    parser.add_argument("--base", type=Path, metavar="FILE", help="base configuration, instead of the sweep file's")
    jobs = "runs at the same time (default: one per GPU; on SLURM all of them)"
    parser.add_argument("--jobs", type=int, metavar="N", help=jobs)
    parser.add_argument("--gpus", metavar="0,1", help="GPUs of this machine, or cpu (default: 0, or cpu without a GPU)")
    slurm = "run on a SLURM cluster, one GPU per run; KEY are sbatch options such as mem, cpus_per_task"
    parser.add_argument("--slurm", default="", metavar="PARTITION,time=MINUTES[,KEY=VALUE...]", help=slurm)
    parser.add_argument("--dry-run", action="store_true", help="print the commands of the runs that are left, and stop")
    parser.add_argument("--table", action="store_true", help="only make the tables of the runs that are complete")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="with --table: from a table.csv instead of the runs")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="override a configuration key in all rows")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError(f"--jobs: {arguments.jobs} should be at least 1")
    if arguments.gpus is not None and not re.fullmatch(r"cpu|\d+(,\d+)*", arguments.gpus):
        raise UserError(f"--gpus: {shown(arguments.gpus)} should be indices such as 0,1, or cpu")
    if arguments.gpus and arguments.slurm:
        raise UserError("--gpus: is for runs on this machine; leave it out with --slurm, which gives each run one GPU")
    if arguments.csv and not arguments.table:
        raise UserError("--csv: needs --table")
    return arguments


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    arguments = parse_arguments(words)
    sweep = read_sweep(arguments.sweep, arguments.overrides, base=arguments.base)
    if arguments.table:
        if not arguments.csv and (problems := mismatches(sweep.jobs())):
            for line in problems:
                print(f"error: {line}", file=sys.stderr)
            return 2
        return make_tables(sweep, arguments.csv)
    jobs = sweep.jobs()
    for job in jobs:
        job.check()
    left = [job for job in jobs if not job.is_complete()]
    slots = gpu_slots(arguments, len(left))
    if arguments.dry_run:
        for job, gpu in zip(left, cycle(slots), strict=False):
            print(shlex.join(["python", "main.py", *job.command(gpu)]))
        return 0
    print(f"{len(jobs)} runs in {sweep.output_dir}, {len(jobs) - len(left)} of them complete", flush=True)
    executor = build_executor(sweep.output_dir / "jobs", arguments.slurm)
    try:
        failed = Watch(executor, left, slots).run()
    except Stopped as stop:
        stop.hint = f"continue with: {shlex.join(['python', '-m', 'tools.sweep', *words])}"
        raise
    make_tables(sweep)
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return 2 if failed else 0


def mismatches(jobs: Iterable[Job]) -> list[str]:
    """A line for each complete run that was made with another configuration or seed than its row has now."""
    lines = []
    for job in jobs:
        if job.is_complete():
            try:
                job.check()
            except UserError as error:
                lines.append(str(error))
    return lines


def gpu_slots(arguments: argparse.Namespace, runs: int) -> list[str]:
    """The ``--gpu`` of each run that may go on at the same time; ``runs`` are left."""
    if arguments.slurm:
        gpus = ["0"] * max(1, runs)  # of the machine that SLURM gives
    elif arguments.gpus:
        gpus = arguments.gpus.split(",")
    else:
        gpus = ["0" if torch.cuda.is_available() else "cpu"]
    count = arguments.jobs or len(gpus)
    return [gpus[i % len(gpus)] for i in range(count)]


def make_tables(sweep: Sweep, source: Path | None = None) -> int:
    records = read_csv(source, sweep) if source else collect(sweep.jobs())
    if not records:
        print("no run is complete yet")
        return 0
    print(write_tables(sweep, records, sweep.output_dir))
    print(f"tables in {sweep.output_dir}: table.md, table.csv, table.json, table.tex")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
