"""SYSU-MM01: six cameras, 491 identities, fixed gallery permutations."""

import random
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from data.datasets.base import Counts, ReIDDataset, Sample
from data.datasets.lists import file_problem, folder_problem, list_files, parse_number, read_identities, require
from data.datasets.permutations import CONTENT, TRIALS, Permutations, read_permutations
from utils.protocols import ImageTable, Search
from utils.run.errors import UserError

PERMUTATION_FILE = "exp/rand_perm_cam.mat"
ID_LISTS = {"train": ("exp/train_id.txt", "exp/val_id.txt"), "test": ("exp/test_id.txt",)}
LIST_CONTENT = "identities in one line, such as 1,2,4 (part of SYSU-MM01)"
MODES = {"all": (1, 2, 4, 5), "indoor": (1, 2)}  # search mode -> gallery cameras
SHOTS = (1, 10)  # gallery images per identity and camera


class SYSU(ReIDDataset):
    """Training uses the train and val lists; the label is the index of the identity in train list + val list."""

    name = "SYSU-MM01"
    visible_cameras = (1, 2, 4, 5)
    infrared_cameras = (3, 6)
    locations = {3: 2}  # cameras 2 and 3 see the same location
    defaults = {
        "num_id": 395,
        "num_cam": 6,
        "data_root": "../../Datasets/SYSU-MM01",
        "mser_k1": 40,
        "mser_k2": 20,
        "mser_lambda": 0.3,
    }
    published = {"train": Counts(395, 22258, 11909), "test": Counts(96, 6775, 3803)}
    selection = ("all/1-shot",)
    variants = {"sysu_gallery": {"official": (), "python": tuple(f"{mode}/1-shot/python" for mode in MODES)}}

    def list_samples(self) -> list[Sample]:
        """Samples ordered by path."""
        require([
            *(file_problem(self.root / name, LIST_CONTENT) for name in ID_LISTS[self.split]),
            file_problem(self.root / PERMUTATION_FILE, CONTENT),
            *(folder_problem(self.root / f"cam{c}", "SYSU-MM01 has cam1 ... cam6") for c in self.cameras_of()),
        ])  # fmt: skip
        identities = self._read_identities(ID_LISTS[self.split])
        self._check_disjoint(identities)
        permutations = read_permutations(self.root / PERMUTATION_FILE, self.cameras_of())

        samples, problems = [], []
        for camera, (label, identity) in product(self.cameras_of(), enumerate(identities)):
            names = self._images(camera, identity)
            problems.append(self._missing_image(camera, identity, names, permutations.get((camera, identity))))
            label = label if self.split == "train" else identity
            samples += [
                Sample(f"cam{camera}/{identity:04d}/{name}", identity, camera, label) for name in names.values()
            ]
        without_image = set(identities) - {sample.identity for sample in samples}
        problems += [
            f"{self.root}/cam*/{i:04d}: identity {i} is listed but has no image" for i in sorted(without_image)
        ]
        require(problems)
        return sorted(samples)

    def _read_identities(self, names: Sequence[str]) -> list[int]:
        """The identities of several lists, concatenated."""
        lists = [read_identities(self.root / name, LIST_CONTENT) for name in names]
        identities = [identity for listed in lists for identity in listed]
        if len(set(identities)) < len(identities):
            twice = next(identity for identity in identities if identities.count(identity) > 1)
            raise UserError(f"{self.root / 'exp'}: identity {twice} is in both {' and '.join(names)}")
        return identities

    def _check_disjoint(self, identities: Sequence[int]) -> None:
        """No identity may be both trained on and tested. A missing list is skipped."""
        other = "test" if self.split == "train" else "train"
        names = [name for name in ID_LISTS[other] if (self.root / name).is_file()]
        both = set(identities) & set(self._read_identities(names))
        if both:
            raise UserError(f"{self.root / 'exp'}: identity {min(both)} is listed for both training and testing")

    def _images(self, camera: int, identity: int) -> dict[int, str]:
        """Instance number -> file name. Other files, such as copies and thumbnails, are ignored."""
        folder = self.root / f"cam{camera}/{identity:04d}"
        images: dict[int, str] = {}
        for name in list_files(folder):
            instance = parse_number(name.removesuffix(".jpg")) if name.endswith(".jpg") else None
            if instance in images:
                raise UserError(f"{folder}: {images[instance]} and {name} are the same instance; remove one")
            if instance is not None:
                images[instance] = name
        return images

    def _missing_image(self, camera: int, identity: int, images: Mapping[int, str], expected: np.ndarray | None) -> str:
        """Error message if the permutation lists an image that the folder lacks, else an empty string."""
        missing = set() if expected is None else set(expected[0].tolist()) - images.keys()
        folder = self.root / f"cam{camera}/{identity:04d}"
        if missing and not images:
            return f"{folder}: holds no image, but {PERMUTATION_FILE} lists {len(missing)}; unpack it again"
        if missing:
            return f"{folder / f'{min(missing):04d}.jpg'}: no such image, but {PERMUTATION_FILE} lists it"
        return ""

    @classmethod
    def protocol(cls, images: ImageTable, root: Path) -> tuple[Search, ...]:
        """All-search and indoor-search, single-shot and multi-shot, ten trials each.

        Gallery of a trial: for every gallery camera and identity, the first ``shots`` instances of the permutation's
        row. Paths end in ``cam<camera>/<identity>/<instance>.jpg``. The settings of ``variants`` are
        single-shot, with the galleries that the released code of AGW and its successors draws.
        """
        permutations = read_permutations(root / PERMUTATION_FILE, cls.cameras_of())
        query = np.flatnonzero(np.isin(images.cameras, cls.infrared_cameras))
        pool = np.flatnonzero(np.isin(images.cameras, cls.visible_cameras))
        if not len(query):
            raise UserError(f"no query: there is no image of an infrared camera {cls.infrared_cameras}")
        pool_index = {
            (camera, identity, _instance(path)): index
            for index, (camera, identity, path) in enumerate(
                zip(images.cameras[pool].tolist(), images.identities[pool].tolist(), images.paths[pool], strict=True)
            )
        }
        identities = np.unique(images.identities).tolist()
        galleries = {
            f"{mode}/{shots}-shot": _galleries(permutations, pool_index, cameras, identities, shots)
            for (mode, cameras), shots in product(MODES.items(), SHOTS)
        }
        groups: dict[tuple[int, int], list[int]] = {}  # (identity, camera) -> indices into the pool, by file name
        for index in np.argsort(images.paths[pool]).tolist():
            groups.setdefault((int(images.identities[pool[index]]), int(images.cameras[pool[index]])), []).append(index)
        for mode, cameras in MODES.items():
            galleries[f"{mode}/1-shot/python"] = _drawn_galleries(groups, cameras)
        locations = cls.locations_of(images.cameras)
        return (Search(query, pool, locations[query], locations[pool], galleries, neighbours="queries"),)


