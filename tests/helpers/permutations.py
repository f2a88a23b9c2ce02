"""Small gallery permutations in MATLAB files."""

import io

import numpy as np
import scipy.io

from data.datasets import SYSU


def cells(*entries: object) -> np.ndarray:
    cell = np.empty((len(entries), 1), dtype=object)
    cell[:, 0] = entries
    return cell


def rows(images: int, seed: int = 0) -> np.ndarray:
    """Ten permutations of 1 ... images."""
    random = np.random.default_rng(seed)
    return random.permuted(np.tile(np.arange(1, images + 1), (10, 1)), axis=1).astype(np.uint8)


def matlab(content: object, **options) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, {"rand_perm_cam": content}, **options)
    return file.getvalue()


PERMUTATIONS = cells(*[cells(rows(4, camera), np.zeros((10, 0)), rows(3, camera + 9)) for camera in SYSU.cameras_of()])
MATLAB_FORMS = {"plain": matlab(PERMUTATIONS), "compressed": matlab(PERMUTATIONS, do_compression=True)}
