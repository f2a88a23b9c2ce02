"""Renders a whole synthetic data set."""

import inspect
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from tools.synthetic.camera import CameraSpec, make_camera
from tools.synthetic.layout import Layout, require_range
from tools.synthetic.llcm import LLCM
from tools.synthetic.person import Person, sample_people
from tools.synthetic.regdb import RegDB
from tools.synthetic.render import image_rng, render
from tools.synthetic.sysu import SYSU
from utils.run.errors import UserError

LAYOUTS: dict[str, Callable[..., Layout]] = {"sysu": SYSU, "regdb": RegDB, "llcm": LLCM}
DEFAULT_SIZE = (128, 64)
_LEAST_SIZE = (40, 20)


@dataclass(frozen=True)
class RenderJob:
    """The images of one identity from one camera; ``paths`` are those of instances 1, 2, ..."""

    seed: int
    size: tuple[int, int]
    camera: int
    spec: CameraSpec
    identity: int
    person: Person
    paths: tuple[Path, ...]


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
    """Render a synthetic data set into an empty or new folder, and return the number of images.

    Where it fails or is interrupted, what it has written is removed again.

    Args:
        layout: "sysu" (cam1 to cam6, exp/), "regdb" (Visible, Thermal, idx/) or "llcm" (vis, nir, test_vis, test_nir,
            idx/).
        root: the data set's folder.
        identities: number of people, 100 by default.
        images_per_camera: images of an identity from each camera that sees it, 10 by default.
        test_identities: number of people in the test list; not for "regdb". "sysu": by default a quarter, at most
            half; "llcm": by default a third.
        seed: the same seed gives the same files, whatever the number of workers.
        size: (height, width) of the images in pixels.
        permutation: a rand_perm_cam.mat of SYSU-MM01, which sets identities, cameras and numbers of images. The split
            is read from {train,val,test}_id.txt or .mat beside it where they exist; "sysu" only.
        workers: processes that render.
        progress: show a progress bar on stderr.

    Raises:
        UserError: an argument is out of range, ``root`` is not empty, or a given file is missing or damaged.
        OSError: ``root`` cannot be written.
    """
    root = Path(root)
    if layout not in LAYOUTS:
        raise UserError(f"unknown layout {layout!r}; choose from {', '.join(LAYOUTS)}")
    require_range("seed", seed, 0)
    require_range("height", size[0], _LEAST_SIZE[0])
    require_range("width", size[1], _LEAST_SIZE[1])
    require_range("workers", workers, 1)
    options = {
        "identities": identities,
        "images_per_camera": images_per_camera,
        "test_identities": test_identities,
        "permutation": None if permutation is None else Path(permutation),
    }
    options = {name: value for name, value in options.items() if value is not None}
    if unsupported := options.keys() - inspect.signature(LAYOUTS[layout]).parameters.keys():
        raise UserError(f"the layout {layout} does not support {' and '.join(sorted(unsupported))}")
    data_set = LAYOUTS[layout](seed=seed, **options)
    jobs = _plan_jobs(data_set, root, seed=seed, size=size)
    with _new_folder(root):
        _render_all(jobs, workers=workers, progress=progress)
        # written last, so that a data set with lists is complete
        data_set.write_lists(root)
    return sum(len(job.paths) for job in jobs)


def _plan_jobs(data_set: Layout, root: Path, *, seed: int, size: tuple[int, int]) -> list[RenderJob]:
    people = sample_people(seed, max(data_set.counts))
    return [
        RenderJob(
            seed=seed,
            size=size,
            camera=camera,
            spec=data_set.cameras[camera],
            identity=identity,
            person=people[identity - 1],
            paths=tuple(root / data_set.image_path(camera, identity, k) for k in range(1, images + 1)),
        )
        for identity, cameras in data_set.counts.items()
        for camera, images in cameras.items()
    ]


def render_job(job: RenderJob) -> int:
    """Render and write the images of a job, and return their number."""
    camera = make_camera(job.seed, job.camera, job.spec, job.size)
    job.paths[0].parent.mkdir(parents=True, exist_ok=True)
    for instance, path in enumerate(job.paths, start=1):
        rng = image_rng(job.seed, job.camera, job.identity, instance)
        render(job.person, camera, job.size, rng).save(path, quality=92)  # ignored for BMP
    return len(job.paths)


def _render_all(jobs: list[RenderJob], *, workers: int, progress: bool) -> None:
    with tqdm(total=sum(len(job.paths) for job in jobs), unit=" images", disable=not progress) as bar:
        if workers == 1:
            for job in jobs:
                bar.update(render_job(job))
            return
        with multiprocessing.Pool(workers, initializer=_start_worker) as pool:
            for images in pool.imap_unordered(render_job, jobs, chunksize=4):
                bar.update(images)


def _start_worker() -> None:
    # Ctrl-C reaches the main process, too, which ends its workers by SIGTERM; they print nothing
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _new_folder(root: Path) -> Iterator[None]:
    """Create ``root`` where it is missing, and empty it again if the block fails."""
    existed = root.exists()
    if existed and not root.is_dir():
        raise UserError(f"{root} is not a folder")
    if existed and any(root.iterdir()):
        raise UserError(f"{root} is not empty")
    root.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for entry in root.iterdir():
            shutil.rmtree(entry, ignore_errors=True)
        if not existed:
            root.rmdir()
        raise
