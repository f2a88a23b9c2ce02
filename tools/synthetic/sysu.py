"""The SYSU-MM01 layout: six cameras that see most identities each, and the files under ``exp/``."""

import shutil
from pathlib import Path

import numpy as np
import scipy.io

from data.datasets.lists import read_identities
from data.datasets.permutations import TRIALS, VARIABLE, read_matlab, read_permutations
from tools.synthetic.camera import CameraSpec
from tools.synthetic.layout import DEFAULT_IDENTITIES, DEFAULT_IMAGES, LARGEST_NUMBER, Counts, Layout, require_range
from tools.synthetic.modality import INFRARED, VISIBLE
from utils.run.errors import UserError

SPLITS = ("train", "val", "test")

_HEADER = b"MATLAB 5.0 MAT-file, synthetic"
# the later identities of the real set were only recorded by cameras 3, 4 and 5
_SEEN_SHARE, _EARLY_SHARE = 0.85, 5 / 6
_LATE_CAMERAS = {3, 4, 5}
# an identity is seen by one of these pairs of both modalities; cameras 2 and 3 are at one location and never compared
_EARLY_PAIRS, _LATE_PAIRS = ({1, 3}, {1, 6}, {2, 6}), ({3, 4}, {3, 5})
_VAL_SHARE, _TEST_SHARE = 0.15, 0.25
_REAL_SIZES = {"train": 296, "val": 99, "test": 96}
_SPLIT_SALT, _SEEN_SALT, _TRIAL_SALT = 0x5911, 0x5EE4, 0x791A1

Splits = dict[str, list[int]]  # identities of each of SPLITS


