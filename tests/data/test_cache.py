import errno
import multiprocessing
import os
import shutil
import signal
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import data.cache
import data.datasets.base
from data.cache import HEADER_BYTES, MappedImages, available_memory, cache_file, cached_source
from data.datasets.base import read_image
from data.datasets.regdb import RegDB
from data.datasets.sysu import SYSU
from data.loaders import DirectLoader, ordered_loader, train_loader
from data.samplers import EpochSampler, Sizes
from tests.helpers.runs import arguments, run
from utils.run.cli import one_line
from utils.run.errors import UserError

SIZE = (48, 24)
KINDS = ("disk", "memory", "device")
CPU = torch.device("cpu")


@pytest.fixture
def root(regdb_root, tmp_path) -> Path:
    """A data set to change."""
    return Path(shutil.copytree(regdb_root, tmp_path / "regdb"))


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache"


def cached(dataset, kind: str, folder: Path, num_workers: int = 0):
    dataset.source = cached_source(dataset, kind, folder=folder, device=CPU, num_workers=num_workers)
    return dataset


def refused(*arguments, **options) -> str:
    try:
        cached(*arguments, **options)
    except UserError as error:
        # it holds the loader in a circle, and what the garbage collector finds ends its processes slowly
        error.with_traceback(None)
        message = one_line(error)
        assert "\n" not in message
        return message
    raise AssertionError("not refused")


def assert_right(dataset) -> None:
    """Its images are those of the files as they are now."""
    expected = np.stack([read_image(dataset.root / path, dataset.image_size) for path in dataset.paths])
    np.testing.assert_array_equal(dataset.__getitems__(range(len(dataset))).images, expected)


def count_decoded(monkeypatch) -> list[Path]:
    """Records the files that are decoded from now on, in this process."""
    decoded = []

    def record(path: Path, size: tuple[int, int]) -> np.ndarray:
        decoded.append(path)
        return read_image(path, size)

    monkeypatch.setattr(data.base, "read_image", record)
    return decoded


# --- the same images, whatever holds them ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_equal_those_of_the_files(sysu_root, folder, kind, workers):
    plain, other = SYSU(sysu_root, "train", SIZE), cached(SYSU(sysu_root, "train", SIZE), kind, folder, workers)

    def batches(dataset) -> list:
        sampler = EpochSampler(dataset.labels, dataset.infrared, method="norm_triplet", sizes=Sizes(2, 4, 8), seed=0)
        options = {"num_workers": workers, "pin_memory": False}
        ordered = ordered_loader(dataset, [5, 3, 9], batch_size=2, **options)
        return [*train_loader(dataset, sampler, **options), *ordered]

    for expected, found in zip(batches(plain), batches(other), strict=True):
        for name in expected._fields:
            values, right = getattr(found, name), getattr(expected, name)
            assert torch.equal(values, right), name
            assert (values.dtype, values.stride(), values.device) == (right.dtype, right.stride(), right.device)


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_a_batch_is_its_items(sysu_root, folder, kind):
    dataset = SYSU(sysu_root, "test", SIZE)
    if kind != "none":
        cached(dataset, kind, folder)
    positions = [7, 2, 7, len(dataset) - 1]
    batch = dataset.__getitems__(positions)
    for row, position in enumerate(positions):
        item = dataset[position]
        assert torch.equal(item.images, torch.from_numpy(read_image(sysu_root / dataset.paths[position], SIZE)))
        assert (item.labels, item.cameras, item.indices) == (
            dataset.labels[position], dataset.camera_ids[position], position
        )  # fmt: skip
        for name in batch._fields:
            assert torch.equal(getattr(batch, name)[row], getattr(item, name))
    with pytest.raises(IndexError):
        dataset.__getitems__([len(dataset)])


def test_training_is_the_same_to_the_bit(regdb_root, tmp_path):
    words = arguments(tmp_path, "regdb", regdb_root, mser="false", num_epoch="1", cache_dir=str(tmp_path / "cache"))
    states = {}
    for kind in ("none", "memory", "device", "disk"):
        folder = run(tmp_path, *words, "cache", kind)
        where = "decoded when needed" if kind == "none" else "cached in"
        assert (folder / "log.txt").read_text().count(where) == 2  # training and test images
        assert (tmp_path / "cache").exists() == (kind == "disk")  # only this one writes
        states[kind] = torch.load(folder / "last.pth", weights_only=True)
    for kind in KINDS:
        for name, value in states["none"].items():
            assert torch.equal(value, states[kind][name]), (kind, name)


@pytest.mark.gpu
def test_images_on_a_gpu(regdb_root, folder):
    dataset = RegDB(regdb_root, "train", SIZE)
    expected = dataset.__getitems__([4, 4, 0, 9])
    device = torch.device("cuda:0")
    dataset.source = cached_source(dataset, "device", folder=folder, device=device, num_workers=0)
    found = dataset.__getitems__([4, 4, 0, 9])
    assert found.images.device == device
    assert found.cameras.device == found.labels.device == found.indices.device == CPU
    for name in expected._fields:
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name))


