"""SYSU-MM01's gallery permutations: read as scipy reads them, or refused in one line."""

import io
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from data.datasets import SYSU
from data.datasets.permutations import read_permutations
from tests.helpers.fuzzing import mutations, outcome, report, why
from tests.helpers.permutations import MATLAB_FORMS, PERMUTATIONS, cells, matlab, rows
from tools.make_synthetic import main as make_synthetic_main
from utils.run.cli import run_program

CAMERAS = SYSU.cameras_of()


def read(tmp_path: Path, content: bytes) -> dict:
    path = tmp_path / "rand_perm_cam.mat"
    path.write_bytes(content)
    return read_permutations(path, CAMERAS)


@pytest.mark.parametrize("form", MATLAB_FORMS)
def test_permutations_are_read(form, tmp_path):
    found = read(tmp_path, MATLAB_FORMS[form])
    for camera, cell in zip(CAMERAS, PERMUTATIONS.ravel(), strict=True):
        for identity, entry in enumerate(cell.ravel(), start=1):
            assert ((camera, identity) in found) == bool(entry.size)
            if entry.size:
                np.testing.assert_array_equal(found[camera, identity], entry)


@pytest.mark.parametrize("count", [90, pytest.param(3000, marks=pytest.mark.faults)])
def test_damage_of_compressed_files_is_noticed(count, tmp_path, tally):
    """Damage of a compressed part is found by its checksum, before scipy reads it."""
    found = Counter()
    for damaged in mutations(MATLAB_FORMS["compressed"], 1, count):
        found[outcome(lambda content=damaged: read(tmp_path, content))] += 1
    report(tally, "compressed .mat", found)
    assert found["refused"] > count / 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (matlab({"a": 1}), "should be a (6, 1) cell"),
        (matlab(np.zeros((6, 1))), "should be a (6, 1) cell"),
        (matlab(cells(*["text"] * 6)), "the entry of camera 1 should be a cell"),
        (matlab(cells(*[cells("text")] * 6)), "should be a (10, images) matrix"),
        (matlab(cells(*[cells(np.ones((10, 2)) * 1j)] * 6)), "should be a (10, images) matrix"),
        (matlab(cells(*[cells(np.ones((9, 2)), np.ones((9, 1)))] * 6)), "camera 1, identity 1 should be a (10"),
        (matlab(cells(*[cells(rows(3).T)] * 6)), "should be a (10, images) matrix"),
        (matlab(cells(*[cells(cells(1.0))] * 6)), "should be a (10, images) matrix"),
        (matlab(cells(*[cells(np.zeros((10, 2)), np.ones((10, 1)))] * 6)), "not instances"),
        (matlab(cells(*[cells(np.full((10, 2), 1.5))] * 6)), "not instances"),
        (matlab(cells(*[cells(np.full((10, 2), np.nan))] * 6)), "not instances"),
        (matlab(cells(*[cells(np.ones((10, 2)))] * 6)), "an instance is listed twice"),
        (matlab(cells(*[cells(np.concatenate([rows(3)[:9], [[1, 2, 4]]]))] * 6)), "rows that list different instances"),
        (matlab(cells(*[cells(np.zeros((10, 0)))] * 6)), "lists no image"),
        (matlab(cells(*[cells(rows(3))] * 5)), "should be a (6, 1) cell"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n", "save(file, '-v7')"),
        (b"", "cannot be read as a MATLAB file"),
        (b"text " * 100, "cannot be read as a MATLAB file"),
        (MATLAB_FORMS["compressed"][:-20], "cannot be read as a MATLAB file"),
    ],
)
def test_what_is_not_a_permutation_file_is_refused(content, words, tmp_path):
    message = why(read, tmp_path, content)
    assert message.startswith(f"{tmp_path}/rand_perm_cam.mat: ")
    assert words in message, message


def test_a_file_without_the_variable(tmp_path):
    file = io.BytesIO()
    scipy.io.savemat(file, {"other": 1})
    assert "holds no variable rand_perm_cam" in why(read, tmp_path, file.getvalue())


def test_a_wrong_checksum_is_refused(tmp_path, monkeypatch):
    content = bytearray(MATLAB_FORMS["compressed"])
    content[-1] ^= 1  # the last byte of the checksum
    with pytest.raises(zlib.error):
        zlib.decompress(bytes(content[136:]))
    reached = []
    monkeypatch.setattr(scipy.io, "loadmat", reached.append)
    assert "cannot be read as a MATLAB file" in why(read, tmp_path, bytes(content))
    assert not reached  # scipy could crash


def test_synthetic_data_sets_refuse_the_same_files(tmp_path, capsys):
    path = tmp_path / "x.mat"
    for content in (MATLAB_FORMS["compressed"][:-20], matlab({"a": 1}), b""):
        path.write_bytes(content)
        words = ["--layout", "sysu", "--root", str(tmp_path / "out"), "--permutation", str(path)]
        assert run_program(lambda words=words: make_synthetic_main(words)) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not (tmp_path / "out").exists()
