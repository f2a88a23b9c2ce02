"""Decoded images kept for later: in a memory-mapped file, in shared memory, or on the device.

A cache file is one page that says what it was made of, then the images as they are in memory: uint8, (N, 3, H, W). It
gets its name only when it is complete, and it counts only while that page is, byte for byte, the one that would be
written now and its length is the right one; else it is made anew.
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

from data.datasets.base import ImageSource, ReIDDataset
from data.loaders import ordered_loader
from data.transfer import send
from utils.run.errors import UserError

FORMAT = 1  # of the file; to be raised when images are made differently
HEADER_BYTES = 4096  # a page, so that the images behind it are aligned
CHUNK = 64  # images that are decoded, copied and written at a time
ABANDONED_SECONDS = 3600  # an unfinished file that nobody has written to for so long has lost its maker
SHARED_MEMORY = Path("/dev/shm")


class MappedImages:
    """The images of a cache file, mapped read-only; all processes share the pages that the system keeps of it."""

    for_workers = True

    def __init__(self, path: Path, header: bytes, shape: tuple[int, ...]):
        self.path, self.header, self.shape = path, header, shape
        with path.open("rb") as file:  # one file from the check on, even if another run replaces it meanwhile
            if not _is_whole(file, header, shape):
                raise UserError(f"{path}: another run replaced this cache by one of other images; set cache_dir")
            mapped = np.memmap(file, np.uint8, "r", offset=HEADER_BYTES, shape=shape)
        with warnings.catch_warnings():  # torch has no read-only tensors; nothing here writes
            warnings.filterwarnings("ignore", message=".*not writable", category=UserWarning)
            self.images = torch.from_numpy(np.asarray(mapped))

    def take(self, positions: Sequence[int]) -> Tensor:
        return _take(self.images, positions)

    def __reduce__(self) -> tuple:
        return MappedImages, (self.path, self.header, self.shape)  # a spawned process maps it again

    def __str__(self) -> str:
        return f"cached in {self.path}"


class ResidentImages:
    """Images in one tensor, in memory shared between processes or on a device."""

    def __init__(self, images: Tensor, *, for_workers: bool):
        self.images, self.for_workers = images, for_workers

    def take(self, positions: Sequence[int]) -> Tensor:
        return _take(self.images, positions)

    def __str__(self) -> str:
        return f"cached in {'shared memory' if self.for_workers else f'memory of {self.images.device}'}"


def cached_source(
    dataset: ReIDDataset, kind: str, *, folder: Path, device: torch.device, num_workers: int
) -> ImageSource:
    """The images of ``dataset`` from a cache, which is filled first where it is not there yet.

    Args:
        kind: ``disk``, a file in ``folder``; ``memory``, shared by all processes; ``device``, on ``device``. The last
            two are copied from a file in ``folder`` if there is one, else decoded; they write none.
        num_workers: processes that decode; 0 decodes in this one.

    Raises:
        UserError: an image that cannot be decoded, or a disk or memory that is too small.
    """
    # read before decoding: a file that changes meanwhile makes the cache stale, not wrong
    header, shape = _header(dataset), (len(dataset), 3, *dataset.image_size)
    path = cache_file(dataset, folder)
    chunks = _chunks(dataset, num_workers)
    if kind == "disk":
        if not _is_current(path, header, shape):
            _write_file(path, header, shape, chunks)
        return MappedImages(path, header, shape)
    if _is_current(path, header, shape):
        images = MappedImages(path, header, shape).images
        chunks = _progress(dataset, images.split(CHUNK))
    images = _allocate_shared(shape, device) if kind == "memory" else _allocate(shape, device)
    for part, chunk in zip(images.split(CHUNK), chunks, strict=True):
        part.copy_(chunk)
    return ResidentImages(images, for_workers=kind == "memory")


def unwritten_bytes(dataset: ReIDDataset, folder: Path) -> int:
    """How much a file in ``folder`` would take that is not there yet."""
    shape = (len(dataset), 3, *dataset.image_size)
    return 0 if _is_current(cache_file(dataset, folder), _header(dataset), shape) else HEADER_BYTES + math.prod(shape)


def require_memory(kind: str, needed: int, device: torch.device) -> None:
    """Raise ``UserError`` unless there is so much memory for a cache of this kind, ``memory`` or ``device``."""
    if kind == "memory":
        free, what = available_memory(), "shared memory; use cache disk, or docker's --shm-size"
        if SHARED_MEMORY.is_dir():
            free = min(free, shutil.disk_usage(SHARED_MEMORY).free)
    else:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
        what = f"memory of {device}; use cache memory or disk"
    if needed > free:
        raise UserError(f"cache: {kind!r} needs {gigabytes(needed)}, but {gigabytes(free)} are left of {what}")


def cache_file(dataset: ReIDDataset, folder: Path) -> Path:
    """Where the images of this root, split, trial and size are cached."""
    root = hashlib.sha256(str(dataset.root.resolve()).encode()).hexdigest()[:12]
    height, width = dataset.image_size
    return folder / f"{dataset.name}-{dataset.split}-{dataset.trial}-{height}x{width}-{root}.images"


def _header(dataset: ReIDDataset) -> bytes:
    """The first page of a cache file: what it holds, and what the images were made of."""
    files = hashlib.sha256()
    for path in dataset.paths:
        try:
            state = (dataset.root / path).stat()
        except OSError as error:
            raise UserError(f"{dataset.root / path}: cannot be read ({error.strerror})") from None
        # ctime, too: unpackers and copies set mtime to what it was elsewhere, and many images are of one size
        known = [str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        files.update(json.dumps(known).encode())
    content = {
        "format": FORMAT,
        "shape": [len(dataset), 3, *dataset.image_size],
        "files": files.hexdigest(),  # names, sizes and times of change, in their order
        "pillow": PIL.__version__,  # these two decide how a file is decoded
        "jpeg": features.version("jpg"),
    }
    return f"MCJA image cache {json.dumps(content)}".encode().ljust(HEADER_BYTES - 1) + b"\n"


def _is_current(path: Path, header: bytes, shape: tuple[int, ...]) -> bool:
    try:
        with path.open("rb") as file:
            return _is_whole(file, header, shape)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"{path}: the cache cannot be read ({error.strerror}); set cache_dir") from None


def _is_whole(file: BinaryIO, header: bytes, shape: tuple[int, ...]) -> bool:
    return os.fstat(file.fileno()).st_size == HEADER_BYTES + math.prod(shape) and file.read(HEADER_BYTES) == header


def _chunks(dataset: ReIDDataset, num_workers: int) -> Iterator[Tensor]:
    """All images in order, decoded, some at a time."""
    positions = list(range(len(dataset)))
    loader = ordered_loader(dataset, positions, batch_size=CHUNK, num_workers=num_workers, pin_memory=False)
    with closing(loader):
        yield from _progress(dataset, (batch.images for batch in loader))


def _progress(dataset: ReIDDataset, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    with tqdm(total=len(dataset), desc=f"cache ({dataset.split})", unit=" images", leave=False, disable=None) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk))


def _write_file(path: Path, header: bytes, shape: tuple[int, ...], chunks: Iterable[Tensor]) -> None:
    """Write beside ``path`` under a name of our own, so that several runs may do so at once, then rename."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        free, needed = shutil.disk_usage(path.parent).free, HEADER_BYTES + math.prod(shape)
        if free < needed:
            raise UserError(
                f"{path.parent}: the cache needs {gigabytes(needed)} and the disk has {gigabytes(free)} left;"
                " set cache_dir to a folder of another disk, or cache none"
            )
        with beside.open("xb") as file:
            file.write(header)
            for chunk in chunks:
                file.write(chunk.numpy())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: the cache cannot be written ({error.strerror or error}); set cache_dir") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)  # after success it has another name


