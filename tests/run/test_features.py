"""Feature files with mistakes are refused with an error message of one line; valid variants are scored."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.golden import GOLDEN
from tools.score import main as score_main
from utils.run.cli import run_program

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


# what it is -> (content, part of the message)
REFUSED = {
    "empty file": (b"", "not an .npz file"),
    "text": (b"features", "not an .npz file"),
    "truncated": (packed()[:700], "not an .npz file"),
    "damaged": (packed().replace(b"NUMPY", b"\0" * 5), "not a features file"),
    "no original": (packed(original=None), "lacks the array original"),
    "no cameras": (packed(cameras=None), "lacks the array cameras"),
    "different lengths": (packed(cameras=np.array([2, 3])), "of equal length"),
    "different dimensions": (packed(red=np.eye(5, dtype=np.float32)[:4]), "the same dimension"),
    "one-dimensional": (packed(original=np.ones(4)), "should be (images, dimensions)"),
    "a table of identities": (packed(identities=np.ones((4, 1), int)), "identities should have one dimension"),
    "text features": (packed(original=np.full((4, 4), "a")), "original should hold numbers"),
    "fractions": (packed(cameras=np.array([2, 2, 3, 3.5])), "cameras should hold whole numbers"),
    "paths of numbers": (packed(paths=np.arange(4)), "paths should hold text"),
    "NaN": (packed(original=np.full((4, 4), np.nan)), "not finite"),
    "no image": (packed(**{name: values[:0] for name, values in GOOD.items()}), "there is no thermal image"),
    "unknown camera": (packed(cameras=np.array([2, 2, 3, 9])), "RegDB has cameras (2, 3), not 9"),
}


def exit_code(path: Path) -> int:
    return run_program(lambda: score_main([str(path), "--dataset", "regdb", "--k1", "2", "--k2", "1"]))


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case, tmp_path, capsys):
    content, message = REFUSED[case]
    path = tmp_path / "f.npz"
    path.write_bytes(content)
    assert exit_code(path) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_folder_and_missing_file(tmp_path, capsys):
    assert exit_code(tmp_path) == 2
    assert exit_code(tmp_path / "absent.npz") == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize(
    "content",
    [
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
