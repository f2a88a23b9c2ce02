"""Broken and hostile features files are scored, or refused with an error message of one line."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.fuzzing import mutations
from tests.helpers.golden import GOLDEN
from tests.helpers.limits import within
from tools.score import main as score_main
from utils.run.cli import run_program

FAST, MANY = 60, 3000
GOOD = {
    "paths": np.array([f"cam{camera}/0001/{n:04d}.jpg" for camera in (2, 3) for n in (1, 2)]),
    "identities": np.array([1, 2, 1, 2]),
    "cameras": np.array([2, 2, 3, 3]),
    **{name: np.eye(4, dtype=np.float32) for name in ("original", "red", "green", "blue")},
}


def packed(save: Callable = np.savez, **changes: object) -> bytes:
    """A features file with the arrays of GOOD, some of them replaced, or left out where None."""
    arrays = {name: values for name, values in (GOOD | changes).items() if values is not None}
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def zip_bomb() -> bytes:
    """Features that unpack to 2 GB of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("original.npy", "w") as member:
        header = {"descr": "<f4", "fortran_order": False, "shape": (4, 2**27)}
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(2**5):
            member.write(bytes(2**24))
    return file.getvalue()


def with_shape_in_header(shape: tuple[int, ...]) -> bytes:
    """Features with an array of 16 bytes whose header says it has this shape."""
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed(original=None))) as old, zipfile.ZipFile(file, "w") as archive:
        for name in old.namelist():
            archive.writestr(name, old.read(name))
        archive.writestr("original.npy", member.getvalue() + bytes(16))
    return file.getvalue()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty file": (lambda: b"", "not a features file"),
    "text": (lambda: b"features", "not a features file"),
    "truncated": (lambda: packed()[:700], "not a features file"),
    "one bare array": (lambda: (f := io.BytesIO(), np.save(f, np.eye(3)), f.getvalue())[2], "not a features file"),
    "objects": (lambda: packed(original=np.array([{}] * 4, dtype=object)), "Object arrays cannot be loaded"),
    "paths of objects": (lambda: packed(paths=np.array(["a"] * 4, dtype=object)), "Object arrays cannot be loaded"),
    "no original": (lambda: packed(original=None), "lacks the array original"),
    "no cameras": (lambda: packed(cameras=None), "lacks the array cameras"),
    "different lengths": (lambda: packed(cameras=np.array([2, 3])), "of equal length"),
    "different dimensions": (lambda: packed(red=np.eye(5, dtype=np.float32)[:4]), "the same dimension"),
    "one-dimensional": (lambda: packed(original=np.ones(4)), "should be (images, dimensions)"),
    "three-dimensional": (lambda: packed(original=np.ones((4, 2, 2))), "should be (images, dimensions)"),
    "a table of identities": (lambda: packed(identities=np.ones((4, 1), int)), "identities should have one dimension"),
    "a single identity": (lambda: packed(identities=np.array(1)), "identities should have one dimension"),
    "text features": (lambda: packed(original=np.full((4, 4), "a")), "original should hold numbers"),
    "complex features": (lambda: packed(original=np.eye(4) * 1j), "original should hold numbers"),
    "dates": (lambda: packed(identities=np.zeros(4, "datetime64[s]")), "identities should hold whole numbers"),
    "fractions": (lambda: packed(cameras=np.array([2, 2, 3, 3.5])), "cameras should hold whole numbers"),
    "paths of numbers": (lambda: packed(paths=np.arange(4)), "paths should hold text"),
    "records": (lambda: packed(original=np.zeros((4, 4), "f4,i4")), "original should hold numbers"),
    "NaN": (lambda: packed(original=np.full((4, 4), np.nan)), "not finite"),
    "no image": (lambda: packed(**{name: values[:0] for name, values in GOOD.items()}), "there is no thermal image"),
    "unknown camera": (lambda: packed(cameras=np.array([2, 2, 3, 9])), "RegDB has cameras (2, 3), not 9"),
    "zip bomb": (zip_bomb, "it would unpack to"),
    "huge shape in the header": (lambda: with_shape_in_header((4, 10**12)), "not a features file"),
    "too large a shape in the header": (lambda: with_shape_in_header((4, 4)), "not a features file"),
    "negative shape in the header": (lambda: with_shape_in_header((-4, 4)), "not a features file"),
}


def exit_code(path: Path) -> int:
    with within(20):
        return run_program(lambda: score_main([str(path), "--dataset", "regdb", "--k1", "2", "--k2", "1"]))


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case, tmp_path, capsys):
    make, message = REFUSED[case]
    path = tmp_path / "f.npz"
    path.write_bytes(make())
    assert exit_code(path) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert len(error) < 500


def test_folder_and_missing_file(tmp_path, capsys):
    assert exit_code(tmp_path) == 2
    assert exit_code(tmp_path / "absent.npz") == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize(
    "content",
    [
        packed(),
        packed(np.savez_compressed),
        packed(surplus=np.ones(3)),
        packed(cameras=np.array([2, 2, 3, 3], np.uint8), original=np.eye(4, dtype=np.float16)),
        packed(original=np.eye(4, dtype=int)),
    ],
)
def test_valid_variants(content, tmp_path):
    (tmp_path / "f.npz").write_bytes(content)
    assert exit_code(tmp_path / "f.npz") == 0


def test_golden_features():
    assert exit_code(GOLDEN / "regdb_features.npz") == 0


def fuzz(count: int, tmp_path: Path, capsys, tally) -> None:
    path, codes = tmp_path / "fuzzed.npz", []
    for seed, data in enumerate((packed(), packed(np.savez_compressed))):
        for content in mutations(data, seed, count // 2):
            path.write_bytes(content)
            codes.append(exit_code(path))
            assert capsys.readouterr().err.count("\n") == (codes[-1] == 2)
    assert set(codes) <= {0, 2}
    tally(len(codes), f"damaged features files: {codes.count(0)} scored, {codes.count(2)} refused")
    assert codes.count(2) > count / 2


def test_fuzzed(tmp_path, capsys, tally):
    fuzz(FAST, tmp_path, capsys, tally)


@pytest.mark.faults
def test_fuzzed_at_length(tmp_path, capsys, tally):
    fuzz(MANY, tmp_path, capsys, tally)
