"""SYSU-MM01's fixed gallery permutations, ``exp/rand_perm_cam.mat``."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.io

from data.datasets.lists import file_problem, require
from utils.run.errors import UserError, reason

TRIALS = 10
VARIABLE = "rand_perm_cam"
CONTENT = (
    "a (6, 1) cell of (identities, 1) cells of (10, images) matrices (the gallery permutations, published with the data"
    " set's evaluation code)"
)

# (camera, identity) -> (trials, images) 1-based instance numbers; no entry if the camera never saw the identity
Permutations = dict[tuple[int, int], np.ndarray]


def read_permutations(path: Path, cameras: Sequence[int]) -> Permutations:
    """Read ``rand_perm_cam.mat``.

    Args:
        cameras: the camera of each entry of the outer cell.

    Raises:
        UserError: the file is missing, has another structure, or a row is not a permutation.
    """
    require([file_problem(path, CONTENT)])
    cells = read_matlab(path).get(VARIABLE)
    if cells is None:
        raise UserError(f"{path}: holds no variable {VARIABLE}")
    if cells.dtype != object or cells.size != len(cameras):
        raise UserError(f"{path}: {VARIABLE} should be a ({len(cameras)}, 1) cell, one entry per camera")
    permutations = {}
    for camera, cell in zip(cameras, cells.ravel(), strict=True):
        if not isinstance(cell, np.ndarray) or cell.dtype != object:
            raise UserError(f"{path}: the entry of camera {camera} should be a cell, one entry per identity")
        for identity, entry in enumerate(cell.ravel(), start=1):
            if np.size(entry):
                permutations[camera, identity] = _instances(entry, f"{path}: camera {camera}, identity {identity}")
    if not permutations:
        raise UserError(f"{path}: lists no image of any identity")
    return permutations


def read_matlab(path: Path) -> dict[str, np.ndarray]:
    """The variables of a MATLAB file (version 7 or older), read by scipy.

    scipy can crash on damaged data, so the checksums of compressed parts are tested first. Uncompressed parts have no
    checksum.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        _check_compressed_parts(path.read_bytes())
        return scipy.io.loadmat(path)
    except NotImplementedError:
        raise UserError(f"{path}: has MATLAB's version 7.3; save it as version 7: save(file, '-v7')") from None
    except Exception as error:  # scipy raises many kinds of errors on damaged files
        raise UserError(f"{path}: cannot be read as a MATLAB file ({reason(error)}); copy it again") from None


def _check_compressed_parts(content: bytes) -> None:
    """Raise ``zlib.error`` or ``ValueError`` unless each compressed part unpacks with the right checksum."""
    order: Literal["big", "little"] = "big" if content[126:128] == b"MI" else "little"
    position = 128  # after the header; each part has a type, a size and a content
    while position + 8 <= len(content):
        kind, size = (int.from_bytes(content[position + i : position + i + 4], order) for i in (0, 4))
        if kind == 15:  # compressed
            zlib.decompress(content[position + 8 : position + 8 + size])
        elif kind != 14:  # neither compressed nor a matrix: not a file of version 5 to 7
            return
        position += 8 + size


def _instances(entry: np.ndarray, where: str) -> np.ndarray:
    """The (trials, images) instance numbers of a camera and identity, checked; ``where`` begins the error messages."""
    if getattr(entry, "shape", ())[:1] != (TRIALS,) or entry.ndim != 2 or entry.dtype.kind not in "iuf":
        raise UserError(f"{where} should be a ({TRIALS}, images) matrix of instance numbers")
    with np.errstate(invalid="ignore"):  # NaN and infinity, which the next line refuses
        instances = entry.astype(np.int64)
    if (instances != entry).any() or instances.min() < 1:
        raise UserError(f"{where} holds numbers that are not instances (1, 2, ...)")
    ordered = np.sort(instances, axis=1)
    if (np.diff(ordered, axis=1) == 0).any():
        raise UserError(f"{where} has a row that is not a permutation: an instance is listed twice")
    if (ordered != ordered[0]).any():
        raise UserError(f"{where} has rows that list different instances")
    return instances
