"""LLCM: nine cameras that see visible light by day and infrared by night, ten sampled galleries per direction."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.datasets.base import Counts, ReIDDataset, Sample
from data.datasets.lists import (
    file_problem,
    folder_problem,
    inside_root,
    is_file,
    list_files,
    parse_number,
    read_identities,
    read_lines,
    require,
)
from utils.protocols import ImageTable, Search
from utils.run.errors import UserError

TRIALS = 10  # trial t is drawn with the seed t = 0 ... 9
CAMERAS = tuple(range(1, 10))
INFRARED_OFFSET = 9  # the infrared images of camera c have the camera number c + 9
WITHOUT_INFRARED = 3  # this camera has no infrared image
TEST_IDS = "idx/test_id.txt"
ID_CONTENT = "the test identities in one line, such as 1,2,4 (part of LLCM)"
CAMERA_IN_NAME = re.compile(r"_c(\d{1,9})_")


class Modality(NamedTuple):
    """Where the images of a modality are."""

    folder: str  # of all images; also the end of the names of lists and test folders
    offset: int  # camera number - number of the device
    cameras: tuple[int, ...]  # numbers of the devices that have such images


VISIBLE = Modality("vis", 0, CAMERAS)
INFRARED = Modality("nir", INFRARED_OFFSET, tuple(c for c in CAMERAS if c != WITHOUT_INFRARED))
MODALITIES = (VISIBLE, INFRARED)


class LLCM(ReIDDataset):
    """The identity is the name of the folder; the training label is its index in the sorted identities.

    A device records both modalities: its camera numbers are c (visible, 1 to 9) and c + 9 (infrared, 10 to 18 without
    12), its location is c.
    """

    name = "LLCM"
    visible_cameras = VISIBLE.cameras
    infrared_cameras = tuple(camera + INFRARED_OFFSET for camera in INFRARED.cameras)
    locations = {camera + INFRARED_OFFSET: camera for camera in INFRARED.cameras}
    defaults = {
        "num_id": 713,
        "num_cam": len(CAMERAS),  # devices
        "data_root": "../../Datasets/LLCM",
        "mser": False,  # nobody published a setting for LLCM; the next three values are those of SYSU-MM01
        "mser_k1": 40,
        "mser_k2": 20,
        "mser_lambda": 0.3,
    }
    published = {"train": Counts(713, 16946, 13975), "test": Counts(351, 8680, 7166)}
    selection = ("infrared_to_visible", "visible_to_infrared")
    variants = {
        "llcm_visible_search": {"paper": (), "released": ("visible_to_infrared_released",)},
        "llcm_gallery": {"sampled": (), "all": ("infrared_to_visible_all", "visible_to_infrared_all")},
    }

    def list_samples(self) -> list[Sample]:
        """Visible samples, then infrared ones, each ordered by identity, camera and name."""
        _check_root(self.root)
        samples = self._list_training() if self.split == "train" else self._list_test()
        self._check_disjoint({sample.identity for sample in samples})
        return samples

    def _list_training(self) -> list[Sample]:
        require([file_problem(_index(self.root, "train", modality), _content(modality)) for modality in MODALITIES])
        listed = {modality: _read_index(self.root, "train", modality) for modality in MODALITIES}
        require(_missing_images(self.root, "train", listed))
        _check_labels(self.root, listed)
        labels = {
            identity: label
            for label, identity in enumerate(sorted({e.identity for entries in listed.values() for e in entries}))
        }
        return [
            Sample(entry.path, entry.identity, entry.camera, labels[entry.identity])
            for entries in listed.values()
            for entry in entries
        ]

    def _list_test(self) -> list[Sample]:
        listed = {modality: _read_test(self.root, modality) for modality in MODALITIES}
        require(_missing_images(self.root, "test", listed))
        found = {entry.identity for entries in listed.values() for entry in entries}
        require([
            f"{self.root / TEST_IDS}: identity {identity} is listed but has no image"
            for identity in sorted(set(read_identities(self.root / TEST_IDS, ID_CONTENT)) - found)
        ])  # fmt: skip
        self.notes = (*_stray_files(self.root), *_unlike_lists(self.root, listed))
        return [Sample(e.path, e.identity, e.camera, e.identity) for entries in listed.values() for e in entries]

    def _check_disjoint(self, identities: set[int]) -> None:
        """No identity may be both trained on and tested. A missing list is skipped."""
        if self.split == "train":
            path = self.root / TEST_IDS
            other = set(read_identities(path, ID_CONTENT)) if path.is_file() else set()
        else:
            indices = [modality for modality in MODALITIES if _index(self.root, "train", modality).is_file()]
            other = {entry.identity for modality in indices for entry in _read_index(self.root, "train", modality)}
        both = identities & other
        if both:
            raise UserError(f"{self.root / 'idx'}: identity {min(both)} is listed for both training and testing")

    @classmethod
    def protocol(cls, images: ImageTable, root: Path) -> tuple[Search, ...]:
        """Infrared to visible and visible to infrared, ten trials each; and the settings of ``variants``.

        All images of one modality search one image per identity and camera of the other modality. Gallery images of
        the query's identity from the query's location are ignored.

        Raises:
            UserError: an image of the test set is missing. Every later draw of a trial would be another one.
        """
        _check_root(root)
        sides = {modality: _positions(images, root, modality) for modality in MODALITIES}
        visible, infrared = map(np.concatenate, sides.values())
        drawn = {modality: [_draw(groups, seed) for seed in range(TRIALS)] for modality, groups in sides.items()}
        locations = cls.locations_of(images.cameras)

        def search(
            query: np.ndarray, setting: str, galleries: Sequence[np.ndarray], *, infrared_queries: bool = True
        ) -> Search:
            pool = np.unique(np.concatenate(galleries))
            columns = tuple(np.searchsorted(pool, gallery) for gallery in galleries)
            return Search(
                query,
                pool,
                locations[query],
                locations[pool],
                {setting: columns},
                neighbours="queries",
                exclude="identity_and_camera",
                infrared_queries=infrared_queries,
            )

        # as in the public code since June 2023: the sampled infrared images search all visible ones
        released = [search(query, "visible_to_infrared_released", [visible]) for query in drawn[INFRARED]]
        # all images of both sides, and no image is ignored: the two numbers of a camera count as two locations
        everything = Search(
            infrared,
            visible,
            images.cameras[infrared],
            images.cameras[visible],
            {"infrared_to_visible_all": (np.arange(len(visible)),)},
            neighbours="all",
            reverse="visible_to_infrared_all",
        )
        return (
            search(infrared, "infrared_to_visible", drawn[VISIBLE]),
            search(visible, "visible_to_infrared", drawn[INFRARED], infrared_queries=False),
            *released,
            everything,
        )


class Entry(NamedTuple):
    """An image. Entries are ordered as the protocol orders images: by identity, camera and name."""

    identity: int
    camera: int
    name: str  # of the file
    path: str  # relative to the root
    label: int  # in the list


def _check_root(root: Path) -> None:
    """Raise ``UserError`` if ``root`` lacks the lists, or is the folder around the data set."""
    inner = root / "LLCM"
    if inner.is_dir() and not (root / "idx").is_dir():
        raise UserError(f"{root}: holds a further folder LLCM; set data_root to {inner}")
    require([folder_problem(root / "idx", "LLCM has idx with its lists")])


def _index(root: Path, split: str, modality: Modality) -> Path:
    return root / "idx" / f"{split}_{modality.folder}.txt"


def _content(modality: Modality) -> str:
    kind = "visible" if modality is VISIBLE else "infrared"
    return f"the {kind} images, one 'relative/path label' per line (part of LLCM)"


def _read_index(root: Path, split: str, modality: Modality) -> list[Entry]:
    """The entries of a list, in order."""
    index = _index(root, split, modality)
    entries = sorted(_parse_line(line, index, modality) for line in read_lines(index, _content(modality)))
    for entry, following in zip(entries, entries[1:], strict=False):
        if entry[:3] == following[:3]:
            raise UserError(f"{index}: {following.path} is listed twice")
    if not entries:
        raise UserError(f"{index}: lists no image")
    return entries


def _parse_line(line: str, index: Path, modality: Modality) -> Entry:
    words = line.rsplit(maxsplit=1)
    label = parse_number(words[-1])
    if len(words) != 2 or label is None:
        raise UserError(f"{index}: expected 'relative/path label', found {line[:80]!r}")
    path = inside_root(words[0], index)
    parts = path.split("/")
    identity = parse_number(parts[1]) if len(parts) == 3 and parts[0] == modality.folder else None
    if identity is None:
        raise UserError(f"{index}: {words[0][:80]!r} is not of the form {modality.folder}/<identity>/<name>")
    found = CAMERA_IN_NAME.search(parts[2])
    camera = int(found[1]) if found else 0
    if camera not in modality.cameras:
        raise UserError(
            f"{index}: {words[0][:80]!r}: the file's name should hold _c and one of the cameras"
            f" {', '.join(map(str, modality.cameras))}"
        )
    return Entry(identity, camera + modality.offset, parts[2], path, label)


def _check_labels(root: Path, listed: Mapping[Modality, Sequence[Entry]]) -> None:
    """Raise ``UserError`` unless identities have images of both modalities, and labels belong to one identity each."""
    of_modality = {modality: {entry.identity for entry in entries} for modality, entries in listed.items()}
    require([
        f"{_index(root, 'train', modality)}: lists no image of identity {identity}, which the other modality has"
        for modality, own in of_modality.items()
        for identity in sorted(set().union(*of_modality.values()) - own)
    ])  # fmt: skip
    label_of: dict[int, int] = {}
    identity_of: dict[int, int] = {}
    for modality, entries in listed.items():
        for identity, _, _, _, label in entries:
            if label_of.setdefault(identity, label) != label:
                labels = f"the labels {label_of[identity]} and {label}"
                raise UserError(f"{_index(root, 'train', modality)}: identity {identity} has {labels}")
            if identity_of.setdefault(label, identity) != identity:
                identities = f"the identities {identity_of[label]} and {identity}"
                raise UserError(f"{_index(root, 'train', modality)}: label {label} is given to {identities}")


def _read_test(root: Path, modality: Modality) -> list[Entry]:
    """The test images of a modality, in order: those of its test folder, else those of its list."""
    identities = set(read_identities(root / TEST_IDS, ID_CONTENT))
    folder, index = _test_folder(root, modality), _index(root, "test", modality)
    if folder.is_dir():
        found = [entry for identity in sorted(identities) for entry in _read_folders(folder, identity, modality)]
        if not found:
            raise UserError(
                f"{folder}: holds no .jpg of the identities of {TEST_IDS}; unpack it again, or remove it to use"
                f" {index.name}"
            )
        return found
    if not index.is_file():
        raise UserError(f"{folder}: no such folder, and no {index} to take its place; unpack LLCM again")
    found = [entry for entry in _read_index(root, "test", modality) if entry.identity in identities]
    if not found:
        raise UserError(f"{index}: lists no image of the identities of {TEST_IDS}")
    return found


def _test_folder(root: Path, modality: Modality) -> Path:
    return root / f"test_{modality.folder}"


def _read_folders(folder: Path, identity: int, modality: Modality) -> Iterator[Entry]:
    """The images of an identity in a test folder, in order."""
    for camera in modality.cameras:
        subfolder = f"cam{camera}/{identity:04d}"
        for name in sorted(filter(_is_image, list_files(folder / subfolder))):
            yield Entry(identity, camera + modality.offset, name, f"{folder.name}/{subfolder}/{name}", identity)


def _is_image(name: str) -> bool:
    """Whether a file counts as an image: any other, such as Thumbs.db, would change every later draw of a trial."""
    return name.endswith(".jpg") and not name.startswith(".")


def _stray_files(root: Path) -> Iterator[str]:
    """One line per test folder with other files than images."""
    for modality in MODALITIES:
        folder = _test_folder(root, modality)
        stray = sorted(
            path
            for pattern in ("*", "*/*", "*/*/*")
            for path in folder.glob(pattern)
            if not _is_image(path.name) and path.is_file()
        )
        if stray:
            first = stray[0].relative_to(root).as_posix()
            yield f"{folder.name}: only .jpg files are counted, other files: {len(stray)}, the first is {first}"


def _unlike_lists(root: Path, listed: Mapping[Modality, Sequence[Entry]]) -> Iterator[str]:
    """One line per test folder that holds other images than its list. The test follows the folder."""
    for modality, entries in listed.items():
        if _test_folder(root, modality).is_dir() and _index(root, "test", modality).is_file():
            held = {entry[:3] for entry in entries}
            named = {entry[:3] for entry in _read_index(root, "test", modality)}
            if held != named:
                lacking, more = len(named - held), len(held - named)
                where = f"idx/test_{modality.folder}.txt"
                yield f"test_{modality.folder}: lacks {lacking} images of {where}, and holds {more} that are not in it"


def _missing_images(root: Path, split: str, listed: Mapping[Modality, Sequence[Entry]]) -> list[str]:
    """Error messages for images that a list names but the folders lack."""

    @cache
    def names_in(folder: Path) -> frozenset[str]:
        # each folder is listed once, because 46,345 calls of is_file are slow on a network disk
        return frozenset(list_files(folder))

    return [
        f"{root / entry.path}: no such image, but {_index(root, split, modality)} lists it"
        for modality, entries in listed.items()
        for entry in entries
        if entry.name not in names_in((root / entry.path).parent)
        and not is_file(root / entry.path)  # some file systems ignore case
    ]


def _positions(images: ImageTable, root: Path, modality: Modality) -> list[np.ndarray]:
    """Positions of the test images of a modality: one array per identity and camera, in the protocol's order."""
    cameras = {camera + modality.offset for camera in modality.cameras}
    columns = (images.identities.tolist(), images.cameras.tolist(), images.paths.tolist())
    given = int(np.isin(images.cameras, list(cameras)).sum())
    table = {
        (identity, camera, path.replace("\\", "/").rsplit("/", 1)[-1]): position
        for position, (identity, camera, path) in enumerate(zip(*columns, strict=True))
        if camera in cameras
    }
    if len(table) < given:
        raise UserError(f"{root}: {given - len(table)} of the given images are there twice; give each image once")
    expected = [entry[:3] for entry in _read_test(root, modality)]
    missing, foreign = set(expected) - table.keys(), table.keys() - set(expected)
    if missing:
        identity, camera, name = min(missing)
        raise UserError(
            f"{root}: the test set has {name} of identity {identity} and camera {camera}, but the given images lack it"
            f" ({len(missing)} are missing); extract the features of the whole test set"
        )
    if foreign:
        identity, camera, name = min(foreign)
        raise UserError(
            f"{root}: the test set has no {name} of identity {identity} and camera {camera}, but the given images have"
            f" it ({len(foreign)} like it); extract the features of this test set"
        )
    groups: dict[tuple[int, int], list[int]] = {}
    for identity, camera, name in expected:
        groups.setdefault((identity, camera), []).append(table[identity, camera, name])
    return [np.array(group) for group in groups.values()]


def _draw(groups: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """One image of each group, as the public code draws them: Python's ``random``, seeded once per trial."""
    generator = random.Random(seed)
    return np.array([generator.choice(group.tolist()) for group in groups])
