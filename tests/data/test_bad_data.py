"""Broken folders, lists and images of a data set are refused in one line, or left out if that is configured."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from data.datasets import LLCM, SYSU, RegDB
from data.datasets.images import ImageFiles, read_image
from data.unreadable import find_unreadable
from main import main
from tests.helpers.fuzzing import why
from tests.helpers.permutations import MATLAB_FORMS, rows
from tests.helpers.runs import arguments, refused, run
from tests.helpers.users import ordinary_user
from utils.run.cli import run_program
from utils.run.errors import UnreadableImage, UserError
from utils.run.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
SIZE = (48, 24)
CAMERAS = SYSU.cameras_of()


# --- permissions, links, missing files ------------------------------------------------------------------------------


@pytest.fixture
def guarded(sysu_root) -> Iterator[Path]:
    """A data set that every user can read; permissions are restored afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(shutil.copytree(sysu_root, Path(folder) / "sysu"))
        for path in (root, *root.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        SYSU(root, "train")  # import modules now: the other user may not be able to read Python's folder
        yield root
        for path in (root, *root.glob("*"), *root.glob("*/*"), *root.glob("*/*/*")):
            path.chmod(0o755)


@pytest.mark.parametrize("what", ["", "exp", "cam4", "cam4/*", "exp/train_id.txt", "exp/rand_perm_cam.mat"])
def test_folders_and_lists_without_permission(what, guarded):
    path = next(path for path in sorted(guarded.glob(what) if what else [guarded]))
    chosen = [path] if "*" not in what else sorted(guarded.glob(what))
    for one in chosen:
        one.chmod(0)
    with ordinary_user():
        message = why(SYSU, guarded, "train")
    assert "Permission denied" in message
    assert any(str(one) in message for one in chosen)


def test_images_without_permission(guarded):
    path = guarded / SYSU(guarded, "train").paths[0]
    path.chmod(0)
    with ordinary_user():
        assert f"{path}: cannot be decoded as an image (Permission denied)" in why(read_image, path, SIZE)


def put_file_for_folder(root: Path) -> Path:
    shutil.rmtree(root / "cam2")
    (root / "cam2").write_text("")
    return root / "cam2"


def put_folder_for_list(root: Path) -> Path:
    (root / "exp/test_id.txt").unlink()
    (root / "exp/test_id.txt").mkdir()
    return root / "exp/test_id.txt"


def put_broken_link(root: Path) -> Path:
    path = root / SYSU(root, "test").paths[0]
    path.unlink()
    path.symlink_to(root / "absent.jpg")
    return path


def put_second_name(root: Path) -> Path:
    path = root / SYSU(root, "test").paths[0]
    shutil.copy(path, path.with_name(f"{int(path.stem)}.jpg"))
    return path.parent


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (put_file_for_folder, "not a folder"),
        (put_folder_for_list, "not a file; expected: "),
        (put_broken_link, "no such image"),
        (put_second_name, "are the same instance; remove one"),
    ],
)
def test_files_of_the_wrong_kind(damage, words, sysu):
    path = damage(sysu)
    message = why(SYSU, sysu, "test")
    assert str(path) in message
    assert words in message


@pytest.mark.parametrize("dataset", [SYSU, RegDB, LLCM])
def test_links_are_followed(dataset, sysu, regdb, llcm, tmp_path):
    root = {SYSU: sysu, RegDB: regdb, LLCM: llcm}[dataset]
    expected = dataset(root, "train").samples
    path = root / expected[0].path
    elsewhere = tmp_path / "elsewhere"
    shutil.move(path.parent, elsewhere)
    path.parent.symlink_to(elsewhere)
    other = root / expected[-1].path
    shutil.move(other, elsewhere / "moved")
    other.symlink_to(elsewhere / "moved")
    assert dataset(root, "train").samples == expected


def test_everything_that_is_missing_is_found_at_once(sysu):
    shutil.rmtree(sysu / "cam1")
    shutil.rmtree(sysu / "cam6")
    (sysu / "exp/val_id.txt").unlink()
    (sysu / "exp/rand_perm_cam.mat").unlink()
    with pytest.raises(UserError) as error:
        SYSU(sysu, "train")
    found = error.value.messages
    assert len(found) == 4
    assert str(error.value) == f"{found[0]} (and 3 more; python -m tools.doctor lists them)"
    for name in ("cam1", "cam6", "exp/val_id.txt", "exp/rand_perm_cam.mat"):
        assert sum(one.startswith(f"{sysu / name}: ") for one in found) == 1


