"""tools.export: exported files give the project's features; the programs in docs/deploy.md run."""

import hashlib
import io
import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.augment import IMAGENET_MEAN, IMAGENET_STD, normalise
from data.datasets.images import ImageFiles
from data.folder import open_folder
from engine.extract import Extractor
from models import MCJA
from tools import export
from utils.features import SPECTRA
from utils.run.cli import run_program

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CPU, SIZE = torch.device("cpu"), (64, 32)
CFG = "dataset: sysu\nprefix: tiny\nbackbone: resnet10\nimage_size: [64, 32]\nnum_id: 5\nnum_workers: 0\n"
DEPLOY = Path(__file__).resolve().parents[2] / "docs" / "deploy.md"


@pytest.fixture(scope="module")
def model() -> MCJA:
    """A small network with random weights; every part of it changes the embeddings."""
    torch.manual_seed(0)
    model = MCJA(5, backbone="resnet10")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)  # those of the adapters are 0 at first
    return model.eval()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "config.yml").write_text(CFG)
    torch.save(model.state_dict(), folder / "best.pth")
    return folder / "best.pth"


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory) -> tuple[Path, str]:
    """A folder with mcja.onnx and mcja.pt2, and what the tool printed."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.StringIO())
        words = ["--checkpoint", checkpoint, "--onnx", folder / "mcja.onnx", "--pt2", folder / "mcja.pt2"]
        assert export.main(list(map(str, words))) == 0
        return folder, sys.stdout.getvalue()


def programs() -> list[str]:
    """The Python programs of docs/deploy.md: ONNX, torch.export."""
    return re.findall(r"^```python\n(.*?)^```$", DEPLOY.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def refused(capsys, *words: object) -> str:
    assert run_program(lambda: export.main(list(map(str, words)))) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error.removeprefix("error: ").rstrip()


def test_a_deployed_network_has_the_projects_preprocessing(model):
    images = export.random_images(4, SIZE)
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model(normalise(images)))
        found = export.Deployed(model)(images)
    assert torch.equal(found, expected)
    assert found.std(dim=0).max() > 0.01  # not the same for every image


def test_the_files_are_written_and_the_differences_printed(exported):
    folder, output = exported
    assert sorted(path.name for path in folder.iterdir()) == ["mcja.onnx", "mcja.pt2"]  # no external data
    assert len(output.splitlines()) == 2
    for line, name in zip(output.splitlines(), ("mcja.onnx", "mcja.pt2"), strict=True):
        found = re.fullmatch(rf".*{name}: [\d.]+ MB, largest difference from PyTorch (\S+) \(batches of .*\)", line)
        assert float(found[1]) < 1e-4


def test_metadata_and_names(exported, checkpoint):
    folder, _ = exported
    session = onnxruntime.InferenceSession(folder / "mcja.onnx")
    (images,), (embeddings,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 3, *SIZE])
    assert (embeddings.name, embeddings.type, embeddings.shape) == ("embeddings", "tensor(float)", ["batch", 512])
    files = {"metadata.json": ""}
    torch.export.load(folder / "mcja.pt2", extra_files=files)
    text = session.get_modelmeta().custom_metadata_map["metadata.json"]
    assert files["metadata.json"] in (text, text.encode())
    metadata = json.loads(text)
    assert metadata["image_size"] == list(SIZE)
    assert metadata["mean"] == list(IMAGENET_MEAN)
    assert metadata["std"] == list(IMAGENET_STD)
    assert metadata["embedding_size"] == 512
    assert metadata["checkpoint"] == "best.pth"
    assert metadata["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    documented = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", DEPLOY.read_text(), re.MULTILINE))))
    assert set(metadata) == documented


def test_no_paths_of_the_machine_are_in_the_files(exported):
    folder, _ = exported
    for name in ("mcja.onnx", "mcja.pt2"):
        assert str(Path(export.__file__).parents[1]).encode() not in (folder / name).read_bytes()


def test_the_onnx_program_of_the_docs(exported, model, sysu_root, monkeypatch, capsys, tmp_path):
    """Its embeddings are the features of the project, and it prints their similarities."""
    program = programs()[0]
    assert len(program.splitlines()) <= 20
    (tmp_path / "similarities.py").write_text(program)
    for number, path in enumerate(sorted((sysu_root / "cam1").rglob("*.jpg"))[:7]):
        Image.open(path).resize((70, 150)).save(tmp_path / f"{number}.png")  # another size than the network's
    images, _ = open_folder(tmp_path, num_workers=0)
    paths = [str(tmp_path / path) for path in images.paths]
    monkeypatch.setattr(sys, "argv", ["similarities.py", str(exported[0] / "mcja.onnx"), *paths])
    embeddings = runpy.run_path(str(tmp_path / "similarities.py"))["embeddings"]
    features = Extractor(images, ImageFiles(images, SIZE), CPU, batch_size=32, num_workers=0)(model)
    expected = features.normalised(SPECTRA[:1], np.arange(7))[0].numpy()
    np.testing.assert_allclose(embeddings, expected, atol=1e-4)
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in table] == paths
    printed = np.array([row[1:] for row in table], dtype=float)
    np.testing.assert_allclose(printed, expected @ expected.T, atol=1e-3)


def test_the_torch_program_of_the_docs(exported, model, monkeypatch, tmp_path):
    (tmp_path / "embed.py").write_text(programs()[1])
    monkeypatch.chdir(exported[0])
    found = runpy.run_path(str(tmp_path / "embed.py"))
    with torch.inference_mode():
        expected = export.Deployed(model)(found["images"])
    torch.testing.assert_close(found["embeddings"], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("error", [0.002, float("nan")])
def test_a_file_that_differs_from_pytorch_is_not_written(error, checkpoint, tmp_path, monkeypatch, capsys):
    to_pt2 = export.to_pt2

    def wrong(*arguments):
        content, run = to_pt2(*arguments)
        return content, lambda images: run(images) + error

    monkeypatch.setattr(export, "to_pt2", wrong)
    problem = refused(capsys, "--checkpoint", checkpoint, "--pt2", tmp_path / "a.pt2")
    assert re.search(r"a\.pt2: not written: largest difference from PyTorch (2\.0e-03|nan) ", problem)
    assert not list(tmp_path.iterdir())


def test_every_checked_batch_counts(model):
    deployed = export.Deployed(model)

    def wrong(images):
        return deployed(images) + (len(images) == 3) * 0.5

    assert export.largest_difference(deployed, deployed, SIZE) == 0
    assert export.largest_difference(deployed, wrong, SIZE) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to write; give --onnx FILE.onnx, --pt2 FILE.pt2, or both"),
        (["--onnx", "absent/a.onnx"], "--onnx: there is no folder absent"),
        (["--onnx", "a.onnx", "--pt2", "absent/a.pt2"], "--pt2: there is no folder absent"),
        (["--onnx", "a.pt2"], "--onnx: a.pt2 should end in .onnx"),
        (["--pt2", "a.pt2", "--cfg", "absent.yml"], "absent.yml: no such file; give the configuration"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(words, message, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "--checkpoint", checkpoint, *words)
    assert not list(tmp_path.iterdir())


def test_bad_checkpoints_are_refused_in_one_line(checkpoint, tmp_path, capsys):
    def problem(path, *words):
        return refused(capsys, "--checkpoint", path, "--onnx", tmp_path / "a.onnx", *words)

    assert problem(tmp_path / "absent.pth") == f"{tmp_path / 'absent.pth'}: no such checkpoint"
    text = tmp_path / "text.pth"
    text.write_text("weights\n")
    assert f"{tmp_path / 'config.yml'}: no such file; give the configuration" in problem(text)
    assert f"{text}: not a readable checkpoint" in problem(text, "--cfg", checkpoint.parent / "config.yml")


def test_a_folder_instead_of_a_file_is_refused(checkpoint, tmp_path, capsys):
    (tmp_path / "a.pt2").mkdir()
    assert f"{tmp_path / 'a.pt2'}: " in refused(capsys, "--checkpoint", checkpoint, "--pt2", tmp_path / "a.pt2")


def test_missing_packages_are_named(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SystemExit) as stop:
        export.main(["--checkpoint", str(checkpoint), "--onnx", str(tmp_path / "a.onnx")])
    assert stop.value.code == 2
    expected = "error: onnxruntime is not installed; run: pip install -r requirements-tools.txt\n"
    assert capsys.readouterr().err == expected
