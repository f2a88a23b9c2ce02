"""The SYSU-MM01 layout: which identity is seen where and how often, and the files under `exp/`."""

import shutil
from pathlib import Path

import numpy as np
import scipy.io

from data.datasets.matlab import read_variable
from data.datasets.permutations import read_permutations as read_permutation_file

from .scenes import INFRARED, VISIBLE

CAMERAS = (1, 2, 3, 4, 5, 6)
INFRARED_CAMERAS = (3, 6)
SCENE_KINDS = {1: "corridor", 2: "lobby", 3: "room", 4: "street", 5: "park", 6: "yard"}
# the later identities of the real set were only recorded by cameras 3, 4 and 5
LATE_CAMERAS = (3, 4, 5)
TRIALS = 10
SPLITS = ("train", "val", "test")
LEAST_IDENTITIES, MOST_IDENTITIES = 5, 9999

_VARIABLE = "rand_perm_cam"
_HEADER = b"MATLAB 5.0 MAT-file, synthetic"
_SEEN_SHARE, _EARLY_SHARE = 0.85, 5 / 6
_DRAWN_SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}
_REAL_SIZES = {"train": 296, "val": 99, "test": 96}
_SPLIT_SALT, _SEEN_SALT, _TRIAL_SALT = 0x5911, 0x5EE4, 0x791A1

Counts = dict[int, dict[int, int]]
Splits = dict[str, list[int]]


def modality_of(camera: int) -> str:
    """The modality of a camera."""
    return INFRARED if camera in INFRARED_CAMERAS else VISIBLE


def image_path(camera: int, identity: int, instance: int) -> Path:
    """The path of an image relative to the root."""
    return Path(f"cam{camera}", f"{identity:04d}", f"{instance:04d}.jpg")


def plan(identities: int, images: int, seed: int, *, test: int | None = None) -> tuple[Counts, Splits]:
    """Draws who is seen where: ({identity: {camera: images}}, {split: identities}).

    Every identity is seen in both modalities, and by a pair of cameras that do not stand at the same place. Every
    test identity is seen by an indoor visible camera, so that indoor search has something to find. `test` is the
    number of test identities, a quarter by default.
    """
    early = int(_EARLY_SHARE * identities)
    counts = {
        identity: dict.fromkeys(_draw_cameras(seed, identity, early=identity <= early), images)
        for identity in range(1, identities + 1)
    }
    sizes = {split: max(1, round(share * identities)) for split, share in _DRAWN_SHARES.items()}
    sizes["test"] = sizes["test"] if test is None else test
    sizes["train"] = identities - sizes["val"] - sizes["test"]
    rng = np.random.default_rng((seed, _SPLIT_SALT))
    tested = sorted(int(i) for i in 1 + rng.permutation(early)[: sizes["test"]])
    rest = [int(i) for i in rng.permutation([i for i in counts if i not in set(tested)])]
    return counts, {"train": sorted(rest[: sizes["train"]]), "val": sorted(rest[sizes["train"] :]), "test": tested}


def _draw_cameras(seed: int, identity: int, *, early: bool) -> list[int]:
    rng = np.random.default_rng((seed, _SEEN_SALT, identity))
    while True:
        seen = {camera for camera in CAMERAS if rng.random() < _SEEN_SHARE}
        if not early:
            seen &= set(LATE_CAMERAS)
        # cameras 2 and 3 stand at the same place: a pair of them alone is never compared
        paired = {1, 3} <= seen or {1, 6} <= seen or {2, 6} <= seen if early else seen > {3}
        if paired:
            return sorted(seen)


def read_permutation(path: Path) -> Counts:
    """Image counts {identity: {camera: images}} of a `rand_perm_cam.mat`.

    Raises ValueError where there is no such file, or it is not of the real one's form.
    """
    counts: Counts = {}
    for (camera, identity), rows in read_permutation_file(path, CAMERAS).items():
        images = rows.shape[1]
        if rows.max() != images:
            raise ValueError(f"{path}: camera {camera}, identity {identity} must hold permutations of 1 … {images}")
        counts.setdefault(identity, {})[camera] = images
    return dict(sorted(counts.items()))


