"""SYSU-MM01: six cameras, 491 identities, fixed gallery permutations."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from data.base import ReIDDataset, Sample, parse_identities, read_lines, require_file
from utils.errors import UserError

PERMUTATION_FILE = "exp/rand_perm_cam.mat"
ID_LISTS = {"train": ("exp/train_id.txt", "exp/val_id.txt"), "test": ("exp/test_id.txt",)}  # relative to the root
TRIALS = 10

# (camera, identity) -> (trials, images) 1-based instance numbers; absent where the camera never saw the identity
Permutations = dict[tuple[int, int], np.ndarray]


class SYSU(ReIDDataset):
    """Training uses the train and val lists; the label is the identity's position in them, one after the other."""

    name = "SYSU-MM01"
    cameras = (1, 2, 3, 4, 5, 6)

    def list_samples(self) -> list[Sample]:
        identities = self._read_identities(ID_LISTS[self.split])
        self._check_disjoint(identities)
        self.permutations = read_permutations(self.root)
        samples = []
        for camera in self.cameras:
            if not (self.root / f"cam{camera}").is_dir():
                raise UserError(f"{self.root / f'cam{camera}'}: no such folder; SYSU-MM01 has cam1 ... cam6")
            for label, identity in enumerate(identities):
                samples += [
                    Sample(path, identity, camera, label if self.split == "train" else identity)
                    for path in self._list_images(camera, identity)
                ]
        self._check_identities(samples, identities)
        return sorted(samples)

    def _read_identities(self, names: Sequence[str]) -> list[int]:
        identities = []
        for name in names:
            lines = read_lines(self.root / name, "identities separated by commas")
            words = [word.strip() for line in lines for word in line.split(",")]
            identities += parse_identities([word for word in words if word], self.root / name)
        twice = [identity for identity, count in Counter(identities).items() if count > 1]
        if twice:
            raise UserError(f"{self.root / 'exp'}: identity {twice[0]} is in both {' and '.join(names)}")
        if not identities:
            raise UserError(f"{self.root / names[0]}: lists no identity")
        return identities

    def _check_disjoint(self, identities: list[int]) -> None:
        """No identity may be both trained on and tested; a list of the other split that is not there needs no check."""
        other = "test" if self.split == "train" else "train"
        names = [name for name in ID_LISTS[other] if (self.root / name).is_file()]
        both = set(identities) & set(self._read_identities(names)) if names else set()
        if both:
            raise UserError(f"{self.root / 'exp'}: identity {min(both)} is listed for both training and testing")

    def _list_images(self, camera: int, identity: int) -> list[str]:
        folder = self.root / f"cam{camera}" / f"{identity:04d}"
        # only numbers are instances: copies and what file managers leave behind are no images of the data set
        images = [path for path in folder.glob("*.jpg") if path.stem.isdecimal()] if folder.is_dir() else []
        expected = self.permutations.get((camera, identity))
        if expected is not None and not images:
            raise UserError(
                f"{folder}: holds no image, though {PERMUTATION_FILE} counts {expected.shape[1]}; unpack it again"
            )
        if expected is not None:
            missing = set(expected[0].tolist()) - {int(path.stem) for path in images}
            if missing:
                raise UserError(
                    f"{folder / f'{min(missing):04d}.jpg'}: no such image, though {PERMUTATION_FILE} lists it"
                )
        return [path.relative_to(self.root).as_posix() for path in images]

    def _check_identities(self, samples: list[Sample], identities: list[int]) -> None:
        empty = set(identities) - {sample.identity for sample in samples}
        if empty:
            raise UserError(
                f"{self.root}/cam*/{min(empty):04d}: no image of identity {min(empty)} in any camera,"
                f" though {' or '.join(ID_LISTS[self.split])} lists it"
            )


def read_permutations(root: str | Path) -> Permutations:
    """The fixed gallery permutations of ``exp/rand_perm_cam.mat``.

    Raises:
        UserError: missing file, or one that does not have the published structure.
    """
    path = require_file(Path(root) / PERMUTATION_FILE, "the gallery permutations; it comes with the data set's code")
    try:
        cells = loadmat(path, variable_names=["rand_perm_cam"])["rand_perm_cam"]
    except KeyError:
        raise UserError(f"{path}: holds no variable rand_perm_cam") from None
    except Exception as error:  # scipy raises nearly anything on a damaged file
        raise UserError(f"{path}: cannot be read as a MATLAB file ({' '.join(str(error).split())})") from None
    if cells.dtype != object or cells.size != len(SYSU.cameras):
        raise UserError(f"{path}: rand_perm_cam should be a (6, 1) cell, one entry per camera")
    permutations = {}
    for camera, cell in zip(SYSU.cameras, cells.ravel(), strict=True):
        if not isinstance(cell, np.ndarray) or cell.dtype != object:
            raise UserError(f"{path}: the entry of camera {camera} should be a cell, one entry per identity")
        for identity, entry in enumerate(cell.ravel(), start=1):
            if entry.size:
                permutations[camera, identity] = _check_permutation(entry, camera, identity, path)
    return permutations


def _check_permutation(entry: np.ndarray, camera: int, identity: int, path: Path) -> np.ndarray:
    where = f"{path}: camera {camera}, identity {identity}"
    if entry.ndim != 2 or entry.shape[0] != TRIALS or entry.dtype.kind not in "uif":
        raise UserError(f"{where} should be a ({TRIALS}, images) matrix of instance numbers, not {entry.shape}")
    instances = entry.astype(np.int64)
    if (instances != entry).any() or instances.min() < 1:
        raise UserError(f"{where} holds numbers that are not instances (1, 2, ...)")
    return instances
