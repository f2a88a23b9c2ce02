"""Images of any folder, without identities."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from data.datasets.images import read_image
from data.loaders import ProcessLoader
from utils.run.errors import UnreadableImage, UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
GREY = 4.0  # infrared: the mean difference between the largest and the smallest channel is below this, of 255
SMALL = (32, 16)  # size at which the colours of an image are looked at


class FolderImages:
    """Images below a folder, with what the extraction needs to know of a data set.

    Args:
        root: the folder.
        paths: of the images, relative to ``root``.
        infrared: (N,) bool, which of the images are infrared.
    """

    advice = "remove it from the folder"

    def __init__(self, root: Path, paths: list[str], infrared: np.ndarray):
        self.root, self.paths, self.infrared = root, np.array(paths, dtype=str), infrared
        # not known: numbers that no data set uses
        self.identities = self.cameras = self.labels = np.full(len(paths), -1, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.paths)


def list_images(root: Path) -> list[str]:
    """Paths of the images below ``root``, relative to it, sorted. Hidden files and folders are left out.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    relative = (path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in ENDINGS)
    paths = sorted(path.as_posix() for path in relative if not any(part.startswith(".") for part in path.parts))
    if not paths:
        raise UserError(f"{root}: no image in it ({', '.join(ENDINGS)})")
    return paths


def looks_infrared(path: Path) -> bool:
    """Whether an image has almost no colour, as infrared images have.

    Raises:
        UnreadableImage: it cannot be decoded.
    """
    image = read_image(path, SMALL).astype(np.int16)
    return float((image.max(axis=0) - image.min(axis=0)).mean()) < GREY


class _Looks(Dataset):
    """Per image: whether it looks infrared, or why it cannot be read."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> bool | str:
        path = self.paths[position]
        if not path.is_file():  # a broken link, a folder; opening a pipe would wait for ever
            return "not a file"
        try:
            return looks_infrared(path)
        except UnreadableImage as error:
            return str(error).removeprefix(f"{path}: ")


def modalities(paths: Sequence[Path], *, num_workers: int) -> list[bool | str]:
    """For each image whether it looks infrared, or why it cannot be read.

    Args:
        num_workers: processes that decode; 0 decodes in the main process.
    """
    loader = ProcessLoader(_Looks(paths), batch_size=64, num_workers=num_workers, collate_fn=list)
    with closing(loader):
        return [look for batch in loader for look in batch]


def open_folder(root: Path, *, infrared: bool | None = None, num_workers: int) -> tuple[FolderImages, list[str]]:
    """The images below ``root`` that can be read, and for each of the others a line that says why it cannot.

    Args:
        infrared: whether the images are infrared; None: guessed for each image from its colours.
        num_workers: processes that decode; 0 decodes in the main process.

    Raises:
        UserError: there is no such folder, or no image in it that can be read.
    """
    paths = list_images(root)
    looks = modalities([root / path for path in paths], num_workers=num_workers)
    problems = [f"{root / path}: {look}" for path, look in zip(paths, looks, strict=True) if isinstance(look, str)]
    readable = {path: look for path, look in zip(paths, looks, strict=True) if not isinstance(look, str)}
    if not readable:
        raise UserError(f"{root}: none of its {len(problems)} images can be decoded; the first one is {problems[0]}")
    sides = np.array(list(readable.values())) if infrared is None else np.full(len(readable), infrared)
    return FolderImages(root, list(readable), sides), problems
