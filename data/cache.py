"""Cache of decoded and resized images: in a memory-mapped file, or on the device.

A cache file is a header of one page, which says what the images were made from, and the images, uint8 (N, 3, H, W). It
gets its final name when it is complete. It is reused only if header and size match; otherwise it is rebuilt.
"""

import hashlib
import json
import math
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
import torch
from PIL import features
from torch import Tensor
from torch.utils.data import default_collate
from tqdm import tqdm

from data.datasets.base import ReIDDataset
from data.datasets.images import ImageFiles
from data.loaders import ordered_loader
from utils.run.errors import UserError
from utils.tensors import send

FORMAT = 2  # version of the file format; increase it when decoding changes
HEADER_BYTES = 4096  # one page, so that the images after it are aligned
CHUNK = 64  # images that are decoded, copied or written at once
ABANDONED_SECONDS = 3600  # a partial file that nobody has written to for this long belongs to a killed run


class CacheFile:
    """Path, size and header of the cache file of one split.

    Args:
        image_size: (height, width) in pixels.
        folder: the folder of the cache files.
        resize: a name in ``RESIZES``.
    """

    def __init__(self, dataset: ReIDDataset, image_size: tuple[int, int], folder: Path, *, resize: str = "bilinear"):
        height, width = image_size
        root = hashlib.sha256(str(dataset.root.resolve()).encode()).hexdigest()[:12]
        name = f"{dataset.name}-{dataset.split}-{dataset.trial}-{height}x{width}-{resize}-{root}.images"
        self.path = folder / name
        self.shape = (len(dataset), 3, height, width)
        self.header = _header(dataset, self.shape, resize)
        self.bytes = HEADER_BYTES + math.prod(self.shape)

    def is_current(self) -> bool:
        """Whether the file exists and is up to date."""
        try:
            with self.path.open("rb") as file:
                return self.matches(file)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UserError(f"{self.path}: the cache cannot be read ({error.strerror}); set cache_dir") from None

    def matches(self, file: BinaryIO) -> bool:
        """Whether size and header of an open file are as expected; leaves the file position after the header."""
        return os.fstat(file.fileno()).st_size == self.bytes and file.read(HEADER_BYTES) == self.header


class MappedImages:
    """The images of a cache file, memory-mapped and read-only; all processes share its pages."""

    use_workers = True

    def __init__(self, file: CacheFile):
        self.file = file
        # checked and mapped through one handle, in case another run replaces the file
        with file.path.open("rb") as opened:
            if not file.matches(opened):
                raise UserError(f"{file.path}: another run replaced this cache with other images; set cache_dir")
            mapped = np.memmap(opened, np.uint8, "r", offset=HEADER_BYTES, shape=file.shape)
        with warnings.catch_warnings():  # torch has no read-only tensors; nothing here writes
            warnings.filterwarnings("ignore", message=".*not writable", category=UserWarning)
            self.images = torch.from_numpy(np.asarray(mapped))

    def take(self, positions: Sequence[int]) -> Tensor:
        # default_collate, because in a loader process it stacks into memory that is shared with the main one
        return default_collate([self.images[i] for i in positions])

    def __reduce__(self) -> tuple:
        return MappedImages, (self.file,)  # a spawned process maps the file again

    def __str__(self) -> str:
        return f"cached in {self.file.path}"


class DeviceImages:
    """Images in the memory of a device."""

    use_workers = False

    def __init__(self, images: Tensor):
        self.images = images

    def take(self, positions: Sequence[int]) -> Tensor:
        return self.images.index_select(0, send(torch.tensor(positions), self.images.device))

    def __str__(self) -> str:
        return f"cached in memory of {self.images.device}"


def disk_source(
    dataset: ReIDDataset, image_size: tuple[int, int], folder: Path, *, num_workers: int, resize: str = "bilinear"
) -> MappedImages:
    """The images of a cache file in ``folder``, which is written first unless it is up to date.

    Args:
        image_size: (height, width) in pixels.
        num_workers: processes that decode; 0 decodes in the main process.
        resize: a name in ``RESIZES``.

    Raises:
        UserError: an image cannot be decoded, or the disk is too small.
    """
    # made before decoding: an image that changes while decoding invalidates the cache
    file = CacheFile(dataset, image_size, folder, resize=resize)
    if not file.is_current():
        _write(file, _decoded(dataset, image_size, num_workers, resize))
    return MappedImages(file)


