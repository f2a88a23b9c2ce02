"""The index of a folder: the embeddings of its images, kept in a file and updated when images change.

An image is embedded again if its size, its time of modification or its time of change differs. The time of change
counts too, because copying and unpacking restore the time of modification, and many images have the same size.
Another checkpoint or configuration has an index of its own, and so has another set of spectra. Images that cannot be
read are tried again the next time.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data.folder import FolderImages, list_images, modalities
from tools.search.embedding import Embedder
from utils.features import SPECTRA
from utils.run.errors import UnreadableImage, UserError, printable, reason
from utils.run.files import FolderLock, write_atomically

FORMAT = 2  # version of the file; increase it when its content changes
CHUNK = 4096  # images that are embedded at a time
SAVE_SECONDS = 600  # a stopped program loses at most the embeddings of this time
ATTEMPTS = 3  # to embed images while others vanish
MAX_WARNINGS = 20  # unreadable images that are named; the others are counted


class State(NamedTuple):
    """What tells whether a file has changed."""

    size: int  # bytes; -1 if there is no such file
    modified: int  # ns
    changed: int  # ns


@dataclass(frozen=True)
class Rows:
    """N images and their embeddings."""

    paths: np.ndarray  # (N,) text, relative to the gallery's folder
    states: np.ndarray  # (N, 3) int64, see State
    infrared: np.ndarray  # (N,) bool, guessed
    spectra: dict[str, np.ndarray]  # name -> (N, D) float32, normalised

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, positions: np.ndarray) -> "Rows":
        spectra = {name: values[positions] for name, values in self.spectra.items()}
        return Rows(self.paths[positions], self.states[positions], self.infrared[positions], spectra)


@dataclass(frozen=True)
class FolderIndex:
    """The readable images of a folder, in the order of their paths, and why the others cannot be read."""

    digest: str  # of the Embedder
    images: Rows
    unreadable: dict[str, str] = field(default_factory=dict)  # path -> reason; not saved
    stamp: str = field(default_factory=lambda: uuid.uuid4().hex)  # differs for each content

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file. Raises ``UserError`` if it cannot be written."""
        header = json.dumps({"format": FORMAT, "digest": self.digest, "stamp": self.stamp})
        images = self.images
        arrays = {
            "header": np.array(header),
            "paths": images.paths,
            "states": images.states,
            "infrared": images.infrared,
            **images.spectra,
        }
        write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]  # see Features.save

    @classmethod
    def load(cls, path: Path, digest: str) -> "FolderIndex | None":
        """Read a file that :meth:`save` wrote. None if there is none, or if it is damaged or of another digest."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                header = json.loads(arrays["header"].item())
                if (header["format"], header["digest"]) != (FORMAT, digest):
                    return None
                spectra = {name: arrays[name] for name in SPECTRA if name in arrays}
                images = Rows(arrays["paths"], arrays["states"], arrays["infrared"], spectra)
            _require_consistent(images)
            return cls(digest, images, stamp=header["stamp"])
        except FileNotFoundError:
            return None
        except Exception as error:  # numpy and zipfile raise errors of many types for a damaged file
            print(f"{path}: damaged ({reason(error)}); the images are embedded again")
            return None


def open_index(gallery: Path, embed: Embedder, cache: Path, spectra: Sequence[str]) -> FolderIndex:
    """The index of the folder ``gallery``, updated and kept in the folder ``cache``.

    Args:
        spectra: that are needed.

    Raises:
        UserError: there is no readable image, another process updates the index, or it cannot be written.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)  # embeddings and paths of photographs are private
    except OSError as error:
        raise UserError(f"--cache: {cache} cannot be made ({error.strerror})") from None
    with locked(cache):
        file = index_file(cache, spectra)
        old = FolderIndex.load(file, embed.digest)
        found = {path: file_state(gallery / path) for path in list_images(gallery)}
        index = updated(old, found, gallery, embed, file, spectra)
    _warn_of_unreadable(index, gallery)
    if not len(index.images):
        raise UserError(f"{gallery}: none of its {len(found)} images can be read")
    return index


def index_file(cache: Path, spectra: Sequence[str]) -> Path:
    """The file that keeps the index with these spectra."""
    return cache / f"{'-'.join(spectra)}.npz"


