"""What all data sets share. A data set is one subclass in a file of its own and one entry in ``DATASETS``."""

import copy
import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from data.datasets.lists import folder_problem, require
from utils.protocols import ImageTable, Search, only

SPLITS = ("train", "test")


class Sample(NamedTuple):
    """One image of a split."""

    path: str  # relative to the data set's root, with forward slashes
    identity: int  # as numbered by the data set
    camera: int
    label: int  # training: class index 0, 1, ...; testing: the identity


class Counts(NamedTuple):
    """Size of a split."""

    identities: int
    visible: int  # images
    infrared: int

    def __str__(self) -> str:
        return "{:,} identities, {:,} visible and {:,} infrared images".format(*self)


class ReIDDataset(ABC):
    """The samples of one split, and all facts about the data set.

    Images are read by a source (``data/datasets/images.py``, ``data/cache.py``), not by the data set.

    Args:
        root: the folder that the data set was unpacked to.
        split: ``train`` or ``test``.
        trial: number of the published split (RegDB); data sets with a single one ignore it.

    Raises:
        UserError: folders, lists or images are missing, or a list cannot be read; all problems are reported together.
    """

    name: ClassVar[str]
    visible_cameras: ClassVar[tuple[int, ...]]
    infrared_cameras: ClassVar[tuple[int, ...]]
    # Cameras that see the same place share a location; an unlisted camera has its own. `Search.exclude` says which
    # gallery images from the query's location are ignored.
    locations: ClassVar[Mapping[int, int]] = {}
    # values of the configuration keys that depend on the data set: num_id, num_cam, data_root, mser_k1, ...
    defaults: ClassVar[Mapping[str, Any]]
    published: ClassVar[Mapping[str, Counts]] = {}  # size of each split, where it is published
    num_splits: ClassVar[int] = 1  # published splits into training and test identities; the key `trial` chooses one
    selection: ClassVar[tuple[str, ...]]  # the settings whose mean metric `select_by` selects the best model
    # configuration key -> its values -> the settings that each adds to the results; the first value adds none
    variants: ClassVar[Mapping[str, Mapping[str, tuple[str, ...]]]] = {}

    def __init__(self, root: str | Path, split: str, *, trial: int = 1):
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
        self.root, self.split, self.trial = Path(root), split, trial
        require([folder_problem(self.root, f"set data_root to the folder that {self.name} was unpacked to")])
        self.left_out: tuple[str, ...] = ()  # one line per image that `without` has left out
        self.notes: tuple[str, ...] = ()  # lines about the files for the log and the doctor
        self._set_samples(self.list_samples())

    @abstractmethod
    def list_samples(self) -> list[Sample]:
        """The samples of ``self.split`` below ``self.root``; their order defines the positions of the images."""

    @classmethod
    @abstractmethod
    def protocol(cls, images: ImageTable, root: Path) -> tuple[Search, ...]:
        """The test protocol: queries and galleries of every setting.

        Args:
            images: the test images, from a data set or a file of features, in any order.
            root: the folder of the data set, for its lists.

        Raises:
            UserError: an image that the protocol needs is missing.
        """

    @classmethod
    def chosen_protocol(cls, images: ImageTable, root: Path, values: Mapping[str, str]) -> tuple[Search, ...]:
        """The protocol with the chosen variants.

        Args:
            images, root: as of :meth:`protocol`.
            values: values of the keys of ``variants``; a key that is left out has its first value.
        """
        added = {name for of_key in cls.variants.values() for settings in of_key.values() for name in settings}
        chosen = {name for key, value in values.items() for name in cls.variants[key][value]}
        protocol = cls.protocol(images, root)
        return only(protocol, {name for search in protocol for name in search.settings} - added | chosen)

    @classmethod
    def cameras_of(cls) -> tuple[int, ...]:
        """All cameras, ascending."""
        return tuple(sorted(cls.visible_cameras + cls.infrared_cameras))

    @classmethod
    def locations_of(cls, cameras: np.ndarray) -> np.ndarray:
        """The location of each camera number: (N,) -> (N,)."""
        return np.array([cls.locations.get(camera, camera) for camera in cameras.tolist()], dtype=np.int64)

    def _set_samples(self, samples: list[Sample]) -> None:
        # (N,) arrays; their indices are the positions of the images
        self.samples = samples
        self.paths = np.array([sample.path for sample in samples])
        self.identities = np.array([sample.identity for sample in samples], dtype=np.int64)
        self.cameras = np.array([sample.camera for sample in samples], dtype=np.int64)
        self.labels = np.array([sample.label for sample in samples], dtype=np.int64)
        self.infrared = np.isin(self.cameras, self.infrared_cameras)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def num_identities(self) -> int:
        return len(np.unique(self.identities))

    @property
    def counts(self) -> Counts:
        return Counts(self.num_identities, int((~self.infrared).sum()), int(self.infrared.sum()))

    @property
    def fingerprint(self) -> str:
        """A hash of the relative paths and labels, in their order."""
        return hashlib.sha256("\n".join(f"{s.path} {s.label}" for s in self.samples).encode()).hexdigest()

    @property
    def advice(self) -> str:
        """What to do about an image that cannot be read. Test images are never left out."""
        return "replace it, or set skip_unreadable true" if self.split == "train" else "replace it"

    def without(self, unreadable: Mapping[int, str]) -> "ReIDDataset":
        """A copy without the images at these positions. Labels stay as they are.

        Args:
            unreadable: position -> why the image cannot be read; the summary shows it.

        Raises:
            UserError: an identity would lose all its images, or all images of one modality.
        """
        kept = np.ones(len(self), dtype=bool)
        kept[list(unreadable)] = False
        require([self._lost_modality(identity, kept) for identity in np.unique(self.identities[~kept]).tolist()])
        result = copy.copy(self)
        result.left_out = (*self.left_out, *unreadable.values())
        result._set_samples([sample for sample, keep in zip(self.samples, kept, strict=True) if keep])
        return result

    def _lost_modality(self, identity: int, kept: np.ndarray) -> str:
        """Error message if the identity would lose a modality with only the ``kept`` images, else an empty string."""
        of_identity = self.identities == identity
        modalities = {
            "": of_identity,
            "visible ": of_identity & ~self.infrared,
            "infrared ": of_identity & self.infrared,
        }
        for kind, images in modalities.items():
            if images.any() and not (images & kept).any():
                return (
                    f"{self.root / self.paths[images][0]}: skip_unreadable would leave no {kind}image of identity"
                    f" {identity} ({images.sum()} cannot be read); repair them, or remove the identity from the lists"
                )
        return ""

    def summary(self) -> str:
        """Numbers of identities and images per modality and camera, in a few lines for the log."""
        lines = [f"{self.name} {self.split}: {self.counts} in {self.root}"]
        images = Counter(self.cameras.tolist())
        for camera in self.cameras_of():
            kind = "infrared" if camera in self.infrared_cameras else "visible"
            identities = len(np.unique(self.identities[self.cameras == camera]))
            lines.append(f"  camera {camera} ({kind}): {identities} identities, {images[camera]} images")
        lines += [f"  {note}" for note in self.notes]
        if self.left_out:
            lines.append(f"  left out because they cannot be read: {len(self.left_out)} images")
            lines += [f"    {reason}" for reason in self.left_out]
        return "\n".join(lines)