class SYSU(Layout):
    """Samples who is seen where and the splits, or takes them from a real permutation file."""

    cameras = {
        1: CameraSpec(VISIBLE, ("corridor",)),
        2: CameraSpec(VISIBLE, ("lobby",)),
        3: CameraSpec(INFRARED, ("room",)),
        4: CameraSpec(VISIBLE, ("street",)),
        5: CameraSpec(VISIBLE, ("park",)),
        6: CameraSpec(INFRARED, ("yard",)),
    }

    def __init__(
        self,
        *,
        seed: int,
        identities: int | None = None,
        images_per_camera: int | None = None,
        test_identities: int | None = None,
        permutation: Path | None = None,
    ) -> None:
        self.seed, self.permutation = seed, permutation
        if permutation is not None:
            if (identities, images_per_camera, test_identities) != (None, None, None):
                raise UserError("a permutation file sets the numbers of identities and images: give either it or them")
            self.counts = _read_counts(permutation)
            self.splits = _read_splits(permutation.parent, self.counts, seed)
            return
        identities = DEFAULT_IDENTITIES if identities is None else identities
        images = DEFAULT_IMAGES if images_per_camera is None else images_per_camera
        require_range("identities", identities, 5, LARGEST_NUMBER)
        require_range("images per camera", images, 1, LARGEST_NUMBER)
        if test_identities is None:
            test_identities = max(1, round(_TEST_SHARE * identities))
        require_range("test identities", test_identities, 1, identities // 2)
        self.early = early = int(_EARLY_SHARE * identities)
        self.counts = {
            identity: dict.fromkeys(_sample_cameras(seed, identity, early=identity <= early), images)
            for identity in range(1, identities + 1)
        }
        self.splits = _sample_splits(identities, test_identities, early, seed)

    def image_path(self, camera: int, identity: int, instance: int) -> Path:
        return Path(f"cam{camera}", f"{identity:04d}", f"{instance:04d}.jpg")

    def write_lists(self, root: Path) -> None:
        """The identities of each split, and the permutations: those of the given file, or random ones."""
        folder = root / "exp"
        folder.mkdir()
        for split, identities in self.splits.items():
            (folder / f"{split}_id.txt").write_text(",".join(map(str, identities)) + "\n")
        target = folder / f"{VARIABLE}.mat"
        if self.permutation is not None:
            shutil.copyfile(self.permutation, target)
            return
        scipy.io.savemat(
            target, {VARIABLE: _sample_permutations(self.counts, self.early, self.seed)}, do_compression=True
        )
        with target.open("r+b") as file:
            # the free text of the header holds the time of writing, which would differ from run to run
            file.write(_HEADER.ljust(116))


def _sample_cameras(seed: int, identity: int, *, early: bool) -> list[int]:
    """The cameras that see an identity.

    Early identities, which may be tested, are seen by an indoor visible camera, so that indoor search finds them.
    """
    rng = np.random.default_rng((seed, _SEEN_SALT, identity))
    while True:
        seen = {camera for camera in SYSU.cameras if rng.random() < _SEEN_SHARE}
        if not early:
            seen &= _LATE_CAMERAS
        if any(pair <= seen for pair in (_EARLY_PAIRS if early else _LATE_PAIRS)):
            return sorted(seen)


def _sample_splits(identities: int, tested: int, early: int, seed: int) -> Splits:
    """Split identities 1 to ``identities``; test identities are among the first ``early``."""
    rng = np.random.default_rng((seed, _SPLIT_SALT))
    test = sorted((1 + rng.permutation(early)[:tested]).tolist())
    rest = rng.permutation(sorted(set(range(1, identities + 1)) - set(test))).tolist()
    size = len(rest) - max(1, round(_VAL_SHARE * identities))
    return {"train": sorted(rest[:size]), "val": sorted(rest[size:]), "test": test}


def _sample_permutations(counts: Counts, early: int, seed: int) -> np.ndarray:
    """(6, 1) cell of (n, 1) cells of (10, images) matrices, where images is 0 if the camera never saw the identity.

    As in the real file, n is the last identity for cameras 3, 4 and 5, and the last early identity for the others,
    also if a camera did not see it: other programs index the cells with every test identity.
    """
    cells = np.empty((len(SYSU.cameras), 1), dtype=object)
    for index, camera in enumerate(SYSU.cameras):
        last = len(counts) if camera in _LATE_CAMERAS else early
        cell = np.empty((last, 1), dtype=object)
        for identity in range(1, last + 1):
            images = counts[identity].get(camera, 0)
            rng = np.random.default_rng((seed, _TRIAL_SALT, camera, identity))
            rows = rng.permuted(np.tile(np.arange(1, images + 1), (TRIALS, 1)), axis=1)
            cell[identity - 1, 0] = rows.astype(np.uint8 if images < 256 else np.uint16)
        cells[index, 0] = cell
    return cells


def _read_counts(path: Path) -> Counts:
    """Numbers of images in a ``rand_perm_cam.mat``.

    Raises a UserError where the file is missing or not of the published form.
    """
    counts: Counts = {}
    for (camera, identity), rows in read_permutations(path, tuple(SYSU.cameras)).items():
        images = rows.shape[1]
        if rows.max() != images:
            raise UserError(f"{path}: camera {camera}, identity {identity} must hold permutations of 1 ... {images}")
        counts.setdefault(identity, {})[camera] = images
    return dict(sorted(counts.items()))


def _read_splits(folder: Path, counts: Counts, seed: int) -> Splits:
    """Read {train,val,test}_id.txt or .mat from a folder; sample the missing ones in the real set's proportions.

    Sampled identities are in no list that was read and, as long as there are such, are seen in both modalities.
    """
    read = {split: ids for split in SPLITS if (ids := _read_identities(folder, split)) is not None}
    for split, identities in read.items():
        if unknown := sorted(set(identities) - set(counts)):
            raise UserError(f"{folder}: the {split} list has identity {unknown[0]}, which no camera sees")
    taken = {identity for identities in read.values() for identity in identities}
    seen = {i: {SYSU.cameras[camera].modality for camera in cameras} for i, cameras in counts.items() if i not in taken}
    both = [i for i, modalities in seen.items() if len(modalities) == 2]
    others = [i for i, modalities in seen.items() if len(modalities) == 1 and len(counts[i]) >= 2]
    rng = np.random.default_rng((seed, _SPLIT_SALT))
    pool = [*rng.permutation(both).tolist(), *rng.permutation(others).tolist()]
    real = sum(_REAL_SIZES.values())
    total = len(taken) / (sum(_REAL_SIZES[split] for split in read) / real) if read else len(both)
    splits: Splits = {}
    for split in SPLITS:
        size = 0 if split in read else round(total * _REAL_SIZES[split] / real)
        splits[split], pool = read.get(split, sorted(pool[:size])), pool[size:]
    if empty := [split for split in ("train", "test") if not splits[split]]:
        raise UserError(f"{folder}: too few identities for a {empty[0]} list")
    return splits


def _read_identities(folder: Path, split: str) -> list[int] | None:
    """The identities of ``{split}_id.txt`` or ``.mat``; None where there is neither."""
    text, mat = folder / f"{split}_id.txt", folder / f"{split}_id.mat"
    if text.is_file():
        return sorted(read_identities(text, "identities in one line"))
    if not mat.is_file():
        return None
    arrays = [value for name, value in read_matlab(mat).items() if not name.startswith("__")]
    if len(arrays) != 1 or arrays[0].dtype.kind not in "iuf":
        raise UserError(f"{mat}: must hold one array of identities")
    return sorted(arrays[0].astype(int).ravel().tolist())
