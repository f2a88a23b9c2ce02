"""Sweeps: their files, their runs through submitit on this machine, and their tables."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from configs import get_config
from main import parse_arguments as main_arguments
from tests.helpers.limits import within
from tests.helpers.runs import arguments
from tools.sweep.__main__ import gpu_slots, main, parse_arguments
from tools.sweep.jobs import Running, Watch, build_executor
from tools.sweep.plan import folder_name, read_sweep
from tools.sweep.program import MainProgram
from tools.sweep.table import CSV_FIELDS, Record, Table, collect, csv_text, paired_difference, read_csv, write_tables
from utils.results import TrialScore
from utils.run.cli import run_program
from utils.run.errors import Stopped, UserError

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, **content) -> Path:
    path = folder / "sweep.yml"
    defaults = {"base": "configs/demo.yml", "output_dir": str(folder / "out"), "rows": {"all": {}}}
    path.write_text(yaml.safe_dump(defaults | content, sort_keys=False))
    return path


# --- the sweep file -------------------------------------------------------------------------------------------------


def test_jobs_are_rows_times_seeds_times_trials(tmp_path):
    rows = {"all": {}, "no MDA": {"mda_layers": [0, 0, 0, 0], "lr": 0.002}}
    path = write(tmp_path, rows=rows, seeds=[3, 5], trials=[1, 2], overrides={"mser": False})
    jobs = read_sweep(path, ["num_epoch", "2"]).jobs()
    assert [(job.row, job.seed, job.trial) for job in jobs][:4] == [
        ("all", 3, 1), ("no MDA", 3, 1), ("all", 3, 2), ("no MDA", 3, 2),
    ]  # fmt: skip
    assert len(jobs) == len({job.folder for job in jobs}) == 8
    cfg = get_config(jobs[1].base, jobs[1].words)
    assert (cfg.mda_layers, cfg.lr, cfg.mser, cfg.num_epoch, cfg.trial) == ([0, 0, 0, 0], 0.002, False, 2, 1)
    assert cfg.output_dir == str(tmp_path / "out/no-MDA/seed3-trial1")
    assert cfg.cache_dir == str(tmp_path / "out/cache")  # one cache for all runs
    assert jobs[1].command("cpu")[:6] == ["--cfg", "configs/demo.yml", "--gpu", "cpu", "--seed", "3"]


def test_patterns_name_the_checkpoint_of_each_run(tmp_path):
    for trial in (1, 2):
        (tmp_path / f"trial{trial}").mkdir()
        (tmp_path / f"trial{trial}" / "best.pth").touch()
    overrides = {"test_only": True, "resume": f"{tmp_path}/trial{{trial}}/best.pth"}
    jobs = read_sweep(write(tmp_path, trials=[1, 2], overrides=overrides)).jobs()
    assert [job.config().resume for job in jobs] == [f"{tmp_path}/trial{n}/best.pth" for n in (1, 2)]
    pattern = overrides | {"resume": f"{tmp_path}/*{{trial}}/*.pth"}
    (job,) = read_sweep(write(tmp_path, trials=[2], overrides=pattern)).jobs()
    assert job.begin("cpu")[-1] == f"{tmp_path}/trial2/best.pth"
    (job,) = read_sweep(write(tmp_path, overrides=overrides | {"resume": f"{tmp_path}/*/*.pth"})).jobs()
    with pytest.raises(UserError, match=r"matches 2 files, and should match one"):
        job.check()
    (job,) = read_sweep(write(tmp_path, overrides=overrides | {"resume": f"{tmp_path}/absent.pth"})).jobs()
    with pytest.raises(UserError, match=r"absent.pth: no such file"):
        job.check()


def test_complete_runs_do_not_need_their_checkpoint(tmp_path):
    overrides = {"test_only": True, "resume": f"{tmp_path}/*/best.pth"}
    (job,) = read_sweep(write(tmp_path, overrides=overrides)).jobs()
    run = job.folder / "sysu/run"
    run.mkdir(parents=True)
    (run / "config.yml").write_text(get_config(job.base, [*job.words, "resume", f"{tmp_path}/gone/best.pth"]).dump())
    (run / "run.json").write_text('{"seed": 8}')
    with pytest.raises(UserError, match="matches 0 files"):  # a test that was stopped begins again
        job.check()
    (run / "results.json").write_text("{}")
    job.check()
    (other,) = read_sweep(write(tmp_path, overrides=overrides | {"resume": f"{tmp_path}/*/last.pth"})).jobs()
    with pytest.raises(UserError, match="was made with another resume than"):
        other.check()


WRONG = [
    ("- 1", "expected lines of 'key: value'"),
    ("rows: {a: {}, b: {}, a: {lr: 1}}", "key 'a' is given twice"),
    ("base: x.yml\nrows: {a: {}}\nseeds: [[1]]", "seeds: [[1]] should be a list of different whole numbers"),
    ("rows: {a: {}}\nseed: [1]", "unknown key 'seed'"),
    ("base: x.yml\nrows: []", "rows should map a name to overrides"),
    (
        "base: x.yml\nrows: {a: {}}\nseeds: [1, 1]",
        "seeds: [1, 1] should be a list of different whole numbers between 0",
    ),
    ("base: x.yml\nrows: {a: {}}\ntrials: [11]", "trials: [11] should be"),
    ("base: x.yml\nrows: {a b: {}, a-b: {}}", "its folder would be 'a-b'"),
    ("rows: {a: {}}", "base: '' should name the configuration"),
    ("base: x.yml\nrows: {a: 3}", "sweep.yml, row 'a': 3 should map configuration keys to values"),
    ("base: x.yml\nrows: {a: false}", "sweep.yml, row 'a': False should map configuration keys to values"),
    ("base: x.yml\nrows: {a: {lr: 2024-01-01}}", "row 'a': 'lr': datetime.date(2024, 1, 1) is no value of a key"),
    ("base: x.yml\nrows: {a: {}}\noverrides: [lr]", "overrides: ['lr'] should map configuration keys to values"),
    ("base: x.yml\nrows: {2: {}}", "row 2: a name is printable text (quote it)"),
    ('base: x.yml\nrows: {"a\\tb": {}}', "a name is printable text"),
    ("base: 3\nrows: {a: {}}", "base: 3 should name the configuration"),
    ("base: ''\nrows: {a: {}}", "base: '' should name the configuration"),
    ("base: x.yml\noutput_dir: 5\nrows: {a: {}}", "output_dir: 5 should be a folder"),
    ("base: x.yml\nrows: {a: {output_dir: x}}", "row 'a': output_dir belongs to the whole sweep"),
    ("base: x.yml\noverrides: {output_dir: x}\nrows: {a: {}}", "overrides: output_dir belongs to the whole sweep"),
    ("base: x.yml\ntrials: [1]\nrows: {a: {trial: 2}}", "row 'a': trial: the sweep has trials"),
    ("base: x.yml\nrows: {a: {prefix: 'x{sed}'}}", "row 'a': 'prefix': {sed} is unknown; values may hold {seed}"),
    ("base: x.yml\noverrides: {resume: 'x{trial}'}\nrows: {a: {}}", "overrides: 'resume': {trial} is unknown"),
    ("base: configs/demo.yml\ntrials: [1]\nrows: {a: {}}", "row 'a': trials: SYSU-MM01 has one split only"),
    ("base: configs/demo.yml\nrows: {a: {lr: x}}", "sweep.yml, row 'a': lr: 'x' (sweep file) should be a number"),
    ("base: configs/demo.yml\nrows: {a: {lr: 0}}", "sweep.yml, row 'a': lr: 0.0 (sweep file) should be a finite"),
    ("rows: {a: [}", "not valid YAML"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_wrong_files_are_refused_in_one_line(text, message, tmp_path, capsys):
    path = tmp_path / "sweep.yml"
    path.write_text(text)
    assert run_program(lambda: main([str(path), "--dry-run"])) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


WRONG_ARGUMENTS = [
    ("--jobs 0", "at least 1"),
    ("--csv x.csv", "needs --table"),
    ("num_epoch", "has no value"),
    ("no_such_key 1", "row 'all': no_such_key: '1' (command line) sets an unknown key"),
    ("--gpus 0,x", "--gpus: '0,x' should be indices such as 0,1, or cpu"),
    ("--gpus 0 --slurm gpu,time=60", "--gpus: is for runs on this machine"),
    ("prefix x{trial}", "command line: 'prefix': {trial} is unknown"),
]


@pytest.mark.parametrize(("words", "message"), WRONG_ARGUMENTS)
def test_wrong_arguments_are_refused(words, message, tmp_path, capsys):
    assert run_program(lambda: main([str(write(tmp_path)), "--dry-run", *words.split()])) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_trial_is_set_by_the_sweep(tmp_path):
    with pytest.raises(UserError, match="command line: trial: the sweep has trials"):
        read_sweep(write(tmp_path, trials=[1]), ["trial", "2"])
    (job,) = read_sweep(write(tmp_path), ["trial", "2"]).jobs()
    assert job.config().trial == 2


@pytest.mark.parametrize("path", sorted((ROOT / "configs/sweeps").glob("*.yml")), ids=lambda path: path.stem)
def test_shipped_sweeps_are_valid(path):
    for job in read_sweep(path).jobs():
        if "resume" not in job.overrides:  # of checkpoints that another sweep trains
            job.check()


def test_a_dry_run_prints_the_commands_and_starts_nothing(tmp_path, capsys):
    assert main([str(write(tmp_path, seeds=[1, 2])), "--gpus", "cpu", "--dry-run", "num_epoch", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("python main.py --cfg configs/demo.yml --gpu cpu --seed 2 '--desc=all, seed 2' ")
    assert not (tmp_path / "out").exists()
    assert main([str(tmp_path / "sweep.yml"), "--gpus", "0,1", "--dry-run"]) == 0
    assert [line.split()[5] for line in capsys.readouterr().out.splitlines()] == ["0", "1"]


def test_a_name_that_begins_with_a_dash_is_no_option_of_the_run(tmp_path):
    (job,) = read_sweep(write(tmp_path, rows={"-x": {}})).jobs()
    found = main_arguments(job.begin("cpu"))
    assert (found.desc, found.seed) == ("-x, seed 8", 8)


def test_folder_names():
    assert folder_name("all − MDA (5)") == "all-MDA-5"
    assert folder_name("../x") == "x"
    assert len(folder_name("名" * 90).encode()) <= 100  # bytes, as file systems count


def test_slurm_options(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="--slurm: Could not detect"):
        build_executor(tmp_path, "gpu,time=60")
    for wrong in ("gpu,time", ",time=60", "gpu,time=60,mem=", "gpu,x,time=60"):
        with pytest.raises(UserError, match="PARTITION,time=MINUTES"):
            build_executor(tmp_path, wrong)
    for wrong in ("gpu", "gpu,time=1-00:00", "gpu,time=1.5"):
        with pytest.raises(UserError, match="time=MINUTES of a run, a whole number"):
            build_executor(tmp_path, wrong)
    (tmp_path / "srun").touch(mode=0o755)
    with pytest.raises(UserError, match="--slurm: Unknown argument 'colour'"):
        build_executor(tmp_path, "gpu,time=60,colour=red")
    executor = build_executor(tmp_path, "gpu,time=60,cpus-per-task=4,mail-type=END,mem=64GB")
    expected = {
        "partition": "gpu", "time": 60, "cpus_per_task": 4, "mail_type": "END", "mem": "64GB", "gpus_per_node": 1,
    }  # fmt: skip
    assert executor.parameters == expected
    assert executor._executor.max_num_timeout == 100  # how often a run may be queued again


def pretend_slurm(folder: Path, monkeypatch, *, sbatch: str) -> None:
    """Commands of a cluster that only note what they are asked for."""
    commands = {
        "srun": "",
        "sbatch": sbatch,
        "scancel": 'touch "$0.$1"',
        "sacct": """
            echo "JobID|State|NodeList"
            for job in 1 2 3; do
                if [ -e "${0%sacct}scancel.$job" ]; then state=CANCELLED; else state=PENDING; fi
                echo "$job|$state|"
            done""",
    }
    for name, script in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_jobs_on_slurm_are_submitted_together_and_cancelled_by_a_signal(tmp_path, monkeypatch):
    submit = 'n=$(($(cat "$0.n" 2>/dev/null || echo 0) + 1)); echo $n > "$0.n"; echo Submitted batch job $n'
    pretend_slurm(tmp_path, monkeypatch, sbatch=submit)
    jobs = read_sweep(write(tmp_path, seeds=[1, 2, 3])).jobs()
    watch = Watch(build_executor(tmp_path / "jobs", "gpu,time=60"), jobs, ["0"] * 3)
    monkeypatch.setattr(watch, "look", lambda job: job.job.seed == 1 and os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        watch.run()
    assert sorted(path.name for path in tmp_path.glob("scancel.*")) == ["scancel.1", "scancel.2", "scancel.3"]
    assert "#SBATCH --time=60" in next((tmp_path / "jobs").glob("*.sh")).read_text()


def test_what_sbatch_refuses_is_an_error(tmp_path, monkeypatch):
    pretend_slurm(tmp_path, monkeypatch, sbatch="echo invalid partition specified: gpu >&2; exit 1")
    watch = Watch(build_executor(tmp_path / "jobs", "gpu,time=60"), read_sweep(write(tmp_path)).jobs(), ["0"])
    with pytest.raises(UserError, match="sbatch: .*invalid partition specified: gpu"):
        watch.run()


def test_on_slurm_all_runs_are_submitted_at_once():
    assert gpu_slots(parse_arguments(["x.yml", "--slurm", "gpu,time=60"]), 3) == ["0"] * 3
    assert gpu_slots(parse_arguments(["x.yml", "--slurm", "gpu,time=60", "--jobs", "2"]), 3) == ["0"] * 2
    assert gpu_slots(parse_arguments(["x.yml", "--gpus", "1,3", "--jobs", "3"]), 9) == ["1", "3", "1"]


def test_a_job_whose_time_is_up_stops_its_run(tmp_path, monkeypatch):
    """SLURM signals every process of the job, and submitit then calls ``checkpoint`` in the signal's handler."""
    (tmp_path / "main.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def stop(*_):\n"
        "    pathlib.Path('saved').touch()\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "pathlib.Path('ready').touch()\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr("tools.sweep.program.ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    program = MainProgram(tmp_path / "out", ["--cfg", "x.yml"], "0", ["num_workers", "1"], slurm=True)

    def signal_all():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        program.process.send_signal(signal.SIGUSR2)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGUSR2)

    def checkpoint(*_):
        again = program.checkpoint().function
        assert (again.folder, again.arguments, again.gpu, again.changes, again.slurm) == (
            tmp_path / "out", ["--cfg", "x.yml"], "0", ["num_workers", "1"], True,
        )  # fmt: skip
        assert (tmp_path / "saved").exists()
        sys.exit()

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    signal.signal(signal.SIGUSR2, checkpoint)
    threading.Thread(target=signal_all, daemon=True).start()
    try:
        with within(30), pytest.raises(SystemExit):
            program()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert program.process.wait(10) == 143


def test_jobs_are_stopped_if_another_cannot_be_submitted(tmp_path, monkeypatch):
    submit = """
        n=$(($(cat "$0.n" 2>/dev/null || echo 0) + 1)); echo $n > "$0.n"
        if [ $n = 3 ]; then echo job submit limit >&2; exit 1; fi
        echo Submitted batch job $n"""
    pretend_slurm(tmp_path, monkeypatch, sbatch=submit)
    jobs = read_sweep(write(tmp_path, seeds=[1, 2, 3])).jobs()
    with pytest.raises(UserError, match="sbatch: .*job submit limit"):
        Watch(build_executor(tmp_path / "jobs", "gpu,time=60"), jobs, ["0"] * 3).run()
    assert sorted(path.name for path in tmp_path.glob("scancel.*")) == ["scancel.1", "scancel.2"]


def test_time_left(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 3600.0)
    watch = Watch(None, [None] * 10, ["0"] * 8)
    watch.waiting, watch.running = [], [Running(None, None, "0", started=0.0, epochs=100, first=0, epoch=50)]
    assert watch.time_left() == "; about 60 min left"  # one run, on one of the GPUs
    watch.running[0].first = 40  # continued: 10 epochs in an hour
    assert watch.time_left() == "; about 300 min left"
    watch.waiting = [None] * 15
    assert watch.time_left() == f"; about {15.5 * 600 / 8:.0f} min left"
    watch.seconds = [600.0]
    assert watch.time_left() == f"; about {15.5 * 10 / 8:.0f} min left"
    watch.waiting, watch.running = [], []
    assert watch.time_left() == ""


def test_a_run_is_continued_with_the_overrides_that_may_change(tmp_path):
    words = ["num_workers", "0", "lr", "0.1", "data_root", "/moved"]
    (job,) = read_sweep(write(tmp_path), words).jobs()
    run = job.folder / "sysu/run"
    run.mkdir(parents=True)
    (run / "run.json").touch()
    assert job.command("cpu")[0] == "--cfg"
    (run / "state_00000000.pth").touch()
    found = main_arguments(job.command("cpu"))
    assert found.continued == run
    given = dict(zip(found.overrides[::2], found.overrides[1::2], strict=True))
    assert given == {"num_workers": "0", "data_root": "/moved", "cache_dir": str(tmp_path / "out/cache")}


def test_waiting_is_for_a_lock_only(tmp_path):
    run = tmp_path / "sysu/run"
    run.mkdir(parents=True)
    (run / "run.json").touch()
    (run / ".lock").mkdir()
    with within(10), pytest.raises(UserError, match="not writable"):
        MainProgram(tmp_path, [], "0", [], slurm=True).wait_for_lock()


# --- tables ---------------------------------------------------------------------------------------------------------


def record(row: str, seed: int, rank1: float, setting: str = "all/1-shot") -> Record:
    return Record(row, seed, None, setting, TrialScore(rank1, 90.0, 95.0, 99.0, rank1 / 2, 10.0))


@pytest.fixture
def example(tmp_path):
    sweep = read_sweep(write(tmp_path, rows={"all": {}, "no CMR & 50 %": {"loss_cmr": False}}, seeds=[1, 2, 3]))
    records = [record("all", seed, value) for seed, value in ((1, 60.0), (2, 62.0), (3, 67.0))]
    return sweep, [*records, record("no CMR & 50 %", 1, 50.0), record("no CMR & 50 %", 3, 59.0)]


def test_statistics_are_those_computed_by_hand(example):
    table = Table(*example).json()
    first, second = table["rows"]
    rank1 = first["results"]["all/1-shot"]["rank1"]
    assert rank1["values"] == [60, 62, 67]
    assert rank1["mean"] == pytest.approx(63)
    assert rank1["std"] == pytest.approx(np.sqrt((9 + 1 + 16) / 2))
    assert (first["runs"], second["runs"], second["planned"]) == (3, 2, 3)
    assert second["overrides"] == {"loss_cmr": False}
    difference = second["difference"]["all/1-shot"]["rank1"]  # of seeds 1 and 3: -10 and -8
    assert difference["mean"] == pytest.approx(-9)
    half = 12.706205 * np.sqrt(2) / np.sqrt(2)  # Student's t with one degree of freedom, standard deviation sqrt(2)
    assert (difference["low"], difference["high"]) == pytest.approx((-9 - half, -9 + half), abs=1e-4)
    assert first["difference"] == {}


def test_markdown_says_which_rows_are_incomplete(example):
    text = Table(*example).markdown()
    assert "| all | 3 | 63.00 ± 3.61 | 31.50 ± 1.80 | 10.00 ± 0.00 |  |  |" in text
    assert "| no CMR & 50 % | 2 of 3 | 54.50 ± 6.36 |" in text
    assert "| -9.00 [-21.71, +3.71] | -4.50 [-10.85, +1.85] |" in text


def test_latex_is_escaped_and_rectangular(example):
    lines = Table(*example).latex().splitlines()
    rank1, mAP = (line for line in lines if "no CMR" in line)
    cells = r"& 2 of 3 & 54.50 $\pm$ 6.36 & $-$9.00 [$-$21.71, +3.71] \\"
    assert rank1 == r"{}\raggedright no CMR \& 50 \% " + cells
    assert r"& 27.25 $\pm$ 3.18 &" in mAP
    assert all(line.count("&") == 3 for line in lines if line.startswith("{}") and r"\&" not in line)
    assert {r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"} <= set(lines)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX")
def test_latex_compiles_and_fits_the_page(tmp_path):
    rows = {"[x] − y": {}, "* a_b ~ ^ \\ {50 %} <|>": {}, "CMR + weighted regularisation triplet, ± × → é " * 2: {}}
    sweep = read_sweep(write(tmp_path, rows=rows, seeds=[1, 2, 3]))
    records = [
        record(row, seed, 97.0 - 10 * seed * i, setting)
        for i, row in enumerate(rows)
        for seed in (1, 2, 3)
        for setting in ("all/10-shot/mser", "infrared_to_visible/mser")
    ]
    write_tables(sweep, records, tmp_path)
    text = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table.tex}\end{document}"
    (tmp_path / "page.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=60)
    if "booktabs.sty' not found" in ran.stdout:
        pytest.skip("no booktabs")
    assert ran.returncode == 0, ran.stdout[-2000:]
    overfull = [line for line in ran.stdout.splitlines() if line.startswith("Overfull") and "alignment" in line]
    assert not overfull


def test_the_kept_csv_gives_the_same_tables(example, tmp_path):
    sweep, records = example
    write_tables(sweep, records, tmp_path / "a")
    write_tables(sweep, read_csv(tmp_path / "a/table.csv", sweep), tmp_path / "b")
    for name in ("table.md", "table.csv", "table.json", "table.tex"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()
    assert json.loads((tmp_path / "a/table.json").read_text())["rows"][0]["name"] == "all"
    for text in ("row,seed\nall,1\n", csv_text([record("all", 1, float("nan"))])):
        (tmp_path / "other.csv").write_text(text)
        with pytest.raises(UserError, match=r"not a table.csv"):
            read_csv(tmp_path / "other.csv", sweep)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([record("no VIMC", 1, 5.0)], "row 'no VIMC' is not in .*sweep.yml"),
        ([record("all", 4, 5.0)], "seed 4 is not in"),
        ([record("all", 1, 5.0)._replace(trial=2)], "trial 2 is not in"),
        ([record("all", 1, 5.0)] * 2, "two lines of the same setting"),
    ],
)
def test_a_csv_of_another_sweep_is_refused(other, message, example, tmp_path):
    (tmp_path / "other.csv").write_text(csv_text(other))
    with pytest.raises(UserError, match=message):
        read_csv(tmp_path / "other.csv", example[0])


