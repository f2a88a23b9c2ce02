"""What every layout offers: its cameras, who is seen by them, where images lie, and lists."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from tools.synthetic.camera import CameraSpec
from utils.run.errors import UserError

DEFAULT_IDENTITIES = 100
DEFAULT_IMAGES = 10
LARGEST_NUMBER = 9999  # of identities and images, which have four digits

Counts = dict[int, dict[int, int]]  # identity -> camera -> number of images


class Layout(ABC):
    """A data set to be rendered.

    A subclass takes ``seed``, and those of the arguments of ``make_synthetic`` that it supports: identities,
    images_per_camera, test_identities, permutation. It raises a UserError where one is out of range.
    """

    cameras: ClassVar[dict[int, CameraSpec]]
    counts: Counts

    @abstractmethod
    def image_path(self, camera: int, identity: int, instance: int) -> Path:
        """The path of an image relative to the root; ``instance`` counts from 1."""

    @abstractmethod
    def write_lists(self, root: Path) -> None:
        """Write the lists of the data set below ``root``."""


def require_range(name: str, value: int, least: int, most: int | None = None) -> None:
    """Raise a UserError where a number is out of range."""
    if value < least or (most is not None and value > most):
        expected = f"at least {least}" if most is None else f"{least} to {most}"
        raise UserError(f"{name} must be {expected}, not {value}")