def read_splits(folder: Path, counts: Counts, seed: int) -> Splits:
    """Reads {train,val,test}_id.txt or .mat from a folder; draws the missing ones in the real set's proportions.

    Drawn identities are in no list that was read and, as long as there are such, were seen in both modalities.
    """
    splits = {split: ids for split in SPLITS if (ids := _read_ids(folder, split)) is not None}
    for split, ids in splits.items():
        if unknown := sorted(set(ids) - set(counts)):
            raise ValueError(f"{folder}: the {split} list names identity {unknown[0]}, which no camera has seen")
    taken = {identity for ids in splits.values() for identity in ids}
    rng = np.random.default_rng((seed, _SPLIT_SALT))
    seen = {identity: set(cameras) for identity, cameras in counts.items() if identity not in taken}
    both = [i for i, cameras in seen.items() if cameras & set(INFRARED_CAMERAS) and cameras - set(INFRARED_CAMERAS)]
    others = [i for i, cameras in seen.items() if len(cameras) >= 2 and i not in set(both)]
    pool = [int(i) for i in (*rng.permutation(both), *rng.permutation(others))]
    share = sum(_REAL_SIZES[split] for split in splits) / sum(_REAL_SIZES.values())
    total = len(taken) / share if splits else len(both)
    for split in SPLITS:
        if split not in splits:
            size = round(total * _REAL_SIZES[split] / sum(_REAL_SIZES.values()))
            splits[split], pool = sorted(pool[:size]), pool[size:]
    if empty := [split for split in ("train", "test") if not splits[split]]:
        raise ValueError(f"too few identities for a {empty[0]} list")
    return {split: splits[split] for split in SPLITS}


def _read_ids(folder: Path, split: str) -> list[int] | None:
    text, mat = folder / f"{split}_id.txt", folder / f"{split}_id.mat"
    if text.is_file():
        try:
            return sorted(int(word) for word in text.read_text().replace(",", " ").split())
        except ValueError:
            raise ValueError(f"{text} must hold identities separated by commas") from None
    if mat.is_file():
        array = read_variable(mat)
        if not isinstance(array, np.ndarray) or not np.isin(array, np.arange(MOST_IDENTITIES + 1)).all():
            raise ValueError(f"{mat} must hold one array of identities")
        return sorted(int(identity) for identity in array.ravel())
    return None


def write_lists(root: Path, counts: Counts, splits: Splits, seed: int, *, permutation: Path | None = None) -> None:
    """Writes `root/exp`: the lists of identities, and the permutations, copied from a file where one is given."""
    folder = root / "exp"
    folder.mkdir(parents=True)
    for split, identities in splits.items():
        (folder / f"{split}_id.txt").write_text(",".join(map(str, identities)) + "\n")
    target = folder / f"{_VARIABLE}.mat"
    if permutation is not None:
        shutil.copyfile(permutation, target)
    else:
        scipy.io.savemat(target, {_VARIABLE: _permutations(counts, seed)}, do_compression=True)
        with target.open("r+b") as file:
            # the free text of the header holds the time of writing, which would differ from run to run
            file.write(_HEADER.ljust(116))


def _permutations(counts: Counts, seed: int) -> np.ndarray:
    """(6, 1) cell of (n_c, 1) cells of (10, images) matrices; n_c is the last identity that the camera has seen."""
    cells = np.empty((len(CAMERAS), 1), dtype=object)
    for index, camera in enumerate(CAMERAS):
        last = max((identity for identity, cameras in counts.items() if camera in cameras), default=0)
        cell = np.empty((last, 1), dtype=object)
        for identity in range(1, last + 1):
            images = counts.get(identity, {}).get(camera, 0)
            rng = np.random.default_rng((seed, _TRIAL_SALT, camera, identity))
            rows = rng.permuted(np.tile(np.arange(1, images + 1), (TRIALS, 1)), axis=1)
            cell[identity - 1, 0] = rows.astype(np.uint8 if images < 256 else np.uint16)
        cells[index, 0] = cell
    return cells