KEPT = {
    "components": ("all/1-shot", "all/1-shot/mser"),
    "losses": ("all/1-shot", "all/1-shot/mser"),
    "mser": ("all/1-shot/mser",),
    "methods_sysu": ("all/1-shot",),
    "methods_llcm": ("infrared_to_visible", "visible_to_infrared"),
}


@pytest.mark.parametrize("name", KEPT)
def test_the_kept_figures_give_the_tables_in_the_docs(name, tmp_path):
    sweep = read_sweep(ROOT / f"configs/sweeps/{name.split('_')[0]}.yml")
    text = write_tables(sweep, read_csv(ROOT / f"docs/evidence/{name}.csv", sweep), tmp_path)
    tables = [table for table in text.split("\n\n") if table.startswith(tuple(f"| {name} |" for name in KEPT[name]))]
    assert len(tables) == len(KEPT[name])
    for table in tables:
        assert table in (ROOT / "docs/ablations.md").read_text()


def test_tables_name_their_runs(tmp_path):
    sweep = read_sweep(
        write(tmp_path, seeds=[3], trials=[1, 2], overrides={"num_epoch": 4}), ["lr", "0.1"], base=Path("x_y.yml")
    )
    table = Table(sweep, [record("all", 3, 50.0)._replace(trial=1)])
    assert "Base configuration: x_y.yml; seeds 3; trials 1, 2." in table.markdown()
    assert r"Base configuration: x\_y.yml; seeds 3; trials 1, 2." in table.latex()
    content = table.json()
    found = [content[key] for key in ("base", "seeds", "trials", "overrides")]
    assert found == ["x_y.yml", [3], [1, 2], {"num_epoch": 4, "lr": "0.1"}]


