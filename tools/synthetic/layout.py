"""Makes a whole synthetic data set: plans it, renders its images, writes its lists."""

import multiprocessing
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from . import regdb, sysu
from .camera import Camera, make_camera
from .person import Person, draw_people
from .render import image_rng, render

LAYOUTS = ("sysu", "regdb")
DEFAULT_IDENTITIES = 100
DEFAULT_IMAGES = 10
DEFAULT_SIZE = (128, 64)
LEAST_SIZE = (40, 20)
_FORMATS = {".jpg": {"quality": 92}, ".bmp": {}}


@dataclass(frozen=True)
class _Job:
    """Images of one identity from one camera; `paths` are in the order of the instances, from 1."""

    identity: int
    camera: int
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class _Studio:
    """All that a worker needs to render any job."""

    layout: str
    seed: int
    size: tuple[int, int]
    people: dict[int, Person]

    def camera(self, number: int) -> Camera:
        if self.layout == "sysu":
            return make_camera(self.seed, number, sysu.modality_of(number), (sysu.SCENE_KINDS[number],), self.size)
        return make_camera(self.seed, number, regdb.MODALITIES[number], regdb.SCENE_KINDS, self.size)

    def shoot(self, job: _Job) -> int:
        """Renders and writes a job's images; their number."""
        camera = self.camera(job.camera)
        job.paths[0].parent.mkdir(parents=True, exist_ok=True)
        for instance, path in enumerate(job.paths, start=1):
            rng = image_rng(self.seed, job.camera, job.identity, instance)
            render(self.people[job.identity], camera, self.size, rng).save(path, **_FORMATS[path.suffix])
        return len(job.paths)


def make_synthetic(
    layout: str,
    root: str | Path,
    *,
    identities: int | None = None,
    images_per_camera: int | None = None,
    test_identities: int | None = None,
    seed: int = 0,
    size: tuple[int, int] = DEFAULT_SIZE,
    permutation: str | Path | None = None,
    workers: int = 1,
    progress: bool = False,
) -> int:
    """Writes a synthetic data set into an empty or new folder; returns the number of its images.

    Args:
        layout: "sysu" (cam1 … cam6, exp/) or "regdb" (Visible, Thermal, idx/).
        root: the data set's folder.
        identities: how many people, 100 by default.
        images_per_camera: images of an identity from each camera that sees it, 10 by default.
        test_identities: how many of the people are in the test list of "sysu", a quarter by default and half at most.
        seed: everything is a function of it, whatever the number of workers.
        size: (height, width) of the images in pixels.
        permutation: a rand_perm_cam.mat of SYSU-MM01: identities, cameras and numbers of images are taken from it,
            the split from {train,val,test}_id.txt or .mat beside it where they exist.
        workers: processes that render.
        progress: shows a bar on stderr.

    Raises:
        ValueError: an argument is out of range, or a given file is not of the expected form.
        OSError: `root` is not empty or cannot be written, or a given file does not exist.

    Where it fails or is interrupted, what it has written is removed again.
    """
    root = Path(root)
    permutation = None if permutation is None else Path(permutation)
    if permutation is None and identities is None:
        identities = DEFAULT_IDENTITIES
    _check(layout, identities, images_per_camera, test_identities, seed, size, permutation, workers)
    images = DEFAULT_IMAGES if images_per_camera is None else images_per_camera
    splits: sysu.Splits = {}
    if permutation is not None:
        counts = sysu.read_permutation(permutation)
        splits = sysu.read_splits(permutation.parent, counts, seed)
    elif layout == "sysu":
        counts, splits = sysu.plan(identities, images, seed, test=test_identities)
    else:
        counts = {i: dict.fromkeys(regdb.MODALITIES, images) for i in range(1, identities + 1)}
    people = draw_people(seed, max(counts))
    studio = _Studio(layout, seed, size, {identity: people[identity - 1] for identity in counts})
    jobs = _jobs(root, layout, counts)
    with _fresh_folder(root):
        _shoot_all(studio, jobs, workers=workers, progress=progress)
        # the lists come last: a set that has them is complete
        if layout == "sysu":
            sysu.write_lists(root, counts, splits, seed, permutation=permutation)
        else:
            regdb.write_lists(root, len(counts), images, seed)
    return sum(len(job.paths) for job in jobs)


def _check(
    layout: str,
    identities: int | None,
    images_per_camera: int | None,
    test_identities: int | None,
    seed: int,
    size: tuple[int, int],
    permutation: Path | None,
    workers: int,
) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; choose from {', '.join(LAYOUTS)}")
    if permutation is not None:
        if layout != "sysu":
            raise ValueError("a permutation file belongs to the layout sysu")
        if (identities, images_per_camera, test_identities) != (None, None, None):
            raise ValueError("a permutation file sets the numbers of identities and images: give either it or them")
    least = sysu.LEAST_IDENTITIES if layout == "sysu" else regdb.LEAST_IDENTITIES
    if identities is not None and not least <= identities <= sysu.MOST_IDENTITIES:
        raise ValueError(f"identities must be {least} to {sysu.MOST_IDENTITIES} for {layout}, not {identities}")
    if test_identities is not None:
        if layout != "sysu":
            raise ValueError("regdb tests half of its identities in each trial: their number cannot be set")
        if not 1 <= test_identities <= identities // 2:
            raise ValueError(f"test identities must be 1 to half of {identities}, not {test_identities}")
    if images_per_camera is not None and not 1 <= images_per_camera <= 9999:
        raise ValueError(f"images per camera must be 1 to 9999, not {images_per_camera}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, is {seed}")
    if size[0] < LEAST_SIZE[0] or size[1] < LEAST_SIZE[1]:
        raise ValueError(f"size must be at least {LEAST_SIZE[0]} {LEAST_SIZE[1]}, not {size[0]} {size[1]}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")


def _jobs(root: Path, layout: str, counts: sysu.Counts) -> list[_Job]:
    image_path = sysu.image_path if layout == "sysu" else regdb.image_path
    return [
        _Job(identity, camera, tuple(root / image_path(camera, identity, k) for k in range(1, images + 1)))
        for identity, cameras in counts.items()
        for camera, images in cameras.items()
    ]


@contextmanager
def _fresh_folder(root: Path) -> Iterator[None]:
    """Makes `root` where it is missing; empties it again if the block fails."""
    existed = root.is_dir()
    if root.exists() and not existed:
        raise NotADirectoryError(f"{root} is not a folder")
    if existed and any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty")
    root.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for entry in root.iterdir():
            shutil.rmtree(entry, ignore_errors=True)
        if not existed:
            root.rmdir()
        raise


def _shoot_all(studio: _Studio, jobs: list[_Job], *, workers: int, progress: bool) -> None:
    total = sum(len(job.paths) for job in jobs)
    with tqdm(total=total, unit=" images", disable=not progress) as bar:
        if workers == 1:
            for job in jobs:
                bar.update(studio.shoot(job))
            return
        with multiprocessing.Pool(workers, initializer=_start_worker, initargs=(studio,)) as pool:
            for images in pool.imap_unordered(_work, jobs, chunksize=4):
                bar.update(images)


_worker_studio: _Studio | None = None


def _start_worker(studio: _Studio) -> None:
    global _worker_studio
    _worker_studio = studio
    # the parent alone answers Ctrl-C, and ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(job: _Job) -> int:
    assert _worker_studio is not None
    return _worker_studio.shoot(job)