# --- through the main program ---------------------------------------------------------------------------------------


def only_visible(root: Path) -> None:
    """Remove all infrared images of the test identities."""
    for camera in (3, 6):
        for identity in (root / "exp/test_id.txt").read_text().strip().split(","):
            shutil.rmtree(root / f"cam{camera}/{int(identity):04d}", ignore_errors=True)
    keep_permutations(root, lambda camera, identity: (root / f"cam{camera}/{identity:04d}").is_dir())


def never_indoors(root: Path) -> None:
    tested = {int(word) for word in (root / "exp/test_id.txt").read_text().split(",")}
    keep_permutations(root, lambda camera, identity: camera not in (1, 2) or identity not in tested)


def keep_permutations(root: Path, keep: Callable[[int, int], bool]) -> None:
    path = root / "exp/rand_perm_cam.mat"
    content = scipy.io.loadmat(path)["rand_perm_cam"]
    for camera, cell in zip(CAMERAS, content.ravel(), strict=True):
        for identity in range(1, len(cell) + 1):
            if not keep(camera, identity):
                cell[identity - 1, 0] = np.zeros((10, 0))
    scipy.io.savemat(path, {"rand_perm_cam": content})


def more_instances(root: Path) -> None:
    path = root / "exp/rand_perm_cam.mat"
    content = scipy.io.loadmat(path)["rand_perm_cam"]
    for cell in content.ravel():
        for identity in range(len(cell)):
            images = cell[identity, 0].shape[1]
            cell[identity, 0] = rows(images + 1) if images else cell[identity, 0]
    scipy.io.savemat(path, {"rand_perm_cam": content})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: shutil.rmtree(root), "no such folder; set data_root"),
        (put_file_for_folder, "not a folder"),
        (put_folder_for_list, "not a file"),
        (lambda root: (root / "exp/train_id.txt").write_text("1;2"), "is not an identity number"),
        (lambda root: (root / "exp/train_id.txt").write_text("9" * 5000), "is not an identity number"),
        (lambda root: (root / "exp/train_id.txt").write_bytes(b"\xff\xfe1\0"), "cannot be read as text"),
        (lambda root: (root / "exp/rand_perm_cam.mat").write_bytes(MATLAB_FORMS["plain"][:999]), "MATLAB"),
        (more_instances, "no such image, but exp/rand_perm_cam.mat lists it"),
        (only_visible, "no query"),
        (never_indoors, "setting indoor/1-shot, trial 1: the gallery has no image"),
    ],
)
def test_bad_data_leaves_nothing_behind(damage, words, sysu, tmp_path, capsys):
    command = arguments(tmp_path, "sysu", sysu, cache="disk")
    damage(sysu)
    assert words in refused(capsys, tmp_path, *command)
    assert not (tmp_path / "runs").exists()


def first_of(root: Path, split: str) -> Path:
    return root / RegDB(root, split).paths[0]


