"""MATLAB files that are damaged, or hold what no permutation is: refused in one line."""

import io
import struct
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from data.datasets.matlab import LARGEST_FILE, read_variable
from data.datasets.permutations import read_permutation_file
from data.datasets.sysu import SYSU
from tests.helpers.fuzzing import mutations, outcome, report, why
from tools.make_synthetic import main as make_synthetic_main
from tools.synthetic.sysu import read_permutation
from utils.run.cli import run_program

CAMERAS = SYSU.cameras
FEW, MANY = 90, 5000  # cases per form of file


def cells(*entries: object) -> np.ndarray:
    cell = np.empty((len(entries), 1), dtype=object)
    cell[:, 0] = entries
    return cell


def rows(images: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.permuted(np.tile(np.arange(1, images + 1), (10, 1)), axis=1).astype(np.uint8)


def matlab(content: object, **options) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, {"rand_perm_cam": content}, **options)
    return file.getvalue()


PERMUTATIONS = cells(*[cells(rows(4, camera), np.zeros((10, 0)), rows(3, camera + 9)) for camera in CAMERAS])
MATLAB_FORMS = {"plain": matlab(PERMUTATIONS), "compressed": matlab(PERMUTATIONS, do_compression=True)}


def fuzz_matlab(tmp_path: Path, form: str, seed: int, count: int) -> Counter:
    path = tmp_path / "rand_perm_cam.mat"
    found = Counter()
    for damaged in mutations(MATLAB_FORMS[form], seed, count):
        path.write_bytes(damaged)
        found[outcome(lambda: read_permutation_file(path, CAMERAS))] += 1
        outcome(lambda: read_variable(path))
    return found


@pytest.mark.parametrize("form", MATLAB_FORMS)
def test_damaged_permutation_files(form, tmp_path, tally):
    found = fuzz_matlab(tmp_path, form, seed=1, count=FEW)
    report(tally, f"{form} .mat", found)
    assert found["refused"] > 0


@pytest.mark.faults
@pytest.mark.parametrize("form", MATLAB_FORMS)
def test_many_damaged_permutation_files(form, tmp_path, tally):
    report(tally, f"{form} .mat", fuzz_matlab(tmp_path, form, seed=2, count=MANY))


def read(tmp_path: Path, content: bytes) -> dict:
    path = tmp_path / "rand_perm_cam.mat"
    path.write_bytes(content)
    return read_permutation_file(path, CAMERAS)


@pytest.mark.parametrize("form", MATLAB_FORMS)
def test_matlab_files_are_read_as_scipy_reads_them(form, tmp_path):
    found = read(tmp_path, MATLAB_FORMS[form])
    expected = scipy.io.loadmat(io.BytesIO(MATLAB_FORMS[form]))["rand_perm_cam"]
    for camera, cell in zip(CAMERAS, expected.ravel(), strict=True):
        for identity, entry in enumerate(cell.ravel(), start=1):
            assert ((camera, identity) in found) == bool(entry.size)
            if entry.size:
                np.testing.assert_array_equal(found[camera, identity], entry)


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("compressed", [True, False])
def test_every_kind_of_number(kind, compressed, tmp_path):
    path = tmp_path / "x.mat"
    values = np.arange(1, 61).reshape(10, 6).astype(kind)
    scipy.io.savemat(path, {"other": np.ones(3), "x": values}, do_compression=compressed)
    np.testing.assert_array_equal(read_variable(path, "x"), values)
    np.testing.assert_array_equal(np.ravel(read_variable(path)), np.ones(3))
    assert read_variable(path, "absent") is None