def _remove_abandoned(path: Path) -> None:
    """Delete what runs that were killed left of this cache."""
    for left in path.parent.glob(f".{path.name}.*.partial"):
        with suppress(FileNotFoundError):  # another run was quicker
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                left.unlink()


def _allocate_shared(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """An empty tensor that forked and spawned processes share."""
    # checked beforehand: shared memory that is not there shows only when it is written to, and kills the process
    require_memory("memory", math.prod(shape), device)
    try:
        return torch.empty(shape, dtype=torch.uint8).share_memory_()
    except RuntimeError as error:
        raise _no_memory("memory", error) from None


def _allocate(shape: tuple[int, ...], device: torch.device) -> Tensor:
    require_memory("device", math.prod(shape), device)
    try:
        return torch.empty(shape, dtype=torch.uint8, device=device)
    except RuntimeError as error:  # running out of a GPU's memory is one
        raise _no_memory("device", error) from None


def _no_memory(kind: str, error: RuntimeError) -> UserError:
    return UserError(f"cache: {kind!r} gets no memory ({str(error).splitlines()[0]}); use cache disk")


def available_memory() -> int:
    """Bytes that can be had without swapping, within the limit of a container."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # pages of files are given back when memory runs short
        free = min(free, limit - used + int(kept["active_file"]) + int(kept["inactive_file"]))
    except (OSError, ValueError, KeyError):  # no limit
        pass
    return free


def _take(images: Tensor, positions: Sequence[int]) -> Tensor:
    if images.device.type == "cpu":
        # default_collate, because in a loader process it stacks into the memory that is shared with the main one
        return default_collate([images[i] for i in positions])
    return images.index_select(0, send(torch.tensor(positions), images.device))


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
