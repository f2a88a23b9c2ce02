"""Images of a list, decoded and resized when needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from utils.images import open_image
from utils.protocols import ImageTable
from utils.run.errors import UnreadableImage

RESIZES = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}  # both with antialias


class ImageList(ImageTable, Protocol):
    """Images to extract features of: a data set, or a folder."""

    root: Path

    @property
    def advice(self) -> str: ...  # what to do about an image that cannot be read

    @property
    def labels(self) -> np.ndarray: ...  # (N,) int64

    @property
    def infrared(self) -> np.ndarray: ...  # (N,) bool

    def __len__(self) -> int: ...


class ImageSource(Protocol):
    """The source of the images of a split. Every source gives the same images, bit for bit."""

    use_workers: bool  # whether loader processes read the images

    def take(self, positions: Sequence[int]) -> Tensor:
        """The images at ``positions``: (B, 3, H, W) uint8."""


class ImageFiles:
    """Images that are decoded each time they are needed.

    Args:
        image_size: (height, width) in pixels.
        resize: a name in ``RESIZES``.
    """

    use_workers = True

    def __init__(self, dataset: ImageList, image_size: tuple[int, int], *, resize: str = "bilinear"):
        self.paths = [dataset.root / path for path in dataset.paths]
        self.image_size, self.resize, self.advice = image_size, resize, dataset.advice

    def take(self, positions: Sequence[int]) -> Tensor:
        try:
            images = [torch.from_numpy(read_image(self.paths[i], self.image_size, self.resize)) for i in positions]
        except UnreadableImage as error:
            raise UnreadableImage(f"{error}; {self.advice}") from None
        return default_collate(images)  # in a loader process, it stacks into memory that is shared with the main one

    def __str__(self) -> str:
        return "decoded when needed"


def read_image(path: Path, image_size: tuple[int, int], resize: str = "bilinear") -> np.ndarray:
    """Decode as RGB and resize: a (3, H, W) uint8 array.

    Args:
        image_size: (height, width) in pixels.
        resize: a name in ``RESIZES``.

    Raises:
        UnreadableImage: the file is missing, cannot be decoded, or 8-bit RGB cannot represent it.
    """
    height, width = image_size
    resized = open_image(path).resize((width, height), RESIZES[resize])
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