def test_the_json_has_null_for_what_is_undefined(example, tmp_path):
    sweep, records = example
    write_tables(sweep, [one for one in records if one.seed == 1], tmp_path)
    content = json.loads((tmp_path / "table.json").read_text(), parse_constant=pytest.fail)
    first, second = content["rows"]
    assert first["results"]["all/1-shot"]["rank1"] == {"mean": 60, "std": None, "values": [60]}
    assert second["difference"]["all/1-shot"]["rank1"] == {"mean": -10, "low": None, "high": None, "pairs": 1}


@pytest.mark.parametrize("seeds", [[1, 2], [1]])
def test_pairs_are_seeds_or_the_trials_of_a_single_seed(seeds, tmp_path):
    sweep = read_sweep(write(tmp_path, rows={"all": {}, "b": {}}, seeds=seeds, trials=[1, 2]))
    gain = {(1, 1): 1.0, (1, 2): 5.0, (2, 1): 10.0}  # the second trial of seed 2 is not complete
    records = [record("all", seed, 50.0)._replace(trial=trial) for seed in seeds for trial in (1, 2)]
    records += [
        record("b", seed, 50 + value)._replace(trial=trial) for (seed, trial), value in gain.items() if seed in seeds
    ]
    found = Table(sweep, records).difference("b", "all/1-shot", "rank1")
    assert found == paired_difference([3.0, 10.0] if len(seeds) > 1 else [1.0, 5.0])