def test_a_resident_cache_has_no_workers(regdb_root, folder, monkeypatch):
    dataset = cached(RegDB(regdb_root, "train", SIZE), "device", folder)
    monkeypatch.setattr(DataLoader, "__init__", None)
    before = multiprocessing.active_children()
    loader = ordered_loader(dataset, [3, 1, 2], batch_size=2, num_workers=2, pin_memory=False)
    assert isinstance(loader, DirectLoader)
    assert len(loader) == 2
    for _ in range(2):  # it can be gone through again
        assert [batch.indices.tolist() for batch in loader] == [[3, 1], [2]]
    assert multiprocessing.active_children() == before


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_other_processes_share_the_images(regdb_root, folder, kind):
    """What is handed to a spawned process refers to the images and does not hold them."""
    dataset = cached(RegDB(regdb_root, "train", (96, 48)), kind, folder)
    sent = bytes(ForkingPickler.dumps(dataset.source))
    assert len(sent) < 20_000 < dataset.source.images.numel()
    assert torch.equal(ForkingPickler.loads(sent).take([3, 5]), dataset.source.take([3, 5]))


# --- when it is built -----------------------------------------------------------------------------------------------


def test_built_once(root, folder, monkeypatch):
    decoded = count_decoded(monkeypatch)
    path = cache_file(cached(RegDB(root, "train", SIZE), "disk", folder), folder)
    before = path.stat()
    assert before.st_size == HEADER_BYTES + len(decoded) * 3 * SIZE[0] * SIZE[1]
    decoded.clear()
    for kind in KINDS:  # the other two read the file
        assert_right(cached(RegDB(root, "train", SIZE), kind, folder))
    assert not decoded
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(folder.iterdir()) == [path]


def touch(path: Path, cache: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


def grow(path: Path, cache: Path) -> None:
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=times)


def swap(path: Path, cache: Path) -> None:
    """Two lines of an index change places: the same files in another order."""
    index = path.parents[2] / "idx/train_visible_1.txt"
    lines = index.read_text().splitlines()
    index.write_text("\n".join([lines[1], lines[0], *lines[2:]]))


def truncate(path: Path, cache: Path) -> None:
    os.truncate(cache, cache.stat().st_size - 1)


def lengthen(path: Path, cache: Path) -> None:
    cache.write_bytes(cache.read_bytes() + b"\0")


def empty(path: Path, cache: Path) -> None:
    cache.write_bytes(b"")


def damage_header(path: Path, cache: Path) -> None:
    with cache.open("r+b") as file:
        file.seek(150)
        file.write(b"\xff")


def older_pillow(path: Path, cache: Path) -> None:
    content = cache.read_bytes()
    version = f'"pillow": "{data.cache.PIL.__version__}"'.encode()
    assert version in content
    cache.write_bytes(content.replace(version, version.replace(b"1", b"0").replace(b"2", b"0")))


@pytest.mark.parametrize("change", [touch, grow, swap, truncate, lengthen, empty, damage_header, older_pillow])
def test_made_anew_after(change, root, folder, monkeypatch):
    first = cached(RegDB(root, "train", SIZE), "disk", folder)
    path = cache_file(first, folder)
    before = path.stat().st_ino
    change(root / first.paths[0], path)
    decoded = count_decoded(monkeypatch)
    second = cached(RegDB(root, "train", SIZE), "disk", folder)
    assert len(decoded) == len(second)
    assert path.stat().st_ino != before
    assert_right(second)
    assert_right(cached(RegDB(root, "train", SIZE), "memory", folder))


def test_every_split_trial_size_and_root_has_its_own(root, regdb_root, folder):
    for where, split, size, trial in (
        (root, "train", SIZE, 1), (root, "test", SIZE, 1), (root, "train", (24, 48), 1), (root, "train", SIZE, 2),
        (regdb_root, "train", SIZE, 1),
    ):  # fmt: skip
        assert_right(cached(RegDB(where, split, size, trial=trial), "disk", folder))
    assert len(list(folder.iterdir())) == 5


def test_a_cache_under_the_name_of_another(root, folder):
    one, two = RegDB(root, "train", SIZE, trial=1), RegDB(root, "train", SIZE, trial=2)
    cached(one, "disk", folder)
    shutil.copy(cache_file(one, folder), cache_file(two, folder))
    assert_right(cached(two, "disk", folder))


# --- what may go wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_image_is_named_and_nothing_is_left(root, folder, kind, workers):
    dataset = RegDB(root, "train", SIZE)
    broken = root / dataset.paths[-1]
    broken.write_bytes(b"nothing")
    assert f"{broken}: cannot be decoded" in refused(dataset, kind, folder, workers)
    assert not list(folder.glob("*"))


def test_image_that_vanished(root, folder):
    dataset = RegDB(root, "train", SIZE)
    (root / dataset.paths[3]).unlink()
    assert f"{root / dataset.paths[3]}: cannot be read" in refused(dataset, "disk", folder)


