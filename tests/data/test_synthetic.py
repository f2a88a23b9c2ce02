"""Synthetic data: layouts, determinism, and what distinguishes identities."""

import hashlib
import re
import runpy
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tools.make_synthetic import main
from tools.synthetic import LAYOUTS, dataset, make_synthetic
from tools.synthetic import render as render_module
from tools.synthetic.camera import CameraSpec, make_camera
from tools.synthetic.layout import Layout
from tools.synthetic.person import sample_people, sample_person
from tools.synthetic.render import image_rng, render
from tools.synthetic.tones import LUMINANCE, Region
from utils.run.cli import run_program

SIZE = (40, 20)
SMALL = {"identities": 5, "images_per_camera": 1, "size": SIZE}
STREET = CameraSpec("visible", ("street",))
SPLITS = ("train", "val", "test")


def digest(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def count_images(root: Path) -> dict[tuple[int, int], int]:
    """{(camera, identity): images} in the layout of SYSU-MM01."""
    return {
        (int(folder.parent.name.removeprefix("cam")), int(folder.name)): len(list(folder.iterdir()))
        for folder in root.glob("cam*/*")
    }


def read_lists(root: Path) -> list[list[int]]:
    """Identities for training, validation and testing in the layout of SYSU-MM01."""
    return [[int(word) for word in (root / "exp" / f"{split}_id.txt").read_text().split(",")] for split in SPLITS]


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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_seed_same_bytes_with_any_number_of_workers(layout, tmp_path, monkeypatch):
    # scipy writes the time into its files
    monkeypatch.setattr(time, "asctime", lambda *_: str(len(list(tmp_path.iterdir()))))
    for name, options in {"a": {}, "b": {}, "two": {"workers": 2}, "other": {"seed": 5}}.items():
        make_synthetic(layout, tmp_path / name, **{"seed": 4, **SMALL, **options})
    first, again, two, other = (digest(tmp_path / name) for name in ("a", "b", "two", "other"))
    assert first == again == two
    images = [name for name in first if name.endswith((".jpg", ".bmp")) and not name.startswith("test_")]
    assert len({first[name] for name in images}) == len(images)
    assert not {first[name] for name in images} & set(other.values())


def test_an_identity_does_not_depend_on_how_many_there_are():
    few, many = sample_people(1, 5), sample_people(1, 20)
    for a, b in zip(few, many, strict=False):
        assert replace(a, tones={}) == replace(b, tones={})
        assert all((a.tones[modality] == b.tones[modality]).all() for modality in a.tones)


def test_identities_differ_in_distinctive_attributes():
    people = sample_people(0, 100)
    for index, person in enumerate(people):
        for other in people[:index]:
            assert sum(a == b for a, b in zip(person.distinctive, other.distinctive, strict=True)) <= 3


def test_sysu_layout(sysu_root):
    assert {entry.name for entry in sysu_root.iterdir()} == {*(f"cam{camera}" for camera in range(1, 7)), "exp"}
    found = count_images(sysu_root)
    assert set(found.values()) == {5}
    seen = {identity: {camera for camera, i in found if i == identity} for _, identity in found}
    assert sorted(seen) == list(range(1, 17))
    assert any(len(cameras) < 6 for cameras in seen.values())
    for cameras in seen.values():
        assert cameras & {3, 6} and cameras & {1, 2, 4, 5}
        assert cameras & {6} or cameras & {1, 4, 5}, "cameras 2 and 3 are at one location"
    train, val, test = read_lists(sysu_root)
    assert sorted(train + val + test) == list(range(1, 17))
    assert (len(train), len(val), len(test)) == (10, 2, 4)
    assert all(seen[identity] & {1, 2} for identity in test), "indoor search finds each test identity"


def test_number_of_test_identities_can_be_set(tmp_path):
    make_synthetic("sysu", tmp_path / "set", **{**SMALL, "identities": 12}, test_identities=5)
    assert [len(identities) for identities in read_lists(tmp_path / "set")] == [5, 2, 5]


def test_sysu_permutations_match_the_images(sysu_root):
    cells = scipy.io.loadmat(sysu_root / "exp" / "rand_perm_cam.mat")["rand_perm_cam"]
    assert cells.shape == (6, 1)
    entries = {(c + 1, i + 1): rows for c in range(6) for i, rows in enumerate(cells[c, 0][:, 0])}
    assert [cells[c, 0].shape for c in range(6)] == [(13, 1), (13, 1), (16, 1), (16, 1), (16, 1), (13, 1)]
    assert all(rows.shape[0] == 10 and rows.dtype == np.uint8 for rows in entries.values())
    assert {key: rows.shape[1] for key, rows in entries.items() if rows.size} == count_images(sysu_root)
    assert all(sorted(row) == list(range(1, len(row) + 1)) for rows in entries.values() for row in rows)
    assert len({tuple(row) for rows in entries.values() for row in rows if row.size}) > 1
    # as in the real file, later identities are beyond the cells of some cameras, and some entries are empty
    assert max(read_lists(sysu_root)[2]) <= 13, "every cell holds every test identity"
    assert any(rows.shape == (10, 0) for rows in entries.values())


def test_regdb_layout(regdb_root):
    assert {entry.name for entry in regdb_root.iterdir()} == {"Visible", "Thermal", "idx"}
    for folder in ("Visible", "Thermal"):
        assert sorted(int(entry.name) for entry in (regdb_root / folder).iterdir()) == list(range(1, 13))
        files = list((regdb_root / folder).glob("*/*.bmp"))
        assert len(files) == 12 * 6
        with Image.open(files[0]) as image:
            assert (image.format, image.mode, image.size) == ("BMP", "RGB", (32, 64))
            pixels = np.asarray(image)
        assert (pixels == pixels[..., :1]).all() == (folder == "Thermal")


def test_regdb_lists(regdb_root):
    assert len(list((regdb_root / "idx").iterdir())) == 40
    sampled = set()
    for trial in range(1, 11):
        halves = {}
        for split in ("train", "test"):
            for modality in ("visible", "thermal"):
                lines = (regdb_root / "idx" / f"{split}_{modality}_{trial}.txt").read_text().splitlines()
                pairs = [line.rsplit(" ", 1) for line in lines]
                assert all((regdb_root / path).is_file() for path, _ in pairs)
                assert all(path.startswith(f"{modality.capitalize()}/") for path, _ in pairs)
                listed = [int(path.split("/")[1]) for path, _ in pairs]
                ranks = {identity: rank for rank, identity in enumerate(sorted(set(listed)))}
                assert [int(label) for _, label in pairs] == [ranks[identity] for identity in listed]
                assert halves.setdefault(split, set(listed)) == set(listed)
        assert halves["train"] | halves["test"] == set(range(1, 13)) and len(halves["train"]) == len(halves["test"])
        sampled.add(tuple(sorted(halves["train"])))
    assert len(sampled) > 1


def test_llcm_layout(llcm_root):
    tops = {"vis", "nir", "test_vis", "test_nir", "idx"}
    assert {entry.name for entry in llcm_root.iterdir()} == tops
    tested = {int(word) for word in (llcm_root / "idx/test_id.txt").read_text().split(",")}
    for folder, hours in (("vis", range(7, 18)), ("nir", range(18, 24))):
        images = {path.name: path for path in (llcm_root / folder).rglob("*.jpg")}
        for name, path in images.items():
            found = re.fullmatch(rf"(\d{{4}})_c(0[1-9])_s(\d\d)\d{{4}}_f\d+_{folder}\.jpg", name)
            assert found and found[1] == path.parent.name and int(found[3]) in hours
            with Image.open(path) as image:
                pixels = np.asarray(image)
            assert (pixels == pixels[..., :1]).all() == (folder == "nir")
        copies = {path.name: path for path in (llcm_root / f"test_{folder}").rglob("*.jpg")}
        assert set(copies) == {name for name in images if int(name[:4]) in tested}
        for name, path in copies.items():
            assert path.relative_to(llcm_root / f"test_{folder}").as_posix() == f"cam{int(name[6:8])}/{name[:4]}/{name}"
            assert path.read_bytes() == images[name].read_bytes()
        lines = {split: read_lines_of(llcm_root, split, folder) for split in ("train", "test")}
        assert sorted(path for split in lines.values() for path in split) == sorted(
            path.relative_to(llcm_root).as_posix() for path in images.values()
        )
        assert set(lines["train"].values()) == set(range(12 - len(tested)))
    assert not list((llcm_root / "test_nir/cam3").iterdir())
    assert list(llcm_root.rglob("*.db"))


def read_lines_of(root: Path, split: str, folder: str) -> dict[str, int]:
    """Path -> label."""
    lines = (line.split() for line in (root / f"idx/{split}_{folder}.txt").read_text().splitlines())
    return {path: int(label) for path, label in lines}


def test_permutation_file_sets_identities_cameras_and_counts(tmp_path):
    # no camera has images of identity 4; identity 6 is beyond the cells of cameras 1, 2 and 6
    counts = {(1, 1): 2, (3, 1): 3, (2, 2): 1, (6, 2): 4, (4, 3): 2, (3, 3): 1, (5, 5): 2, (6, 5): 1, (3, 6): 2}
    counts |= {(4, 6): 1, (5, 6): 1}
    path = write_permutation(tmp_path / "real.mat", counts, [5, 5, 6, 6, 6, 5])
    (tmp_path / "train_id.txt").write_text("1,6")
    scipy.io.savemat(tmp_path / "test_id.mat", {"id": np.array([[2, 5]], dtype=np.uint16)})
    root = tmp_path / "set"
    assert make_synthetic("sysu", root, permutation=path, size=SIZE) == sum(counts.values())
    assert count_images(root) == counts
    assert (root / "exp" / "rand_perm_cam.mat").read_bytes() == path.read_bytes()
    assert read_lists(root) == [[1, 6], [3], [2, 5]]


def test_permutation_file_without_lists_samples_them(tmp_path):
    counts = {(camera, identity): 1 for camera in (1, 3) for identity in range(1, 11)} | {(2, 11): 1}
    path = write_permutation(tmp_path / "real.mat", counts, [11] * 6)
    lists = []
    for seed in (0, 1):
        make_synthetic("sysu", tmp_path / str(seed), permutation=path, size=SIZE, seed=seed)
        lists.append(read_lists(tmp_path / str(seed)))
        assert sorted(sum(lists[-1], [])) == list(range(1, 11)), "identity 11 is seen by one camera only"
        assert [len(identities) for identities in lists[-1]] == [6, 2, 2]
    assert lists[0] != lists[1]


def test_a_layout_needs_nothing_but_its_entry(tmp_path, monkeypatch):
    class BothModalities(Layout):
        """Nine cameras, each with a visible number c and an infrared number c + 9."""

        cameras = {c: CameraSpec("visible" if c < 10 else "infrared", ("room", "yard")) for c in range(1, 19)}

        def __init__(self, *, seed: int, identities: int) -> None:
            self.counts = {identity: dict.fromkeys(self.cameras, 1) for identity in range(1, identities + 1)}

        def image_path(self, camera, identity, instance):
            return Path(f"{camera}/{identity}/{instance}.jpg")

        def write_lists(self, root):
            (root / "list.txt").touch()

    monkeypatch.setitem(LAYOUTS, "both", BothModalities)
    assert make_synthetic("both", tmp_path / "set", identities=2, size=SIZE) == 36
    assert len(list((tmp_path / "set").glob("*/*/1.jpg"))) == 36 and (tmp_path / "set/list.txt").exists()


def test_reflectance_is_independent_of_colour():
    people = [sample_person(0, identity) for identity in range(1, 801)]
    pieces = [Region.UPPER, Region.UPPER_ALT, Region.LOWER, Region.LOWER_ALT, Region.HAIR, Region.SHOES, Region.BAG]
    colour = np.array([person.tones["visible"] @ LUMINANCE for person in people])[:, pieces]
    reflectance = np.array([person.tones["infrared"][:, 0] for person in people])[:, pieces]
    between = np.corrcoef(colour, reflectance, rowvar=False)[: len(pieces), len(pieces) :]
    # five standard errors of a correlation over 800 people
    assert np.abs(between).max() < 5 / np.sqrt(800)
    brighter = np.sign(colour[:, 0] - colour[:, 1]) == np.sign(reflectance[:, 0] - reflectance[:, 1])
    assert abs(brighter.mean() - 0.5) < 0.09
    assert np.abs(colour[:, 0] - colour[:, 1]).min() > 0.3 and np.abs(reflectance[:, 0] - reflectance[:, 1]).min() > 0.3


def test_background_and_camera_do_not_depend_on_identity(monkeypatch):
    """People rendered with the same random numbers differ where they stand, and nowhere else."""
    monkeypatch.setattr(render_module, "OCCLUDED_SHARE", 0.0)
    size = (96, 48)
    camera = make_camera(0, 4, STREET, size)
    people = sample_people(0, 12)
    images = [np.asarray(render(person, camera, size, image_rng(0, 4, 1, 1)), dtype=int) for person in people]
    corners = [np.concatenate([image[:8, :6], image[:8, -6:]], axis=1) for image in images]
    assert all((corner == corners[0]).all() for corner in corners)
    assert all((image != images[0]).any() for image in images[1:])


def test_each_image_shows_its_own_part_of_the_scene(monkeypatch):
    monkeypatch.setattr(render_module, "OCCLUDED_SHARE", 0.0)
    size = (96, 48)
    person = sample_person(0, 1)
    camera = replace(make_camera(0, 4, STREET, size), noise=0.0, blur=0.0)
    images = [np.asarray(render(person, camera, size, image_rng(0, 4, 1, instance)), float) for instance in range(1, 7)]
    corners = np.corrcoef([image[:10, :6].ravel() for image in images])
    # brightness differs between images too, but would leave these correlations near one
    assert np.median(corners[np.triu_indices(6, 1)]) < 0.9


def test_infrared_images_are_grey_and_visible_ones_are_not(sysu_root):
    grey = {camera: set() for camera in range(1, 7)}
    for camera, identity in count_images(sysu_root):
        with Image.open(sysu_root / f"cam{camera}" / f"{identity:04d}" / "0001.jpg") as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 64))
            pixels = np.asarray(image, dtype=int)
        grey[camera].add(bool((pixels == pixels[..., :1]).all()))
    assert grey == {1: {False}, 2: {False}, 3: {True}, 4: {False}, 5: {False}, 6: {True}}