def test_the_other_order_of_bytes():
    """As files of old workstations have it: a 1 x 2 matrix of doubles."""
    head = b"MATLAB 5.0".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    parts = [(6, struct.pack(">II", 6, 0)), (5, struct.pack(">ii", 1, 2)), (1, b"x"), (9, struct.pack(">dd", 3, 4))]
    padded = [(kind, len(content), content + bytes(-len(content) % 8)) for kind, content in parts]
    body = b"".join(struct.pack(">II", kind, size) + content for kind, size, content in padded)
    with tempfile.NamedTemporaryFile(suffix=".mat") as file:
        file.write(head + struct.pack(">II", 14, len(body)) + body)
        file.flush()
        np.testing.assert_array_equal(read_variable(Path(file.name), "x"), [[3.0, 4.0]])


def with_class(number: int) -> bytes:
    """The permutations, as if their variable were of another of MATLAB's classes."""
    content = bytearray(MATLAB_FORMS["plain"])
    assert content[144] == 1  # a cell
    content[144] = number
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (matlab({"a": 1}), "holds a struct, where only cells and matrices of numbers belong"),
        (matlab("text"), "holds a text"),
        (matlab(cells(*["text"] * 6)), "holds a text"),
        (matlab(cells(*[cells("text")] * 6)), "holds a text"),
        (matlab(cells(*[cells({"a": 1})] * 6)), "holds a struct"),
        (matlab(cells(*[cells(np.ones((10, 2)) * 1j)] * 6)), "complex"),
        (with_class(3), "holds a object"),
        (with_class(5), "holds a sparse matrix"),
        (with_class(16), "holds no variable"),  # a function
        (with_class(17), "holds no variable"),  # an object of a class of the user
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n", "save(file, '-v7')"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "save(file, '-v7')"),
        (b"", "it is none, or older than version 5"),
        (b"text " * 100, "it is none, or older than version 5"),
        (matlab(np.ones(3), format="4"), "older than version 5"),
        (matlab(cells(*[cells(rows(3))] * 5)), "(6, 1) cell"),
        (matlab(cells(*[cells(np.full((10, 2), np.nan))] * 6)), "not instances"),
        (matlab(cells(*[cells(np.full((10, 2), 1e300))] * 6)), "not instances"),
        (matlab(cells(*[cells(np.zeros((10, 0)))] * 6)), "counts no image"),
        (matlab(cells(*[cells(rows(3).T)] * 6)), "should be a (10, images) matrix"),
        (matlab(cells(*[cells(cells(1.0))] * 6)), "not a cell"),
        (matlab(cells(*[cells(np.ones((10, 2)))] * 6)), "row 1 is no permutation: an instance stands in it twice"),
        (
            matlab(cells(*[cells(np.concatenate([rows(3)[:9], [[1, 2, 4]]]))] * 6)),
            "row 10 holds other instances than row 1",
        ),
    ],
)
def test_what_is_no_permutation_file(content, words, tmp_path):
    message = why(read, tmp_path, content)
    assert message.startswith(f"{tmp_path}/rand_perm_cam.mat: ")
    assert words in message, message


def test_a_small_file_that_unpacks_to_a_large_one(tmp_path):
    packed = zlib.compress(bytes(LARGEST_FILE + 1))
    head = MATLAB_FORMS["plain"][:128]
    assert "unpacked, it is larger" in why(read, tmp_path, head + struct.pack("<II", 15, len(packed)) + packed)


def test_cells_within_cells(tmp_path):
    content: object = np.ones((1, 1))
    for _ in range(60):
        content = cells(content)
    assert "nested too deeply" in why(read, tmp_path, matlab(cells(*[content] * 6)))


def test_synthetic_sets_refuse_the_same_files(tmp_path, capsys):
    path = tmp_path / "x.mat"
    for content in (MATLAB_FORMS["plain"][:700], matlab({"a": 1}), b""):
        path.write_bytes(content)
        words = ["--layout", "sysu", "--root", str(tmp_path / "made"), "--permutation", str(path)]
        assert run_program(lambda words=words: make_synthetic_main(words)) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not (tmp_path / "made").exists()
    path.write_bytes(MATLAB_FORMS["plain"])
    assert read_permutation(path) == {1: dict.fromkeys(CAMERAS, 4), 3: dict.fromkeys(CAMERAS, 3)}
