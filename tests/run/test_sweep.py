"""Sweeps: their files, their runs through submitit on this machine, and their tables."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from configs import get_config
from tests.helpers.runs import arguments
from tools.sweep.__main__ import main, parse_arguments
from tools.sweep.jobs import build_executor
from tools.sweep.plan import folder_name, read_sweep
from tools.sweep.table import Record, Table, collect, csv_text, paired_difference, read_csv, write_tables
from utils.results import TrialScore
from utils.run.cli import run_program
from utils.run.errors import UserError

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
    assert [get_config(job.base, job.words).resume for job in jobs] == [f"{tmp_path}/trial{n}/best.pth" for n in (1, 2)]
    jobs = read_sweep(
        write(tmp_path, trials=[2], overrides=overrides | {"resume": f"{tmp_path}/*{{trial}}/*.pth"})
    ).jobs()
    assert get_config(jobs[0].base, jobs[0].words).resume == f"{tmp_path}/trial2/best.pth"
    (job,) = read_sweep(write(tmp_path, overrides=overrides | {"resume": f"{tmp_path}/*/*.pth"})).jobs()
    with pytest.raises(UserError, match=r"matches 2 files, and should match one"):
        job.check()


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
    ("rows: {a: {}}", "base should name the configuration"),
    ("base: x.yml\nrows: {a: 3}", "3 should map configuration keys to values"),
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


@pytest.mark.parametrize("words", [["--jobs", "0"], ["--csv", "x.csv"], ["num_epoch"], ["no_such_key", "1"]])
def test_wrong_arguments_are_refused(words, tmp_path, capsys):
    assert run_program(lambda: main([str(write(tmp_path)), "--dry-run", *words])) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("path", sorted((ROOT / "configs/sweeps").glob("*.yml")), ids=lambda path: path.stem)
def test_shipped_sweeps_are_valid(path):
    for job in read_sweep(path).jobs():
        if "resume" not in job.overrides:  # of checkpoints that another sweep trains
            get_config(ROOT / job.base, job.words)


def test_a_dry_run_prints_the_commands_and_starts_nothing(tmp_path, capsys):
    assert main([str(write(tmp_path, seeds=[1, 2])), "--gpus", "cpu", "--dry-run", "num_epoch", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("python main.py --cfg configs/demo.yml --gpu cpu --seed 2 --desc 'all, seed 2' ")
    assert not (tmp_path / "out").exists()


def test_folder_names():
    assert folder_name("all − MDA (5)") == "all-MDA-5"
    assert folder_name("../x") == "x"


def test_slurm_without_a_cluster_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="--slurm: "):
        build_executor(tmp_path, "gpu")
    with pytest.raises(UserError, match="PARTITION"):
        build_executor(tmp_path, "gpu,time")


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
    assert second["overrides"] == {"loss_cmr": "false"}
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
    assert lines[0] == r"\begin{tabular}{lrr}"
    (row,) = (line for line in lines if "no CMR" in line)
    assert row == r"no CMR \& 50 \% (2 of 3 runs) & 54.50 $\pm$ 6.36 & 27.25 $\pm$ 3.18 \\"
    assert {r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"} <= set(lines)


def test_the_kept_csv_gives_the_same_tables(example, tmp_path):
    sweep, records = example
    write_tables(sweep, records, tmp_path / "a")
    write_tables(sweep, read_csv(tmp_path / "a/table.csv"), tmp_path / "b")
    for name in ("table.md", "table.csv", "table.json", "table.tex"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()
    assert json.loads((tmp_path / "a/table.json").read_text())["rows"][0]["name"] == "all"
    (tmp_path / "other.csv").write_text("row,seed\nall,1\n")
    with pytest.raises(UserError, match=r"not a table.csv"):
        read_csv(tmp_path / "other.csv")


def test_a_single_pair_has_no_interval():
    assert paired_difference([]) is None
    found = paired_difference([2.0])
    assert (found.mean, found.pairs) == (2, 1)
    assert np.isnan(found.low)


def test_trials_count_as_runs():
    records = [Record("all", 8, trial, "infrared_to_visible", TrialScore(*[10.0 * trial] * 6)) for trial in (1, 2)]
    assert csv_text(records).splitlines()[1].startswith("all,8,1,infrared_to_visible,10.0")


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
    with (tmp_path / "out/table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4 * 2  # runs × settings
    assert main(command) == 0  # everything is complete: nothing runs
    assert "4 runs in" in capsys.readouterr().out

    other = read_sweep(sweep_file, ["lr", "0.1"]).jobs()[0]
    with pytest.raises(UserError, match="was made with another lr than row 'all' has now"):
        other.check()


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
