"""SYSU-MM01's fixed gallery permutations: which instances of an identity a camera shows, in which order."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.datasets.lists import require_file
from data.datasets.matlab import Array, read_variable
from utils.run.errors import UserError

TRIALS = 10
VARIABLE = "rand_perm_cam"
PURPOSE = (
    "the gallery permutations: a (6, 1) cell of (identities, 1) cells of (10, images) matrices; it is published with"
    " the data set's evaluation code"
)

# (camera, identity) -> (trials, images) 1-based instance numbers; absent where the camera never saw the identity
Permutations = dict[tuple[int, int], np.ndarray]


def read_permutation_file(path: Path, cameras: Sequence[int]) -> Permutations:
    """The permutations of a ``rand_perm_cam.mat``.

    Raises:
        UserError: missing file, one that does not have the published structure, or a row that is no permutation.
    """
    cells = read_variable(require_file(path, PURPOSE), VARIABLE)
    if cells is None:
        raise UserError(f"{path}: holds no variable {VARIABLE}")
    if not isinstance(cells, list) or len(cells) != len(cameras):
        raise UserError(f"{path}: {VARIABLE} should be a ({len(cameras)}, 1) cell, one entry per camera")
    permutations = {}
    for camera, cell in zip(cameras, cells, strict=True):
        if not isinstance(cell, list):
            raise UserError(f"{path}: the entry of camera {camera} should be a cell, one entry per identity")
        for identity, entry in enumerate(cell, start=1):
            if entry if isinstance(entry, list) else entry.size:
                permutations[camera, identity] = _check(entry, f"{path}: camera {camera}, identity {identity}")
    if not permutations:
        raise UserError(f"{path}: counts no image of any identity")
    return permutations


def _check(entry: Array, where: str) -> np.ndarray:
    if isinstance(entry, list) or entry.ndim != 2 or entry.shape[0] != TRIALS:
        found = "a cell" if isinstance(entry, list) else entry.shape
        raise UserError(f"{where} should be a ({TRIALS}, images) matrix of instance numbers, not {found}")
    with np.errstate(invalid="ignore"):  # of numbers that are none, which the next line refuses
        instances = entry.astype(np.int64)
    if (instances != entry).any() or instances.min() < 1:
        raise UserError(f"{where} holds numbers that are not instances (1, 2, ...)")
    ordered = np.sort(instances, axis=1)
    twice = (np.diff(ordered, axis=1) == 0).any(axis=1)
    if twice.any():
        raise UserError(f"{where}, row {twice.argmax() + 1} is no permutation: an instance stands in it twice")
    others = (ordered != ordered[0]).any(axis=1)
    if others.any():
        raise UserError(f"{where}, row {others.argmax() + 1} holds other instances than row 1")
    return instances
