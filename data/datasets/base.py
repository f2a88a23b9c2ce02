"""What every data set shares: samples, reading images, checks, batches, and which cameras are infrared."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from data.datasets.images import read_image
from data.datasets.lists import require_folder
from utils.run.errors import UnreadableImage

INFRARED_CAMERAS = (3, 6)
SPLITS = ("train", "test")


def is_infrared(cameras: np.ndarray) -> np.ndarray:
    """Which of these cameras are infrared: integers -> booleans of the same shape."""
    return np.isin(cameras, INFRARED_CAMERAS)


class Sample(NamedTuple):
    """One image of a split."""

    path: str  # below the data set's root, with forward slashes
    identity: int  # as the data set numbers it
    camera: int
    label: int  # class index 0 ... in training, the identity in testing


class Batch(NamedTuple):
    """What a loader gives: images and what is known of them."""

    images: Tensor  # (B, 3, H, W) uint8
    labels: Tensor  # (B,) int64
    cameras: Tensor  # (B,) int64
    indices: Tensor  # (B,) int64, positions in the data set

    @property
    def is_infrared(self) -> Tensor:
        """(B,) booleans, on the device of ``cameras``."""
        return torch.isin(self.cameras, torch.tensor(INFRARED_CAMERAS, device=self.cameras.device))


class ImageSource(Protocol):
    """Where the images of a split come from; whatever it is, they are the same bit for bit."""

    for_workers: bool  # whether loader processes can, and should, read from it

    def take(self, positions: Sequence[int]) -> Tensor:
        """The images at ``positions``: (B, 3, H, W) uint8."""


class ImageFiles:
    """Images decoded whenever they are taken; ``advice`` says what to do about one that cannot be."""

    for_workers = True

    def __init__(self, paths: Sequence[Path], image_size: tuple[int, int], *, advice: str):
        self.paths, self.image_size, self.advice = paths, image_size, advice

    def take(self, positions: Sequence[int]) -> Tensor:
        try:
            images = [torch.from_numpy(read_image(self.paths[i], self.image_size)) for i in positions]
        except UnreadableImage as error:
            raise UnreadableImage(f"{error}; {self.advice}") from None
        return default_collate(images)  # which in a loader process stacks into the memory shared with the main one

    def __str__(self) -> str:
        return "decoded when needed"


class ReIDDataset(Dataset, ABC):
    """Images of one split, decoded and resized, as uint8; a data set supplies only the list of its samples.

    Images come from ``source``: the files, unless a cache takes their place (``data/cache.py``). Loaders fetch whole
    batches at once, through ``__getitems__``.

    Args:
        root: the folder that the data set was unpacked to.
        split: ``train`` or ``test``.
        image_size: (height, width) in pixels.
        trial: which of several published splits; data sets with one split ignore it.

    Raises:
        UserError: a folder, list or image that is missing, or a list that cannot be read; names the path.
    """

    name: ClassVar[str]
    cameras: ClassVar[tuple[int, ...]]
    defaults: ClassVar[dict[str, object]]  # of the configuration keys that depend on the data set

    def __init__(self, root: str | Path, split: str, image_size: tuple[int, int], *, trial: int = 1):
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
        self.root = require_folder(Path(root), f"set data_root to where {self.name} was unpacked")
        self.split = split
        self.image_size = tuple(image_size)
        self.trial = trial
        self.left_out: list[str] = []  # why images of the lists are no samples, a line each
        self._set_samples(self.list_samples())

    def _set_samples(self, samples: list[Sample]) -> None:
        self.samples = samples
        self.paths = np.array([sample.path for sample in self.samples])
        self.identities = np.array([sample.identity for sample in self.samples], dtype=np.int64)
        self.camera_ids = np.array([sample.camera for sample in self.samples], dtype=np.int64)
        self.infrared = is_infrared(self.camera_ids)
        self.labels = np.array([sample.label for sample in self.samples], dtype=np.int64)
        files = [self.root / sample.path for sample in self.samples]
        self.source: ImageSource = ImageFiles(files, self.image_size, advice=self.advice)

    def leave_out(self, reasons: Mapping[int, str]) -> None:
        """Take the images at these positions out of the samples, for reasons that the summary gives; labels stay."""
        self.left_out += reasons.values()
        self._set_samples([sample for position, sample in enumerate(self.samples) if position not in reasons])

    @abstractmethod
    def list_samples(self) -> list[Sample]:
        """The samples of ``self.split`` below ``self.root``, in the order that defines their positions."""

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Batch:
        """One image, without the dimension of the batch."""
        return Batch(*(values[0] for values in self.__getitems__([index])))

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch of these images; wherever they come from, all but the images is on the CPU."""
        positions = np.array(indices, dtype=np.int64)
        known = (torch.from_numpy(values) for values in (self.labels[positions], self.camera_ids[positions], positions))
        return Batch(self.source.take(indices), *known)

    @property
    def advice(self) -> str:
        """What to do about an image that cannot be read: the test set is never thinned."""
        return "replace it, or set skip_unreadable true" if self.split == "train" else "replace it"

    @property
    def num_identities(self) -> int:
        return len(np.unique(self.identities))

    @property
    def fingerprint(self) -> str:
        """Stands for the images and their labels, in their order, wherever the data set lies."""
        return hashlib.sha256("\n".join(f"{s.path} {s.label}" for s in self.samples).encode()).hexdigest()

    def summary(self) -> str:
        """Identities and images per modality and camera, and where images come from: a few lines for the log."""
        lines = [
            f"{self.name} {self.split}: {self.num_identities} identities, {len(self)} images"
            f" ({(~self.infrared).sum()} visible, {self.infrared.sum()} infrared) in {self.root}"
        ]
        images = Counter(self.camera_ids.tolist())
        for camera in self.cameras:
            kind = "infrared" if camera in INFRARED_CAMERAS else "visible"
            identities = len(np.unique(self.identities[self.camera_ids == camera]))
            lines.append(f"  camera {camera} ({kind}): {identities} identities, {images[camera]} images")
        lines.append(f"  images: {self.source}")
        if self.left_out:
            lines.append(f"  left out, because they cannot be read: {len(self.left_out)} images")
            lines += [f"    {reason}" for reason in self.left_out]
        return "\n".join(lines)