def stop_at(monkeypatch, number: int, stop) -> None:
    """Have ``stop()`` called before the ``number``-th image is decoded."""
    decoded = []

    def read(path: Path, size: tuple[int, int]) -> np.ndarray:
        decoded.append(path)
        if len(decoded) == number:
            stop()
        return read_image(path, size)

    monkeypatch.setattr(data.base, "read_image", read)


def test_interrupted_it_leaves_no_file(root, folder, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(data.cache, "CHUNK", 8)
    stop_at(monkeypatch, 20, interrupt)
    with pytest.raises(KeyboardInterrupt):
        cached(RegDB(root, "train", SIZE), "disk", folder)
    assert not list(folder.iterdir())


def test_killed_it_leaves_no_cache(root, folder, monkeypatch):
    monkeypatch.setattr(data.cache, "CHUNK", 8)
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        stop_at(monkeypatch, 20, lambda: os.kill(os.getpid(), signal.SIGKILL))
        cached(RegDB(root, "train", SIZE), "disk", folder)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert left.suffix == ".partial"

    dataset = cached(RegDB(root, "train", SIZE), "disk", folder)
    assert_right(dataset)
    path = cache_file(dataset, folder)
    assert set(folder.iterdir()) == {path, left}  # it may belong to a run that is at work
    path.unlink()
    os.utime(left, (time.time() - 7200,) * 2)
    assert_right(cached(RegDB(root, "train", SIZE), "disk", folder))
    assert set(folder.iterdir()) == {path}


def test_two_runs_build_at_once(root, folder, monkeypatch):
    inner = []

    def build_too():
        inner.append(cached(RegDB(root, "train", SIZE), "disk", folder))

    stop_at(monkeypatch, 20, build_too)
    outer = cached(RegDB(root, "train", SIZE), "disk", folder)
    assert_right(inner[0])  # it keeps the file that the other run has replaced
    assert_right(outer)
    assert list(folder.iterdir()) == [cache_file(outer, folder)]


def test_replaced_by_a_cache_of_other_images(root, folder):
    source = cached(RegDB(root, "train", SIZE), "disk", folder).source
    rebuild, arguments_ = source.__reduce__()
    assert rebuild is MappedImages
    damage_header(root, source.path)
    with pytest.raises(UserError, match="another run replaced this cache"):
        rebuild(*arguments_)


def test_full_disk(root, folder, monkeypatch):
    dataset = RegDB(root, "train", SIZE)
    needed = HEADER_BYTES + len(dataset) * 3 * SIZE[0] * SIZE[1]
    for free in (needed - 1, needed):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        if free < needed:
            message = refused(dataset, "disk", folder)
            assert f"{folder}: the cache needs" in message
            assert "set cache_dir" in message
            assert not list(folder.iterdir())
        else:
            assert_right(cached(dataset, "disk", folder))


def test_writing_fails(root, folder, monkeypatch):
    def fail(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    message = refused(RegDB(root, "train", SIZE), "disk", folder)
    assert "the cache cannot be written (No space left on device); set cache_dir" in message
    assert not list(folder.iterdir())


def test_folder_that_cannot_be(root, tmp_path):
    (tmp_path / "file").write_text("")
    assert "set cache_dir" in refused(RegDB(root, "train", SIZE), "disk", tmp_path / "file")


@pytest.mark.parametrize("kind", ["memory", "device"])
def test_too_little_memory(root, folder, monkeypatch, kind):
    dataset = RegDB(root, "train", SIZE)
    needed = len(dataset) * 3 * SIZE[0] * SIZE[1]
    monkeypatch.setattr(data.cache, "available_memory", lambda: needed - 1)
    assert f"cache: '{kind}' needs" in refused(dataset, kind, folder)
    monkeypatch.setattr(data.cache, "available_memory", lambda: needed)
    assert_right(cached(dataset, kind, folder))


def test_too_little_shared_memory(root, folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert "shared memory" in refused(RegDB(root, "train", SIZE), "memory", folder)


def test_available_memory():
    assert 2**20 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_images_that_changed_places_are_noticed(regdb_root, tmp_path):
    """Of one size and, as unpackers leave them, of one time."""
    root = Path(shutil.copytree(regdb_root, tmp_path / "regdb"))
    images = sorted(root.glob("Visible/*/*.bmp"))[:2]
    for path in images:
        os.utime(path, (1e9, 1e9))
    options = {"folder": tmp_path / "cache", "device": torch.device("cpu"), "num_workers": 0}
    cached_source(RegDB(root, "train", SIZE), "disk", **options)
    cached_source(RegDB(root, "test", SIZE), "disk", **options)
    images[0].rename(tmp_path / "aside")
    images[1].rename(images[0])
    (tmp_path / "aside").rename(images[1])
    for split in ("train", "test"):
        dataset = RegDB(root, split, SIZE)
        expected = dataset.source.take(range(len(dataset)))
        assert torch.equal(cached_source(dataset, "disk", **options).take(range(len(dataset))), expected)
