"""Decode images as the released code does, and refuse those that 8-bit RGB cannot represent."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import default_collate

from utils.protocols import ImageTable
from utils.run.errors import UnreadableImage, reason

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # EPS etc. are excluded: their decoders run other programs
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # at most eight bits per channel
RESIZES = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}  # both with antialias
MAX_PIXELS = 2**25  # larger than any re-ID image, small enough for memory

# Pillow warns of large images; here they are refused instead
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


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
    try:
        with Image.open(path, formats=FORMATS) as image:
            _require_faithful(image, path)
            resized = image.convert("RGB").resize((width, height), RESIZES[resize])
    except UnreadableImage:
        raise
    except FileNotFoundError:
        raise UnreadableImage(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise UnreadableImage(f"{path}: cannot be decoded as an image (it is none of {', '.join(FORMATS)})") from None
    except Exception as error:  # Pillow raises many kinds of errors on damaged files
        why = getattr(error, "strerror", None) or reason(error)
        raise UnreadableImage(f"{path}: cannot be decoded as an image ({why})") from None
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def _require_faithful(image: Image.Image, path: Path) -> None:
    """Refuse images that 8-bit RGB cannot represent, and huge ones; reads the header only."""
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(
            f"{path}: has {image.width} x {image.height} pixels, more than the limit of {MAX_PIXELS}; crop it to the"
            " person"
        )
    if image.mode not in MODES:
        raise UnreadableImage(f"{path}: has mode {image.mode}, which 8-bit RGB cannot represent; save it as RGB")
    # the first image of an MPO file is the photograph; phones store previews and depth maps after it
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise UnreadableImage(f"{path}: is animated; save a single image")