def fails(*command: str) -> str:
    """What the program prints. It runs in its own process, so that its loader processes end with it."""
    done = subprocess.run([sys.executable, "main.py", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize(
    ("split", "workers"),
    [("train", "0"), *(pytest.param(split, "2", marks=pytest.mark.faults) for split in ("train", "test"))],  # slow
)
def test_an_unreadable_image_stops_the_run(split, workers, regdb, tmp_path):
    path = first_of(regdb, split)
    path.write_bytes(path.read_bytes()[:200])
    command = arguments(tmp_path, "regdb", regdb, num_workers=workers, mser="false", eval_interval="0")
    message = fails(*command)
    assert message.startswith(f"error: {path}: cannot be decoded as an image")
    advice = "; replace it, or set skip_unreadable true\n" if split == "train" else "; replace it\n"
    assert message.endswith(advice)
    assert not list(tmp_path.glob("runs/*/*"))


@pytest.mark.parametrize(
    ("error", "kept", "stays"),
    [
        (UnreadableImage, "log.txt", False),
        (UnreadableImage, "state_00000000.pth", False),
        (UnreadableImage, "state_00000007.pth", True),
        (UnreadableImage, "epoch_001.pth", True),
        (UserError, "log.txt", False),
        (UserError, "state_00000000.pth", True),
    ],
)
def test_only_a_run_without_a_model_is_removed(error, kept, stays, tmp_path):
    """A run that diverged in its first epoch is kept: its curves show the cause."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / kept).write_text("")
    run = RunFolder.create(folder, config="", command="", seed=0, device="")
    with pytest.raises(error), run.removed_if_nothing_was_trained():
        raise error("x.jpg: cannot be decoded")
    assert folder.exists() == stays


@pytest.mark.faults  # slow
def test_an_unreadable_image_leaves_no_half_cache(regdb, tmp_path):
    path = first_of(regdb, "train")
    path.write_bytes(b"")
    message = fails(*arguments(tmp_path, "regdb", regdb, num_workers="2", cache="disk"))
    assert message.startswith(f"error: {path}: cannot be decoded")
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == []


# --- skip_unreadable ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["none", pytest.param("disk", marks=pytest.mark.faults)])
def test_unreadable_training_images_are_left_out_and_named(cache, regdb, tmp_path):
    whole = RegDB(regdb, "train")
    command = arguments(
        tmp_path, "regdb", regdb, num_epoch="1", mser="false", cache=cache, skip_unreadable="true",
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    before = run(tmp_path, *command)
    assert "left out" not in (before / "log.txt").read_text()

    broken = [whole.paths[position] for position in (0, 7)]
    (regdb / broken[0]).write_bytes(b"")
    (regdb / broken[1]).write_bytes((regdb / broken[1]).read_bytes()[:100])
    after = run(tmp_path, *command)
    log = (after / "log.txt").read_text()
    assert "left out because they cannot be read: 2 images" in log
    for path in broken:
        assert f"{regdb / path}: cannot be decoded" in log
    visible, infrared = (~whole.infrared).sum() - 2, whole.infrared.sum()
    assert f"RegDB train: {whole.num_identities} identities, {visible} visible and {infrared} infrared" in log
    states = [torch.load(folder / "last.pth", weights_only=True) for folder in (before, after)]
    assert any(not torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_what_is_left_out_changes_nothing_else(regdb):
    dataset = RegDB(regdb, "train")
    (regdb / dataset.paths[3]).write_bytes(b"")
    reasons = find_unreadable(dataset, SIZE, num_workers=0)
    assert list(reasons) == [3]
    assert reasons == find_unreadable(dataset, SIZE, num_workers=2)
    rest = dataset.without(reasons)
    assert rest.samples == dataset.samples[:3] + dataset.samples[4:]
    assert [len(values) for values in (rest.paths, rest.labels, rest.infrared)] == [len(dataset) - 1] * 3
    assert rest.labels.tolist() == [sample.label for sample in rest.samples]
    for position in (0, 3, len(rest) - 1):
        expected = read_image(regdb / rest.samples[position].path, SIZE)
        np.testing.assert_array_equal(ImageFiles(rest, SIZE).take([position])[0], expected)


@pytest.mark.parametrize("kind", ["", "visible ", "infrared "])
def test_an_identity_must_keep_both_modalities(kind, regdb, tmp_path, capsys):
    dataset = RegDB(regdb, "train")
    identity = int(dataset.identities[0])
    for sample in dataset.samples:
        if sample.identity == identity and (not kind or (sample.camera == 3) == (kind == "infrared ")):
            (regdb / sample.path).write_bytes(b"")
    command = arguments(tmp_path, "regdb", regdb, skip_unreadable="true")
    message = refused(capsys, tmp_path, *command)
    assert f"skip_unreadable would leave no {kind}image of identity {identity} (" in message


def test_test_images_are_never_left_out(regdb, tmp_path, capsys):
    path = first_of(regdb, "test")
    path.write_bytes(b"")
    command = arguments(tmp_path, "regdb", regdb, skip_unreadable="true", mser="false")
    assert run_program(lambda: main(command)) == 2
    assert f"{path}: cannot be decoded" in capsys.readouterr().err
