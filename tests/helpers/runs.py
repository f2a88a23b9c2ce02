"""Small runs through the main program."""

import json
import os
import signal
from pathlib import Path

from engine import trainer as trainer_module
from main import main
from utils.run.cli import run_program

SETTINGS = {
    "sysu": ["all/1-shot", "all/10-shot", "indoor/1-shot", "indoor/10-shot"],
    "regdb": ["infrared_to_visible", "visible_to_infrared"],
    "llcm": ["infrared_to_visible", "visible_to_infrared"],
}
SMALL = {
    "backbone": "resnet10", "pretrained": "none", "image_size": "(64, 32)", "padding": "4", "p_size": "3",
    "k_size": "4", "num_epoch": "2", "lr_step": "[1]", "num_workers": "0", "mser_k1": "5", "mser_k2": "3",
}  # fmt: skip
# the keys of each network's method, for small runs
METHODS = {
    "mcja": {},
    "agw": {
        "model": "agw", "resize": "lanczos", "padding_value": "0", "sample_method": "cross_modality_uniform",
        "drop_last_stride": "true", "loss_cmr": "false", "loss_triplet": "weighted", "optimizer": "sgd", "lr": "0.02",
        "backbone_lr_factor": "0.1", "warmup_epochs": "1",
    },
}  # fmt: skip


def arguments(tmp_path: Path, dataset: str, root: Path, **changes: str) -> list[str]:
    """Command line of a small run. The number of identities is that of the data set."""
    cfg = tmp_path / f"{dataset}.yml"
    cfg.write_text(f"dataset: {dataset}\nprefix: small\n")
    if dataset == "sysu":
        num_id = sum(len((root / "exp" / f"{part}_id.txt").read_text().split(",")) for part in ("train", "val"))
    else:
        index = {"regdb": "train_visible_1", "llcm": "train_vis"}[dataset]
        lines = (root / f"idx/{index}.txt").read_text().split("\n")
        num_id = len({line.split("/")[1] for line in lines if line})
    keys = SMALL | {"data_root": str(root), "num_id": str(num_id), "output_dir": str(tmp_path / "runs")} | changes
    overrides = [word for pair in keys.items() for word in pair]
    return ["--cfg", str(cfg), "--gpu", "cpu", "--seed", "5", *overrides]


def run(tmp_path: Path, *arguments_: str) -> Path:
    """Run, and return the new run folder."""
    before = set(tmp_path.glob("runs/*/*"))
    assert main(list(arguments_)) == 0
    (folder,) = set(tmp_path.glob("runs/*/*")) - before
    return folder


def refused(capsys, tmp_path: Path, *words: str) -> str:
    assert run_program(lambda: main(list(words))) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("runs/*/*"))  # no incomplete run folder is left behind
    return error


def results(folder: Path) -> dict:
    """The results that must be equal in a continued run and in one that never stopped."""
    content = json.loads((folder / "results.json").read_text())
    return {name: content[name] for name in ("results", "trials", "last", "seed", "best_epoch")}


def stopped_run(tmp_path: Path, root: Path, monkeypatch, when: int, dataset: str = "regdb", **changes: str) -> Path:
    """The folder of a run that SIGTERM has stopped in its ``when``-th step."""

    def build(training, build=trainer_module.build_step):
        step, calls = build(training), []

        def interrupted(batch):
            calls.append(1)
            if len(calls) == when:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(batch)

        return interrupted

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "build_step", build)
        assert run_program(lambda: main(arguments(tmp_path, dataset, root, **changes))) == 143
    (folder,) = tmp_path.glob("runs/*/*")
    return folder
