"""tools.extract: the features of a split are those that a run saves; folders; what is refused in one line."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from models import MCJA
from tests.helpers.limits import within
from tests.helpers.runs import arguments, run
from tools import extract, score
from utils.features import SPECTRA, Features
from utils.run.cli import run_program

CFG = "dataset: sysu\nprefix: tiny\nbackbone: resnet10\nimage_size: [64, 32]\nnum_id: 5\nnum_workers: 0\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small network with random weights, and its configuration beside it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "config.yml").write_text(CFG)
    torch.manual_seed(0)
    torch.save(MCJA(5, backbone="resnet10").state_dict(), folder / "best.pth")
    return folder / "best.pth"


@pytest.fixture
def folder(tmp_path):
    """A visible and an infrared image, a hidden one, and a file that is no image."""
    root = tmp_path / "images"
    (root / "more").mkdir(parents=True)
    colours = np.random.default_rng(0).integers(0, 256, (80, 40, 3), dtype=np.uint8)
    Image.fromarray(colours).save(root / "b.png")
    Image.fromarray(colours[..., 0]).convert("RGB").save(root / "more" / "a.png")
    Image.fromarray(colours).save(root / ".hidden.png")
    (root / "broken.jpg").write_text("not an image")
    return root


def extracted(tmp_path, *words: object) -> Features:
    out = tmp_path / "features.npz"
    assert extract.main([*map(str, words), "--gpu", "cpu", "--out", str(out)]) == 0
    return Features.load(out)


def refused(capsys, *words: object) -> str:
    assert run_program(lambda: extract.main(list(map(str, words)))) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error.removeprefix("error: ").rstrip()


def test_a_split_has_the_features_that_a_run_saves(regdb_root, tmp_path):
    changes = {"num_epoch": "1", "save_features": "true", "test_batch_size": "16"}
    trained = run(tmp_path, *arguments(tmp_path, "regdb", regdb_root, **changes))
    extracted(tmp_path, "--checkpoint", trained / "best.pth", "--split", "test")
    with np.load(trained / "features.npz") as expected, np.load(tmp_path / "features.npz") as found:
        assert found.files == expected.files
        for name in expected.files:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    words = [str(tmp_path / "features.npz"), "--dataset", "regdb", "--data-root", str(regdb_root), "--gpu", "cpu"]
    assert score.main([*words, "--k1", "5", "--k2", "3", "--json", str(tmp_path / "scores.json")]) == 0
    results = json.loads((trained / "results.json").read_text())["results"]
    assert json.loads((tmp_path / "scores.json").read_text()) == results


def test_the_training_split_of_a_moved_data_set(checkpoint, sysu_root, tmp_path, capsys):
    identities = sum(len((sysu_root / f"exp/{part}_id.txt").read_text().split(",")) for part in ("train", "val"))
    weights = tmp_path / "a.pth"
    torch.save(MCJA(identities, backbone="resnet10").state_dict(), weights)
    words = ("--checkpoint", weights, "--cfg", checkpoint.parent / "config.yml", "--split", "train")
    features = extracted(tmp_path, *words, "--spectra", "original,red", "data_root", sysu_root, "num_id", identities)
    assert len(np.unique(features.identities)) == identities
    assert set(features.spectra) == {"original", "red"}
    assert "SYSU-MM01 train" in capsys.readouterr().out


def test_a_folder(checkpoint, folder, tmp_path, capsys):
    features = extracted(tmp_path, "--checkpoint", checkpoint, "--folder", folder)
    assert features.paths.tolist() == ["b.png", "more/a.png"]
    assert features.identities.tolist() == features.cameras.tolist() == [-1, -1]
    visible, infrared = np.stack([features.spectra[name] for name in SPECTRA], axis=1)
    assert len(np.unique(visible, axis=0)) == 4
    assert len(np.unique(infrared, axis=0)) == 1
    output = capsys.readouterr().out
    assert f"left out: {folder / 'broken.jpg'}: cannot be decoded" in output
    assert "1 visible and 1 infrared images (guessed" in output


@pytest.mark.parametrize(("modality", "distinct"), [("--visible", 4), ("--infrared", 1)])
def test_the_modality_of_a_folder_can_be_given(modality, distinct, checkpoint, folder, tmp_path):
    features = extracted(tmp_path, "--checkpoint", checkpoint, "--folder", folder, modality)
    assert len(np.unique([features.spectra[name][0] for name in SPECTRA], axis=0)) == distinct


def test_a_pipe_in_a_folder_is_left_out(checkpoint, folder, tmp_path, capsys):
    """To open it would be to wait for ever."""
    os.mkfifo(folder / "pipe.png")
    with within(60):
        features = extracted(tmp_path, "--checkpoint", checkpoint, "--folder", folder)
    assert features.paths.tolist() == ["b.png", "more/a.png"]
    assert f"left out: {folder / 'pipe.png'}: not a file\n" in capsys.readouterr().out


def test_folders_without_an_image(checkpoint, folder, tmp_path, capsys):
    out = tmp_path / "features.npz"
    words = ("--checkpoint", checkpoint, "--out", out, "--folder")
    shutil.rmtree(folder / "more")
    (folder / "b.png").unlink()
    problem = refused(capsys, *words, folder)
    assert problem.startswith(
        f"{folder}: none of its 1 images can be decoded; the first one is {folder / 'broken.jpg'}:"
    )
    (folder / "broken.jpg").unlink()
    assert refused(capsys, *words, folder).startswith(f"{folder}: no image in it")
    assert refused(capsys, *words, folder / "absent") == f"{folder / 'absent'}: no such folder"
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of the arguments --split --folder is required (see --help)"),
        (["--folder", ".", "--split", "test"], "argument --split: not allowed with argument --folder (see --help)"),
        (["--split", "test", "--visible"], "--infrared and --visible are for --folder"),
        (
            ["--split", "test", "--spectra", "original,ultraviolet"],
            "--spectra: 'original,ultraviolet' should be a list",
        ),
        (["--folder", ".", "--out", "absent/f.npz"], "--out: there is no folder absent"),
        (["--folder", ".", "--out", "."], "--out: . is a folder"),
        (["--folder", ".", "--gpu", "x"], "--gpu: 'x' should be auto, cpu, or the index of a GPU"),
        (["--split", "test", "data_root", "absent"], "absent"),
        (["--split", "test", "data_rot", "absent"], "data_rot: 'absent' (command line) sets an unknown key"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(words, message, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "--checkpoint", checkpoint, "--out", "f.npz", *words)
    assert not list(tmp_path.iterdir())


def test_bad_checkpoints_are_refused_in_one_line(checkpoint, folder, tmp_path, capsys):
    def problem(path):
        return refused(capsys, "--checkpoint", path, "--folder", folder, "--out", tmp_path / "f.npz")

    assert problem(tmp_path / "absent.pth") == f"{tmp_path / 'absent.pth'}: no such checkpoint"
    assert "a folder; name the checkpoint in it" in problem(tmp_path)
    text = tmp_path / "text.pth"
    text.write_text("weights\n")
    assert f"{tmp_path / 'config.yml'}: no such file; give the configuration" in problem(text)
    shutil.copy(checkpoint.parent / "config.yml", tmp_path)
    assert f"{text}: not a readable checkpoint" in problem(text)
    torch.save(MCJA(5, backbone="resnet18").state_dict(), text)
    assert "is it a checkpoint of this architecture" in problem(text)


def test_features_that_are_not_finite_are_not_saved(checkpoint, folder, tmp_path, capsys):
    model = MCJA(5, backbone="resnet10")
    torch.nn.init.constant_(model.bn_neck.running_var, 1e-30)
    torch.nn.init.constant_(model.bn_neck.weight, 1e38)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    words = ("--checkpoint", tmp_path / "a.pth", "--cfg", checkpoint.parent / "config.yml", "--folder", folder)
    assert "are not finite" in refused(capsys, *words, "--out", tmp_path / "f.npz")
    assert not (tmp_path / "f.npz").exists()