def test_thermal_bodies_are_brighter_than_the_background():
    size = (96, 48)
    camera = make_camera(0, 3, CameraSpec("thermal", ("street",)), size)
    images = [
        np.asarray(render(person, camera, size, image_rng(0, 3, identity, 1)), dtype=float)
        for identity, person in enumerate(sample_people(0, 20))
    ]
    mean = np.mean(images, axis=0)
    assert mean[24:60, 20:28].mean() > 2 * np.concatenate([mean[:8, :6], mean[:8, -6:]]).mean()


def test_command_writes_a_set(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    options = "--layout regdb --root set --identities 2 --images-per-camera 1 --size 48 24 --seed 1 --workers 2"
    monkeypatch.setattr(sys, "argv", ["make_synthetic", *options.split()])
    monkeypatch.delitem(sys.modules, "tools.make_synthetic")
    with pytest.raises(SystemExit) as end:
        runpy.run_module("tools.make_synthetic", run_name="__main__")
    assert end.value.code == 0
    assert capfd.readouterr() == ("4 images in set\n", ""), "workers end without a message"
    assert len(list((tmp_path / "set").rglob("*.bmp"))) == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--layout market", "market"),
        ("--layout sysu --identities 4", "identities must be 5 to"),
        ("--layout regdb --identities 1", "identities must be 2 to"),
        ("--layout llcm --identities 1", "identities must be 2 to"),
        ("--layout llcm --identities 4 --test-identities 4", "test identities must be 1 to 3"),
        ("--layout sysu --identities many", "many"),
        ("--layout sysu --images-per-camera 0", "images per camera must be"),
        ("--layout sysu --identities 9 --test-identities 5", "test identities must be 1 to 4"),
        ("--layout regdb --test-identities 5", "regdb does not support test_identities"),
        ("--layout sysu --seed -1", "seed must be"),
        ("--layout sysu --size 8 20", "height must be"),
        ("--layout sysu --size 40 8", "width must be"),
        ("--layout sysu --workers 0", "workers must be"),
        ("--layout sysu --permutation nowhere.mat", "nowhere.mat"),
        ("--layout sysu --permutation text.mat", "text.mat"),
        ("--layout sysu --permutation other.mat", "rand_perm_cam"),
        ("--layout sysu --permutation shifted.mat", "permutations of 1"),
        ("--layout sysu --permutation good.mat --identities 9", "either it or them"),
        ("--layout regdb --permutation good.mat", "regdb does not support permutation"),
        ("--layout sysu --permutation lists/good.mat", "test_id.mat: cannot be read"),
        ("--layout sysu --root .", ". is not empty"),
        ("--layout sysu --root text.mat", "text.mat is not a folder"),
        ("--layout sysu --root text.mat/set", "text.mat/set: Not a directory"),
    ],
)
def test_user_errors_end_with_code_2_and_one_line(words, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mat").write_text("not a mat file " * 20)
    scipy.io.savemat(tmp_path / "other.mat", {"x": np.ones(3)})
    counts = {(camera, identity): 2 for camera in (1, 3) for identity in range(1, 7)}
    write_permutation(tmp_path / "good.mat", counts, [6] * 6)
    write_permutation(tmp_path / "shifted.mat", counts, [6] * 6, shift=1)
    (tmp_path / "lists").mkdir()
    write_permutation(tmp_path / "lists/good.mat", counts, [6] * 6)
    (tmp_path / "lists/test_id.mat").write_text("not a mat file " * 20)
    assert run_program(lambda: main(["--root", "set", *words.split()])) == 2
    printed = capsys.readouterr()
    assert expected in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("existed", [False, True])
def test_interruption_removes_what_was_written(existed, tmp_path, monkeypatch, capsys):
    rendered = []

    def interrupted(*arguments):
        if len(rendered) == 3:
            raise KeyboardInterrupt
        rendered.append(1)
        return render(*arguments)

    monkeypatch.setattr(dataset, "render", interrupted)
    root = tmp_path / "set"
    if existed:
        root.mkdir()
    words = ["--layout", "sysu", "--root", str(root), "--identities", "5", "--size", "40", "20"]
    assert run_program(lambda: main(words)) == 130
    assert len(rendered) == 3
    assert root.exists() == existed and (not existed or not list(root.iterdir()))
    assert "stopped by SIGINT" in capsys.readouterr().err