def updated(
    old: FolderIndex | None,
    found: dict[str, State],
    gallery: Path,
    embed: Embedder,
    file: Path,
    spectra: Sequence[str],
) -> FolderIndex:
    """The index of the images ``found``: what has not changed is taken from ``old``, the others are embedded.

    Args:
        file: keeps the index.
    """
    parts: list[Rows] = []
    unreadable: dict[str, str] = {}
    current: set[str] = set()
    same: list[bool] = []
    if old:
        states = map(State._make, old.images.states.tolist())
        same = [found.get(path) == state for path, state in zip(old.images.paths.tolist(), states, strict=True)]
        parts.append(old.images.take(np.flatnonzero(same)))
        current.update(parts[0].paths.tolist())
    new = [path for path in found if path not in current]
    print(f"index: {len(current):,} images kept, {len(new):,} to embed ({file})", flush=True)
    saved = time.monotonic()
    with tqdm(total=len(new), desc="embed", unit=" images", leave=False, disable=None) as bar:
        for start in range(0, len(new), CHUNK):
            chunk = new[start : start + CHUNK]
            rows, problems = embed_files(gallery, chunk, found, embed, spectra)
            parts += [rows] if rows else []
            unreadable |= problems
            bar.update(len(chunk))
            if time.monotonic() - saved > SAVE_SECONDS:
                FolderIndex(embed.digest, joined(parts)).save(file)
                saved = time.monotonic()
    if old and all(same) and len(parts) == 1:  # nothing was added or removed: the search index stays valid
        return replace(old, unreadable=unreadable)
    index = FolderIndex(embed.digest, joined(parts), unreadable)
    index.save(file)
    return index


def embed_files(
    gallery: Path, paths: list[str], states: dict[str, State], embed: Embedder, spectra: Sequence[str]
) -> tuple[Rows | None, dict[str, str]]:
    """The rows of the readable images (None if there is none), and the reasons of the others.

    Images are decoded twice, for their modality and for their embedding, and may vanish in between.
    """
    for _ in range(ATTEMPTS - 1):
        with suppress(UnreadableImage):
            return _embed_files(gallery, paths, states, embed, spectra)
    return _embed_files(gallery, paths, states, embed, spectra)


def _embed_files(
    gallery: Path, paths: list[str], states: dict[str, State], embed: Embedder, spectra: Sequence[str]
) -> tuple[Rows | None, dict[str, str]]:
    looks = modalities([gallery / path for path in paths], num_workers=embed.workers(len(paths)))
    problems = {path: look for path, look in zip(paths, looks, strict=True) if isinstance(look, str)}
    readable = [path for path in paths if path not in problems]
    if not readable:
        return None, problems
    infrared = np.array([look for look in looks if not isinstance(look, str)])
    images = FolderImages(gallery, readable, infrared)
    kept = np.array([states[path] for path in readable], dtype=np.int64)
    return Rows(images.paths, kept, infrared, embed(images, spectra)), problems


def joined(parts: list[Rows]) -> Rows:
    """All rows in the order of their paths."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return Rows(np.empty(0, "U1"), np.empty((0, 3), np.int64), np.empty(0, bool), {"original": np.empty((0, 0))})
    paths = np.concatenate([part.paths for part in parts])
    order = np.argsort(paths, kind="stable")
    target = np.empty_like(order)
    target[order] = np.arange(len(order))
    places = np.split(target, np.cumsum([len(part) for part in parts])[:-1])
    spectra = {}
    for name, first in parts[0].spectra.items():
        spectra[name] = np.empty((len(paths), first.shape[1]), dtype=np.float32)
        for part, place in zip(parts, places, strict=True):  # one copy of the embeddings, not two
            spectra[name][place] = part.spectra[name]
    states = np.concatenate([part.states for part in parts])[order]
    infrared = np.concatenate([part.infrared for part in parts])[order]
    return Rows(paths[order], states, infrared, spectra)


def file_state(path: Path) -> State:
    try:
        state = path.stat()
    except OSError:
        return State(-1, 0, 0)
    return State(state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def cache_folder(parent: Path | None, gallery: Path, digest: str) -> Path:
    """The folder that keeps the index of a gallery and a checkpoint, below ``parent`` (None: the user's cache)."""
    if parent is None:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcja" / "search"
    return parent / hashlib.sha256(os.fsencode(gallery.resolve()) + digest.encode()).hexdigest()[:24]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside this context, no other process updates the index in ``folder``."""
    lock = FolderLock(folder)
    try:
        yield
    finally:
        lock.release()


def _require_consistent(images: Rows) -> None:
    shapes = {values.shape for values in images.spectra.values()}
    if len(shapes) != 1 or {len(images), len(images.states), len(images.infrared)} != {shapes.pop()[0]}:
        raise ValueError("its arrays have different lengths")


def _warn_of_unreadable(index: FolderIndex, gallery: Path) -> None:
    for path, why in list(index.unreadable.items())[:MAX_WARNINGS]:
        print(f"warning: {printable(str(gallery / path))}: {why}; left out")
    more = len(index.unreadable) - MAX_WARNINGS
    if more > 0:
        print(f"warning: {more:,} more images cannot be read and are left out")
