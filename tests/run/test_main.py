"""Runs of the main program on a synthetic SYSU-MM01 and RegDB."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from configs import get_config
from data import build_dataset, build_sampler
from engine.evaluator import Evaluation, Evaluator
from main import Parts, main, trained_models
from models import MCJA
from tests.helpers.apex import StandInForApex
from tests.helpers.runs import SETTINGS, arguments, refused, run
from tools.score import main as score_main
from utils.results import TrialScore
from utils.run.cli import run_program

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def roots(sysu_root, regdb_root, llcm_root) -> dict[str, Path]:
    return {"sysu": sysu_root, "regdb": regdb_root, "llcm": llcm_root}


@pytest.mark.parametrize("dataset", SETTINGS)
def test_train_reload_and_score_again(dataset, roots, tmp_path):
    words = arguments(tmp_path, dataset, roots[dataset], mser="true")
    folder = run(tmp_path, *words, "save_features", "true", "--desc", "first run")
    assert folder.parent == tmp_path / "runs" / dataset
    assert folder.name.startswith("small_Time-")
    assert folder.name.endswith("_first-run")

    results = json.loads((folder / "results.json").read_text())
    names = SETTINGS[dataset] + [f"{name}/mser" for name in SETTINGS[dataset]]
    assert list(results["results"]) == names
    assert results["seed"] == 5
    assert results["config"]["dataset"] == dataset
    assert torch.__version__.startswith(results["versions"]["torch"])
    for name in names:
        trials = results["trials"][name]
        assert len(trials) == (1 if dataset == "regdb" else 10)
        for metric, value in results["results"][name].items():
            assert 0 <= value <= 100
            assert value == pytest.approx(np.mean([trial[metric] for trial in trials]))
    assert f"| {names[-1]} |" in (folder / "results.md").read_text()
    with (folder / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    present = {path.name for path in folder.iterdir()}
    assert present >= {"config.yml", "log.txt", "best.pth", "last.pth", "epoch_001.pth", "epoch_002.pth", "tensorboard"}
    log = (folder / "log.txt").read_text()
    assert "before training" in log
    assert f"{dataset}" in log
    assert re.search(rf"\n  {names[0]}: \d+ of \d+ queries are scored\n", log)

    # the same numbers from the checkpoint alone, with the run's own configuration
    again = run(
        tmp_path, "--cfg", str(folder / "config.yml"), "--gpu", "cpu", "test_only", "true", "resume",
        str(folder / "best.pth"), "test_batch_size", "7",
    )  # fmt: skip
    reloaded = json.loads((again / "results.json").read_text())
    for name in names:
        assert reloaded["results"][name] == pytest.approx(results["results"][name], abs=1e-6), name

    # and from the saved features, without a model
    score_main([
        str(folder / "features.npz"), "--dataset", dataset, "--data-root", str(roots[dataset]),
        "--k1", "5", "--k2", "3", "--json", str(tmp_path / "scored.json"), "--gpu", "cpu",
    ])  # fmt: skip
    scored = json.loads((tmp_path / "scored.json").read_text())
    for name in names:
        assert scored[name] == pytest.approx(results["results"][name], abs=1e-6), name


def test_re_ranking_without_the_extra_spectra(regdb_root, tmp_path):
    words = arguments(tmp_path, "regdb", regdb_root, num_epoch="0", mser_spectra="[original]", save_features="true")
    folder = run(tmp_path, *words)
    results = json.loads((folder / "results.json").read_text())["results"]
    assert "visible_to_infrared/mser" in results
    with np.load(folder / "features.npz") as arrays:
        assert {"red", "green", "blue"}.isdisjoint(arrays)
    words = [str(folder / "features.npz"), "--dataset", "regdb", "--data-root", str(regdb_root), "--gpu", "cpu"]
    words += ["--k1", "5", "--k2", "3", "--json", str(tmp_path / "scored.json")]
    assert run_program(lambda: score_main(words)) == 2  # by default with all spectra
    assert run_program(lambda: score_main([*words, "--spectra", "purple"])) == 2
    assert score_main([*words, "--spectra", "original"]) == 0
    scored = json.loads((tmp_path / "scored.json").read_text())
    for name, metrics in results.items():
        assert scored[name] == pytest.approx(metrics, abs=1e-6)


def test_the_best_and_the_last_model_are_tested(roots, tmp_path, monkeypatch):
    scores = iter([60.0, 40.0])  # of epochs 1 and 2
    monkeypatch.setattr(Evaluator, "select", lambda self, model: Evaluation(TrialScore(*[next(scores)] * 6)))
    folder = run(tmp_path, *arguments(tmp_path, "regdb", roots["regdb"], mser="false", lr="0.05"))
    results = json.loads((folder / "results.json").read_text())
    assert results["best_epoch"] == 1
    assert results["results"] != results["last"]["results"]
    for name, expected in (("best.pth", results["results"]), ("last.pth", results["last"]["results"])):
        words = ["--cfg", str(folder / "config.yml"), "--gpu", "cpu", "test_only", "true", "resume", str(folder / name)]
        assert json.loads((run(tmp_path, *words) / "results.json").read_text())["results"] == expected


def test_weights_that_apex_caches_are_not_tested_as_the_best(tmp_path, monkeypatch):
    (tmp_path / "x.yml").write_text("dataset: regdb\n")
    cfg = get_config(tmp_path / "x.yml", ["backbone", "resnet10", "pretrained", "none", "num_id", "3"])
    images, last, best = torch.rand(2, 3, 64, 32), *(MCJA(3, backbone="resnet10").eval() for _ in range(2))
    torch.save(best.state_dict(), tmp_path / "best.pth")
    apex = StandInForApex(monkeypatch)
    with torch.no_grad():
        expected = {"best": best(images), "last": last(images)}
        found = trained_models(cfg, Parts(last, None, SimpleNamespace(device=torch.device("cpu")), []), tmp_path)
        assert list(found) == ["best", "last"]
        assert apex.cache
        for name, model in found.items():
            assert torch.equal(model.eval()(images), expected[name])
    saved = torch.load(tmp_path / "last.pth", weights_only=True)
    assert all(torch.equal(value, saved[name]) for name, value in last.state_dict().items())


@pytest.mark.faults  # slow
def test_a_seed_repeats_a_run_whatever_the_workers(roots, tmp_path):
    words = arguments(tmp_path, "sysu", roots["sysu"], mser="false")
    states = []
    for workers in ("0", "2"):
        folder = run(tmp_path, *words, "num_workers", workers)
        states.append(torch.load(folder / "last.pth", weights_only=True))
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.mark.parametrize(
    "method", ["none", "cross_modality_random", "cross_modality_identity", "identity_cross_modality"]
)
def test_every_sampler_trains(method, roots, tmp_path):
    words = arguments(tmp_path, "regdb", roots["regdb"], num_epoch="1", mser="false", eval_interval="0")
    folder = run(tmp_path, *words, "sample_method", method, "batch_size", "12")
    assert not (folder / "best.pth").exists()  # never evaluated: the last model is tested
    assert json.loads((folder / "results.json").read_text())["results"].keys() == set(SETTINGS["regdb"])


@pytest.mark.parametrize("off", ["loss_id", "loss_cmr"])
def test_one_loss_alone(off, roots, tmp_path):
    words = arguments(tmp_path, "regdb", roots["regdb"], num_epoch="1", mser="false", soft_rank="builtin")
    folder = run(tmp_path, *words, off, "false")
    with (folder / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row[off] == ""
    assert row[{"loss_id": "loss_cmr", "loss_cmr": "loss_id"}[off]] != ""


def test_training_starts_from_a_checkpoint(roots, tmp_path):
    model = MCJA(99, backbone="resnet10")  # another number of identities: all weights but the classifier's are loaded
    torch.save(model.state_dict(), tmp_path / "start.pth")
    words = arguments(tmp_path, "regdb", roots["regdb"], num_epoch="0", mser="false")
    folder = run(tmp_path, *words, "resume", str(tmp_path / "start.pth"))
    last = torch.load(folder / "last.pth", weights_only=True)
    assert torch.equal(last["backbone.conv1.weight"], model.backbone.conv1.weight)
    assert "1 mismatched" in (folder / "log.txt").read_text()


def test_what_cannot_run_says_so_and_leaves_nothing(roots, tmp_path, capsys):
    words = arguments(tmp_path, "sysu", roots["sysu"])
    assert "no such configuration file" in refused(capsys, tmp_path, "--cfg", str(tmp_path / "absent.yml"))
    assert "data_root" in refused(capsys, tmp_path, *words, "data_root", str(tmp_path / "absent"))
    assert "num_id: 3" in refused(capsys, tmp_path, *words, "num_id", "3")
    assert "--seed" in refused(capsys, tmp_path, *words, "--seed", "-1")
    assert "no such checkpoint" in refused(capsys, tmp_path, *words, "resume", str(tmp_path / "absent.pth"))
    assert "p_size" in refused(capsys, tmp_path, *words, "p_size", "1000")
    (tmp_path / "file").write_text("")
    assert "output_dir" in refused(capsys, tmp_path, *words, "output_dir", str(tmp_path / "file"))


def plan_of(capsys, *words: str) -> dict[str, str]:
    """The lines of a dry run by their topics."""
    capsys.readouterr()
    assert main([*words, "--dry-run"]) == 0
    return dict(re.split(": +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("dataset", SETTINGS)
def test_a_dry_run_prints_the_plan_and_writes_nothing(dataset, roots, tmp_path, capsys):
    words = arguments(tmp_path, dataset, roots[dataset], cache="disk", num_epoch="3", start_eval="2")
    before = set(tmp_path.rglob("*"))
    found = plan_of(capsys, *words, "--desc", "a b")
    assert set(tmp_path.rglob("*")) == before
    cfg = get_config(tmp_path / f"{dataset}.yml", words[words.index("--seed") + 2 :])
    train_set, test_set = build_dataset(cfg, "train"), build_dataset(cfg, "test")
    sampler, lengths = build_sampler(cfg, train_set, seed=5), []
    for epoch in (1, 2, 3):
        sampler.set_epoch(epoch)
        lengths.append(len(sampler))
    assert found["steps"].startswith("3 epochs of ")
    assert found["steps"].endswith(f" batches of 12 images: {sum(lengths)} steps")
    for name, split in (("train split", train_set), ("test split", test_set)):
        assert found[name] == f"{split.name}: {split.counts} in {split.root}"
    assert found["learning rate"] == "0.00035 in epoch 1, 3.5e-05 in epochs 2 to 3"
    assert found["evaluations"].startswith("2, the first after epoch 2")
    assert found["run folder"] == str(tmp_path / "runs" / dataset / "small_Time-<date>_a-b")
    assert "without `cache disk`" in found["images"]
    assert found.keys() >= {"backbone", "model", "device", "losses", "training", "testing", "time", "memory", "disk"}


def test_a_dry_run_of_a_test(roots, tmp_path, capsys):
    torch.save(MCJA(3, backbone="resnet10").state_dict(), tmp_path / "model.pth")
    words = arguments(tmp_path, "sysu", roots["sysu"], test_only="true", resume=str(tmp_path / "model.pth"), num_id="3")
    found = plan_of(capsys, *words)
    assert found.keys().isdisjoint({"train split", "losses", "steps", "training", "evaluations", "disk"})
    assert found["backbone"] == f"resnet10, weights: {tmp_path / 'model.pth'}"


def test_a_dry_run_is_refused_as_a_run_is(roots, tmp_path, capsys):
    words = [*arguments(tmp_path, "sysu", roots["sysu"]), "--dry-run"]
    assert "data_root" in refused(capsys, tmp_path, *words, "data_root", str(tmp_path / "absent"))
    assert "no ImageNet weights" in refused(capsys, tmp_path, *words, "pretrained", "imagenet")
    assert "--dry-run: plans a new run" in refused(capsys, tmp_path, "--continue", str(tmp_path), "--dry-run")


def test_testing_needs_everything_but_the_classifier(roots, tmp_path, capsys):
    words = arguments(tmp_path, "sysu", roots["sysu"], test_only="true")
    state = MCJA(3, backbone="resnet10").state_dict()
    torch.save({name: value for name, value in state.items() if name != "bn_neck.weight"}, tmp_path / "lacking.pth")
    assert "lacks bn_neck.weight" in refused(capsys, tmp_path, *words, "resume", str(tmp_path / "lacking.pth"))
    torch.save(MCJA(3, backbone="resnet18").state_dict(), tmp_path / "other.pth")
    assert "architecture" in refused(
        capsys, tmp_path, *words, "backbone", "resnet34", "resume", str(tmp_path / "other.pth")
    )
    torch.save(state, tmp_path / "whole.pth")
    whole = ("resume", str(tmp_path / "whole.pth"))
    assert "another number of classes" in refused(capsys, tmp_path, *words, *whole)
    run(tmp_path, *words, *whole, "num_id", "3")


@pytest.mark.parametrize(("gpu", "words"), [("7", "there is no GPU 7"), ("first", "should be auto, cpu, or the index")])
def test_a_gpu_that_is_not_there_is_an_error(gpu, words, roots, tmp_path, capsys):
    line = arguments(tmp_path, "sysu", roots["sysu"])
    line[line.index("--gpu") + 1] = gpu
    if gpu == "7" and torch.cuda.device_count() > 7:
        pytest.skip("this machine has a GPU 7")
    assert words in refused(capsys, tmp_path, *line)


def test_unreadable_image_stops_the_run_with_its_path(roots, tmp_path, capsys):
    import shutil

    root = Path(shutil.copytree(roots["regdb"], tmp_path / "damaged"))
    broken = next(root.glob("Visible/*/*.bmp"))
    broken.write_bytes(b"nothing")
    words = arguments(tmp_path, "regdb", root, num_workers="2")
    assert run_program(lambda: main(words)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{broken}: cannot be decoded" in error


def test_as_a_program(tmp_path):
    command = [sys.executable, "main.py", "--cfg", str(tmp_path / "absent.yml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}/absent.yml: no such configuration file\n"


def test_the_saved_configuration_is_the_resolved_one(roots, tmp_path):
    words = arguments(tmp_path, "regdb", roots["regdb"], num_epoch="0", mser="false", eval_interval="0")
    folder = run(tmp_path, *words)
    saved = yaml.safe_load((folder / "config.yml").read_text())
    resolved = get_config(tmp_path / "regdb.yml", words[words.index("--seed") + 2 :])
    assert get_config(folder / "config.yml") == resolved
    assert saved.keys() == resolved.keys()