def device_source(
    dataset: ReIDDataset,
    image_size: tuple[int, int],
    folder: Path,
    device: torch.device,
    *,
    num_workers: int,
    resize: str = "bilinear",
) -> DeviceImages:
    """The images in the memory of ``device``.

    They are copied from the cache file in ``folder`` if it is up to date, else decoded. No cache file is written.

    Args:
        image_size: (height, width) in pixels.
        num_workers: processes that decode; 0 decodes in the main process.
        resize: a name in ``RESIZES``.

    Raises:
        UserError: an image cannot be decoded, or the device has too little free memory.
    """
    file = CacheFile(dataset, image_size, folder, resize=resize)
    require_memory(math.prod(file.shape), device)
    chunks: Iterable[Tensor]
    if file.is_current():
        chunks = MappedImages(file).images.split(CHUNK)
    else:
        chunks = _decoded(dataset, image_size, num_workers, resize)
    images = torch.empty(file.shape, dtype=torch.uint8, device=device)
    for part, chunk in zip(images.split(CHUNK), chunks, strict=True):
        part.copy_(chunk)
    return DeviceImages(images)


def require_memory(needed: int, device: torch.device) -> None:
    """Raise ``UserError`` if ``device`` has less than ``needed`` bytes of free memory."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    if needed > free:
        raise UserError(
            f"cache: 'device' needs {gigabytes(needed)}, but {device} has {gigabytes(free)} free; use cache disk"
        )


def available_memory() -> float:
    """Bytes that can be used without swapping; infinite if unknown."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return math.inf


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def _header(dataset: ReIDDataset, shape: tuple[int, ...], resize: str) -> bytes:
    """The first page of a cache file: shape and filter of the images, and a hash of the files they were made from."""
    files = hashlib.sha256()
    for path in dataset.paths:
        try:
            state = (dataset.root / path).stat()
        except OSError as error:
            raise UserError(f"{dataset.root / path}: cannot be read ({error.strerror})") from None
        # ctime, too, because unpacking and copying restore mtime, and many images have the same size
        entry = [str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        files.update(json.dumps(entry).encode())
    content = {
        "format": FORMAT,
        "shape": shape,
        "resize": resize,
        "files": files.hexdigest(),  # names, sizes and times of change, in their order
        "pillow": PIL.__version__,  # Pillow and its JPEG library decide how a file is decoded
        "jpeg": features.version("jpg"),
    }
    return f"MCJA image cache {json.dumps(content)}".encode().ljust(HEADER_BYTES - 1) + b"\n"


def _decoded(dataset: ReIDDataset, image_size: tuple[int, int], num_workers: int, resize: str) -> Iterator[Tensor]:
    """All images in order, in chunks of uint8 (B, 3, H, W)."""
    positions, source = list(range(len(dataset))), ImageFiles(dataset, image_size, resize=resize)
    loader = ordered_loader(dataset, source, positions, batch_size=CHUNK, num_workers=num_workers, pin_memory=False)
    bar = tqdm(total=len(dataset), desc=f"cache ({dataset.split})", unit=" images", leave=False, disable=None)
    with closing(loader), bar:
        for batch in loader:
            yield batch.images
            bar.update(len(batch.images))


def _write(file: CacheFile, chunks: Iterable[Tensor]) -> None:
    """Write the file under a temporary name, then rename it. Several runs may do this at once."""
    path, folder = file.path, file.path.parent
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        free = shutil.disk_usage(folder).free
        if free < file.bytes:
            raise UserError(
                f"{folder}: the cache needs {gigabytes(file.bytes)} and the disk has {gigabytes(free)} left; set"
                " cache_dir to a folder on another disk, or cache none"
            )
        with partial.open("xb") as opened:
            opened.write(file.header)
            for chunk in chunks:
                opened.write(chunk.numpy().data)
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: the cache cannot be written ({error.strerror or error}); set cache_dir") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)  # after success it is gone: it has its final name


def _remove_abandoned(path: Path) -> None:
    """Delete the partial files of this cache that killed runs left behind."""
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        with suppress(FileNotFoundError):  # another run has deleted it
            if time.time() - partial.stat().st_mtime > ABANDONED_SECONDS:
                partial.unlink()
