"""The synthetic data: layouts, determinism, and what may and may not tell one identity from another."""

import hashlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tools.make_synthetic import main
from tools.synthetic import layout, make_synthetic
from tools.synthetic import render as render_module
from tools.synthetic.camera import make_camera
from tools.synthetic.person import draw_people, draw_person
from tools.synthetic.render import image_rng, render
from tools.synthetic.tones import Region, luminance
from utils.run.cli import run_program

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE = (48, 24)
SMALL = {"images_per_camera": 2, "size": SIZE}


@pytest.fixture(scope="module")
def sysu(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sysu") / "set"
    make_synthetic("sysu", root, identities=12, seed=3, **SMALL)
    return root


@pytest.fixture(scope="module")
def regdb(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("regdb") / "set"
    make_synthetic("regdb", root, identities=7, seed=3, **SMALL)
    return root


def digest(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def images_in(root: Path) -> dict[tuple[int, int], list[str]]:
    """{(camera, identity): names} of a SYSU folder."""
    return {
        (int(folder.parent.name.removeprefix("cam")), int(folder.name)): sorted(p.name for p in folder.iterdir())
        for folder in root.glob("cam*/*")
    }


def ids_in(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().strip().split(",")]


def cells_in(root: Path) -> np.ndarray:
    return scipy.io.loadmat(root / "exp" / "rand_perm_cam.mat")["rand_perm_cam"]


def write_permutation(path: Path, counts: dict[tuple[int, int], int], lengths: list[int], shift: int = 0) -> Path:
    """A rand_perm_cam.mat with cells of the given lengths and {(camera, identity): images}."""
    cells = np.empty((6, 1), dtype=object)
    rng = np.random.default_rng(0)
    for camera, length in enumerate(lengths, start=1):
        cell = np.empty((length, 1), dtype=object)
        for identity in range(1, length + 1):
            images = counts.get((camera, identity), 0)
            rows = [rng.permutation(images) + 1 + shift for _ in range(10)]
            cell[identity - 1, 0] = np.array(rows, dtype=np.uint8).reshape(10, images)
        cells[camera - 1, 0] = cell
    scipy.io.savemat(path, {"rand_perm_cam": cells})
    return path


@pytest.mark.parametrize("layout", ["sysu", "regdb"])
def test_same_seed_same_bytes_whatever_the_workers(layout, tmp_path, monkeypatch):
    # written at another time, as far as scipy can tell
    monkeypatch.setattr(time, "asctime", lambda *_: str(len(list(tmp_path.iterdir()))))
    for name, options in {"a": {}, "b": {}, "two": {"workers": 2}, "other": {"seed": 5}}.items():
        make_synthetic(layout, tmp_path / name, identities=5, **{"seed": 4, **SMALL, **options})
    first, again, two, other = (digest(tmp_path / name) for name in ("a", "b", "two", "other"))
    assert first == again == two
    images = [name for name in first if not name.startswith(("exp/", "idx/"))]
    assert len(set(first.values())) >= len(images)
    assert not {first[name] for name in images} & set(other.values())


def test_an_identity_does_not_depend_on_how_many_there_are():
    few, many = draw_people(1, 5), draw_people(1, 20)
    assert [person.telling for person in few] == [person.telling for person in many[:5]]
    assert all((a.tones.visible == b.tones.visible).all() for a, b in zip(few, many, strict=False))


def test_identities_differ_in_what_a_witness_would_tell():
    people = draw_people(0, 100)
    for index, person in enumerate(people):
        for other in people[:index]:
            assert sum(a == b for a, b in zip(person.telling, other.telling, strict=True)) <= 3


def test_sysu_layout(sysu):
    assert {entry.name for entry in sysu.iterdir()} == {"cam1", "cam2", "cam3", "cam4", "cam5", "cam6", "exp"}
    found = images_in(sysu)
    assert all(names == ["0001.jpg", "0002.jpg"] for names in found.values())
    seen = {identity: {c for c, i in found if i == identity} for _, identity in found}
    assert sorted(seen) == list(range(1, 13))
    assert any(len(cameras) < 6 for cameras in seen.values())
    for cameras in seen.values():
        assert cameras & {3, 6} and cameras & {1, 2, 4, 5}
        assert cameras & {6} or cameras & {1, 4, 5}, "cameras 2 and 3 stand at one place"
    with Image.open(sysu / "cam1" / f"{min(i for c, i in found if c == 1):04d}" / "0001.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", SIZE[::-1])


def test_sysu_lists_part_the_identities(sysu):
    lists = {split: ids_in(sysu / "exp" / f"{split}_id.txt") for split in ("train", "val", "test")}
    assert sorted(sum(lists.values(), [])) == list(range(1, 13))
    assert {split: len(ids) for split, ids in lists.items()} == {"train": 7, "val": 2, "test": 3}
    found = images_in(sysu)
    for identity in lists["test"]:
        assert (1, identity) in found or (2, identity) in found
    for split in lists:
        assert (sysu / "exp" / f"{split}_id.txt").read_text().count("\n") == 1


def test_number_of_test_identities_can_be_set(tmp_path):
    make_synthetic("sysu", tmp_path / "set", identities=12, test_identities=5, images_per_camera=1, size=SIZE)
    sizes = [len(ids_in(tmp_path / "set" / "exp" / f"{split}_id.txt")) for split in ("train", "val", "test")]
    assert sizes == [5, 2, 5]


def test_sysu_permutations_match_the_images(sysu):
    cells, found = cells_in(sysu), images_in(sysu)
    assert cells.shape == (6, 1)
    listed = 0
    for camera in range(1, 7):
        cell = cells[camera - 1, 0]
        assert cell.ndim == 2 and cell.shape[1] == 1
        for identity in range(1, len(cell) + 1):
            rows = cell[identity - 1, 0]
            images = len(found.get((camera, identity), []))
            assert rows.shape == (10, images)
            assert all(sorted(row) == list(range(1, images + 1)) for row in rows)
            listed += images > 0
    assert listed == len(found)
    # as in the real file, some identities lie beyond the cells of some cameras, and some cells are empty
    assert min(len(cells[c, 0]) for c in range(6)) < 12
    assert any(rows.shape == (10, 0) for c in range(6) for rows in cells[c, 0].ravel())
    assert len({tuple(row) for c in range(6) for rows in cells[c, 0].ravel() for row in rows if rows.size}) > 1


def test_regdb_layout(regdb):
    assert {entry.name for entry in regdb.iterdir()} == {"Visible", "Thermal", "idx"}
    for folder, mode in (("Visible", "RGB"), ("Thermal", "L")):
        assert sorted(int(entry.name) for entry in (regdb / folder).iterdir()) == list(range(1, 8))
        files = list((regdb / folder).glob("*/*.bmp"))
        assert len(files) == 14
        with Image.open(files[0]) as image:
            assert (image.format, image.mode, image.size) == ("BMP", mode, SIZE[::-1])


def test_regdb_lists(regdb):
    assert len(list((regdb / "idx").iterdir())) == 40
    drawn = set()
    for trial in range(1, 11):
        halves = {}
        for split in ("train", "test"):
            identities = {}
            for modality in ("visible", "thermal"):
                lines = (regdb / "idx" / f"{split}_{modality}_{trial}.txt").read_text().splitlines()
                pairs = [line.rsplit(" ", 1) for line in lines]
                assert all((regdb / path).is_file() for path, _ in pairs)
                assert all(path.startswith(f"{modality.capitalize()}/") for path, _ in pairs)
                identities[modality] = [int(path.split("/")[1]) for path, _ in pairs]
                ranks = {identity: rank for rank, identity in enumerate(sorted(set(identities[modality])))}
                assert [int(label) for _, label in pairs] == [ranks[i] for i in identities[modality]]
            assert identities["visible"] == identities["thermal"]
            halves[split] = set(identities["visible"])
        assert halves["train"] | halves["test"] == set(range(1, 8)) and not halves["train"] & halves["test"]
        assert len(halves["train"]) == 3
        drawn.add(tuple(sorted(halves["train"])))
    assert len(drawn) > 1


def test_permutation_file_sets_identities_cameras_and_counts(tmp_path):
    # identity 4 is seen by nobody, identity 6 lies beyond the cells of cameras 1, 2 and 6
    counts = {(1, 1): 2, (3, 1): 3, (2, 2): 1, (6, 2): 4, (4, 3): 2, (3, 3): 1, (5, 5): 2, (6, 5): 1, (3, 6): 2}
    counts |= {(4, 6): 1, (5, 6): 1}
    path = write_permutation(tmp_path / "real.mat", counts, [5, 5, 6, 6, 6, 5])
    (tmp_path / "train_id.txt").write_text("1,6")
    scipy.io.savemat(tmp_path / "test_id.mat", {"id": np.array([[2, 5]], dtype=np.uint16)})
    root = tmp_path / "set"
    assert make_synthetic("sysu", root, permutation=path, size=SIZE) == sum(counts.values())
    assert {key: len(names) for key, names in images_in(root).items()} == counts
    assert (root / "exp" / "rand_perm_cam.mat").read_bytes() == path.read_bytes()
    assert ids_in(root / "exp" / "train_id.txt") == [1, 6]
    assert ids_in(root / "exp" / "test_id.txt") == [2, 5]
    assert ids_in(root / "exp" / "val_id.txt") == [3]


def test_permutation_file_without_lists_draws_them(tmp_path):
    counts = {(camera, identity): 1 for camera in (1, 3) for identity in range(1, 11)} | {(2, 11): 1}
    path = write_permutation(tmp_path / "real.mat", counts, [11] * 6)
    lists = []
    for seed in (0, 1):
        make_synthetic("sysu", tmp_path / str(seed), permutation=path, size=SIZE, seed=seed)
        names = ("train", "val", "test")
        lists.append([ids_in(tmp_path / str(seed) / "exp" / f"{split}_id.txt") for split in names])
        assert sorted(sum(lists[-1], [])) == list(range(1, 11)), "identity 11 was seen by one camera only"
        assert [len(ids) for ids in lists[-1]] == [6, 2, 2]
    assert lists[0] != lists[1]


def test_reflectance_is_independent_of_colour():
    people = [draw_person(0, identity) for identity in range(1, 801)]
    pieces = [Region.UPPER, Region.UPPER_ALT, Region.LOWER, Region.LOWER_ALT, Region.HAIR, Region.SHOES, Region.BAG]
    colour = luminance(np.array([person.tones.visible for person in people]))[:, pieces]
    reflectance = np.array([person.tones.infrared for person in people])[:, pieces]
    between = np.corrcoef(colour, reflectance, rowvar=False)[: len(pieces), len(pieces) :]
    # five standard errors of a correlation over 800 people
    assert np.abs(between).max() < 5 / np.sqrt(800)
    brighter = np.sign(colour[:, 0] - colour[:, 1]) == np.sign(reflectance[:, 0] - reflectance[:, 1])
    assert abs(brighter.mean() - 0.5) < 0.09
    assert np.abs(colour[:, 0] - colour[:, 1]).min() > 0.3 and np.abs(reflectance[:, 0] - reflectance[:, 1]).min() > 0.3


def test_background_and_camera_tell_nothing_of_identity(monkeypatch):
    """Two people drawn from one generator differ where they stand, and nowhere else."""
    monkeypatch.setattr(render_module, "OCCLUDED_SHARE", 0.0)
    size = (96, 48)
    people = draw_people(0, 12)
    camera = make_camera(0, 4, "visible", ("street",), size)
    images = [np.asarray(render(person, camera, size, image_rng(0, 4, 1, 1)), dtype=int) for person in people]
    corners = [np.concatenate([image[:8, :6], image[:8, -6:]], axis=1) for image in images]
    assert all((corner == corners[0]).all() for corner in corners)
    assert all((image != images[0]).any() for image in images[1:])


def test_each_image_shows_its_own_part_of_the_scene(monkeypatch):
    monkeypatch.setattr(render_module, "OCCLUDED_SHARE", 0.0)
    size = (96, 48)
    person = draw_person(0, 1)
    camera = replace(make_camera(0, 4, "visible", ("street",), size), noise=0.0, blur=0.0)
    images = [np.asarray(render(person, camera, size, image_rng(0, 4, 1, instance)), float) for instance in range(1, 7)]
    corners = np.corrcoef([image[:10, :6].ravel() for image in images])
    # brightness varies by image too, but would leave these correlations near one
    assert np.median(corners[np.triu_indices(6, 1)]) < 0.9


def test_images_do_not_depend_on_the_order_of_rendering():
    people = draw_people(0, 2)
    camera = make_camera(0, 1, "visible", ("corridor",), SIZE)
    first = np.asarray(render(people[0], camera, SIZE, image_rng(0, 1, 1, 1)))
    render(people[1], camera, SIZE, image_rng(0, 1, 2, 1))
    assert (np.asarray(render(people[0], camera, SIZE, image_rng(0, 1, 1, 1))) == first).all()


def test_infrared_images_are_grey_and_visible_ones_are_not(sysu):
    grey = {}
    for camera, identity in images_in(sysu):
        with Image.open(sysu / f"cam{camera}" / f"{identity:04d}" / "0001.jpg") as image:
            pixels = np.asarray(image.convert("RGB"), dtype=int)
        grey.setdefault(camera, set()).add(bool((pixels == pixels[..., :1]).all()))
    assert grey == {1: {False}, 2: {False}, 3: {True}, 4: {False}, 5: {False}, 6: {True}}


def test_thermal_bodies_glow_before_a_cool_background():
    size = (96, 48)
    camera = make_camera(0, 3, "thermal", ("street",), size)
    images = [
        np.asarray(render(person, camera, size, image_rng(0, 3, identity, 1)), dtype=float)
        for identity, person in enumerate(draw_people(0, 20))
    ]
    mean = np.mean(images, axis=0)
    assert mean[24:60, 20:28].mean() > 2 * np.concatenate([mean[:8, :6], mean[:8, -6:]]).mean()


def run_tool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tools.make_synthetic", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_command_writes_a_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--identities", "2", "--images-per-camera", "1", "--size", "48", "24", "--seed", "1"]
    assert main(["--layout", "regdb", "--root", "set", *options]) == 0
    assert capsys.readouterr() == ("4 images in set\n", "")
    assert len(list((tmp_path / "set").rglob("*.bmp"))) == 4


def test_command_reports_errors_in_one_line(tmp_path):
    done = run_tool("--layout", "sysu", "--root", ".", cwd=REPOSITORY / "tests")
    assert done.returncode == 2
    assert "not empty" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--layout", "market"], "market"),
        (["--layout", "sysu", "--identities", "4"], "identities must be 5 to"),
        (["--layout", "regdb", "--identities", "1"], "identities must be 2 to"),
        (["--layout", "sysu", "--identities", "many"], "many"),
        (["--layout", "sysu", "--images-per-camera", "0"], "images per camera"),
        (["--layout", "sysu", "--identities", "9", "--test-identities", "5"], "half of 9"),
        (["--layout", "regdb", "--test-identities", "5"], "half of its identities"),
        (["--layout", "sysu", "--seed", "-1"], "seed"),
        (["--layout", "sysu", "--size", "8", "8"], "size"),
        (["--layout", "sysu", "--workers", "0"], "workers"),
        (["--layout", "sysu", "--permutation", "nowhere.mat"], "nowhere.mat"),
        (["--layout", "sysu", "--permutation", "text.mat"], "cannot be read as a MATLAB file"),
        (["--layout", "sysu", "--permutation", "other.mat"], "no variable rand_perm_cam"),
        (["--layout", "sysu", "--permutation", "shifted.mat"], "permutations of 1"),
        (["--layout", "sysu", "--permutation", "good.mat", "--identities", "9"], "either it or them"),
        (["--layout", "regdb", "--permutation", "good.mat"], "belongs to the layout sysu"),
    ],
)
def test_user_errors_end_with_code_2_and_one_line(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mat").write_text("not a mat file " * 20)
    scipy.io.savemat(tmp_path / "other.mat", {"x": np.ones(3)})
    counts = {(camera, identity): 2 for camera in (1, 3) for identity in range(1, 7)}
    write_permutation(tmp_path / "good.mat", counts, [6] * 6)
    write_permutation(tmp_path / "shifted.mat", counts, [6] * 6, shift=1)
    code = run_program(lambda: main([*arguments, "--root", "set"]))
    printed = capsys.readouterr()
    assert code == 2
    assert expected in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("existed", [False, True])
def test_interruption_leaves_nothing_behind(existed, tmp_path, monkeypatch, capsys):
    rendered = []

    def interrupted(*arguments):
        if len(rendered) == 3:
            raise KeyboardInterrupt
        rendered.append(1)
        return render(*arguments)

    monkeypatch.setattr(layout, "render", interrupted)
    root = tmp_path / "set"
    if existed:
        root.mkdir()
    arguments = ["--layout", "sysu", "--root", str(root), "--identities", "5", "--size", "48", "24"]
    assert run_program(lambda: main(arguments)) == 130
    assert len(rendered) == 3
    assert root.exists() == existed and (not existed or not list(root.iterdir()))
    assert "stopped by SIGINT" in capsys.readouterr().err