def _galleries(
    permutations: Permutations,
    pool_index: Mapping[tuple[int, int, int], int],
    cameras: Sequence[int],
    identities: Sequence[int],
    shots: int,
) -> tuple[np.ndarray, ...]:
    """The gallery of each trial, as indices into the gallery pool.

    Args:
        pool_index: (camera, identity, instance) -> index into the gallery pool.
    """
    listed = [pair for pair in product(cameras, identities) if pair in permutations]
    try:
        return tuple(
            np.array(
                [
                    pool_index[camera, identity, instance]
                    for camera, identity in listed
                    for instance in permutations[camera, identity][trial, :shots].tolist()
                ],
                dtype=np.int64,
            )
            for trial in range(TRIALS)
        )
    except KeyError as error:
        camera, identity, instance = error.args[0]
        raise UserError(
            f"camera {camera}, identity {identity}: the permutation lists instance {instance}, of which there is no"
            " image"
        ) from None


def _drawn_galleries(groups: Mapping[tuple[int, int], list[int]], cameras: Sequence[int]) -> tuple[np.ndarray, ...]:
    """The gallery of each trial: one image per identity and camera, both ascending, drawn by Python's ``random``.

    Args:
        groups: (identity, camera) -> indices into the gallery pool, by file name.
    """
    drawn = []
    for trial in range(TRIALS):  # the seed, which counts from 0
        generator = random.Random(trial)
        chosen = [generator.choice(groups[pair]) for pair in sorted(groups) if pair[1] in cameras]
        drawn.append(np.array(chosen, dtype=np.int64))
    return tuple(drawn)


def _instance(path: str) -> int:
    """The instance number of an image, which is the name of its file."""
    stem = path.replace("\\", "/").rsplit("/", 1)[-1].split(".")[0]
    if not stem.isdecimal():
        raise UserError(f"{path}: the file's name should be the instance number")
    return int(stem)