def test_a_single_pair_has_no_interval():
    assert paired_difference([]) is None
    found = paired_difference([2.0])
    assert (found.mean, found.pairs) == (2, 1)
    assert found.low is None


def test_trials_count_as_runs(tmp_path):
    sweep = read_sweep(write(tmp_path, trials=[1, 2]))
    records = [Record("all", 8, trial, "infrared_to_visible", TrialScore(*[10.0 * trial] * 6)) for trial in (1, 2)]
    (tmp_path / "table.csv").write_text(csv_text(records))
    found = read_csv(tmp_path / "table.csv", sweep)
    assert found == records
    assert Table(sweep, found).runs("all") == 2


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.faults
def test_a_sweep_that_is_stopped_goes_on(regdb_root, tmp_path, capsys):
    """Two rows × two seeds on this machine: stopped, continued, and equal to figures computed by hand."""
    words = arguments(tmp_path, "regdb", regdb_root, num_epoch="3", mser="false", eval_interval="0", log_period="1")
    base = Path(words[1])
    keys = dict(zip(words[6::2], words[7::2], strict=True))
    keys.pop("output_dir")
    overrides = {key: yaml.safe_load(value) if value in ("true", "false") else value for key, value in keys.items()}
    sweep_file = write(
        tmp_path, base=str(base), seeds=[1, 2], overrides=overrides, rows={"all": {}, "no CMR": {"loss_cmr": False}}
    )
    command = [str(sweep_file), "--gpus", "cpu", "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.sweep", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/*/seed1/*/*/epoch_001.pth")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "continue with: python -m tools.sweep" in error
    assert error.count("\n") == 1
    sweep = read_sweep(sweep_file)
    assert not all(job.is_complete() for job in sweep.jobs())
    runs = sorted(tmp_path.glob("out/*/*/*/*"))

    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "continued" in printed
    assert set(runs) <= set(tmp_path.glob("out/*/*/*/*"))
    jobs = sweep.jobs()
    assert all(len(list(job.folder.glob("*/*"))) == 1 for job in jobs)  # continued, not begun again
    found = {
        (job.row, job.seed): json.loads((job.run_folder() / "results.json").read_text())["results"] for job in jobs
    }
    table = json.loads((tmp_path / "out/table.json").read_text())
    for row in table["rows"]:
        for setting, metrics in row["results"].items():
            for metric, values in metrics.items():
                expected = [found[row["name"], seed][setting][metric] for seed in (1, 2)]
                assert values["values"] == expected
                assert values["mean"] == pytest.approx(sum(expected) / 2)
                assert values["std"] == pytest.approx(abs(expected[0] - expected[1]) / 2**0.5)
    for setting, metrics in table["rows"][1]["difference"].items():
        assert set(metrics) == set(CSV_FIELDS[4:])
        for metric, values in metrics.items():
            a, b = (found["no CMR", seed][setting][metric] - found["all", seed][setting][metric] for seed in (1, 2))
            half = 12.706205 * abs(a - b) / 2  # Student's t; the standard deviation is |a - b| / sqrt(2)
            expected = [(a + b) / 2, (a + b) / 2 - half, (a + b) / 2 + half]
            assert [values[key] for key in ("mean", "low", "high")] == pytest.approx(expected, rel=1e-5, abs=1e-9)
            assert values["pairs"] == 2
    with (tmp_path / "out/table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4 * 2  # runs × settings
    assert main(command) == 0  # everything is complete: nothing runs
    assert "4 runs in" in capsys.readouterr().out

    other = read_sweep(sweep_file, ["lr", "0.1"]).jobs()[0]
    with pytest.raises(UserError, match="row 'all': .* was made with another lr than the row has now"):
        other.check()
    conditions = jobs[3].run_folder() / "run.json"
    conditions.write_text(conditions.read_text().replace('"seed": 2', '"seed": 3'))
    capsys.readouterr()
    assert main([str(sweep_file), "--table", "wd", "0.1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert "was made with another wd, seed than the row has now" in lines[3]


@pytest.mark.faults  # slow
def test_what_fails_is_named_and_does_not_stop_the_others(regdb_root, tmp_path, capsys):
    words = arguments(tmp_path, "regdb", regdb_root, num_epoch="0", mser="false")
    keys = dict(zip(words[6::2], words[7::2], strict=True))
    keys.pop("output_dir")
    rows = {"broken": {"data_root": str(tmp_path / "absent")}, "works": {}}
    sweep_file = write(tmp_path, base=words[1], seeds=[1], overrides=keys, rows=rows)
    assert main([str(sweep_file), "--gpus", "cpu", "--jobs", "2"]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: broken, seed 1: failed: error: ")
    assert str(tmp_path / "absent") in printed.err
    assert len(collect(read_sweep(sweep_file).jobs())) == 2
    assert "| broken | 0 of 1 | – |" in printed.out


def test_arguments():
    found = parse_arguments(["x.yml", "--jobs", "3", "lr", "0.1", "--gpus", "0,1"])
    assert (found.jobs, found.gpus, found.overrides) == (3, "0,1", ["lr", "0.1"])
