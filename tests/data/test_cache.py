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
import data.datasets.images
from data.cache import HEADER_BYTES, CacheFile, MappedImages, available_memory, device_source, disk_source
from data.datasets import SYSU, RegDB
from data.datasets.images import ImageFiles, ImageSource, read_image
from data.loaders import DirectLoader, ImageBatches, ordered_loader, train_loader
from data.samplers import EpochSampler, Sizes
from tests.helpers.runs import arguments, run
from utils.run.cli import one_line
from utils.run.errors import UserError

SIZE = (48, 24)
KINDS = ("disk", "device")
CPU = torch.device("cpu")


@pytest.fixture
def root(regdb_root, tmp_path) -> Path:
    """A copy of the data set that a test may change."""
    return Path(shutil.copytree(regdb_root, tmp_path / "regdb"))


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache"


def cached(dataset, kind: str, folder: Path, num_workers: int = 0, size: tuple[int, int] = SIZE) -> ImageSource:
    if kind == "disk":
        return disk_source(dataset, size, folder, num_workers=num_workers)
    return device_source(dataset, size, folder, CPU, num_workers=num_workers)


def refused(*arguments, **options) -> str:
    try:
        cached(*arguments, **options)
    except UserError as error:
        # free the loader now: its workers end slowly if the garbage collector frees it
        error.with_traceback(None)
        message = one_line(error)
        assert "\n" not in message
        return message
    raise AssertionError("not refused")


def assert_right(dataset, source: ImageSource, size: tuple[int, int] = SIZE) -> None:
    """Check that the cached images equal the current files."""
    expected = np.stack([read_image(dataset.root / path, size) for path in dataset.paths])
    np.testing.assert_array_equal(source.take(range(len(dataset))), expected)


def count_decoded(monkeypatch) -> list[Path]:
    """A list of the files that this process decodes from now on."""
    decoded = []

    def record(path: Path, size: tuple[int, int], resize: str) -> np.ndarray:
        decoded.append(path)
        return read_image(path, size, resize)

    monkeypatch.setattr(data.datasets.images, "read_image", record)
    return decoded


# --- the same images from every source -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_equal_those_of_the_files(sysu_root, folder, kind, workers):
    dataset = SYSU(sysu_root, "train")

    def batches(source) -> list:
        sampler = EpochSampler(dataset.labels, dataset.infrared, method="norm_triplet", sizes=Sizes(2, 4, 8), seed=0)
        options = {"num_workers": workers, "pin_memory": False}
        ordered = ordered_loader(dataset, source, [5, 3, 9], batch_size=2, **options)
        return [*train_loader(dataset, source, sampler, **options), *ordered]

    files, cache = ImageFiles(dataset, SIZE), cached(dataset, kind, folder, workers)
    for expected, found in zip(batches(files), batches(cache), strict=True):
        for name in expected._fields:
            values, right = getattr(found, name), getattr(expected, name)
            assert torch.equal(values, right), name
            assert (values.dtype, values.stride(), values.device) == (right.dtype, right.stride(), right.device)


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_a_batch_holds_what_was_asked_for(sysu_root, folder, kind):
    dataset = SYSU(sysu_root, "test")
    source = ImageFiles(dataset, SIZE) if kind == "none" else cached(dataset, kind, folder)
    positions = [7, 2, 7, len(dataset) - 1]
    batch = ImageBatches(dataset, source).__getitems__(positions)
    assert batch.indices.tolist() == positions
    assert batch.labels.tolist() == dataset.labels[positions].tolist()
    assert batch.is_infrared.tolist() == dataset.infrared[positions].tolist()
    for image, position in zip(batch.images, positions, strict=True):
        np.testing.assert_array_equal(image, read_image(sysu_root / dataset.paths[position], SIZE))
    with pytest.raises(IndexError):
        source.take([len(dataset)])


def test_training_is_the_same_to_the_bit(regdb_root, tmp_path):
    words = arguments(tmp_path, "regdb", regdb_root, mser="false", num_epoch="1", cache_dir=str(tmp_path / "cache"))
    states = {}
    for kind in ("none", "device", "disk"):
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
    dataset, device = RegDB(regdb_root, "train"), torch.device("cuda:0")
    expected = ImageFiles(dataset, SIZE).take([4, 4, 0, 9])
    source = device_source(dataset, SIZE, folder, device, num_workers=0)
    found = ImageBatches(dataset, source).__getitems__([4, 4, 0, 9])
    assert found.images.device == device
    assert found.is_infrared.device == found.labels.device == found.indices.device == CPU
    assert torch.equal(found.images.cpu(), expected)


def test_a_device_cache_has_no_workers(regdb_root, folder, monkeypatch):
    dataset = RegDB(regdb_root, "train")
    source = cached(dataset, "device", folder)
    monkeypatch.setattr(DataLoader, "__init__", None)
    before = multiprocessing.active_children()
    loader = ordered_loader(dataset, source, [3, 1, 2], batch_size=2, num_workers=2, pin_memory=False)
    assert isinstance(loader, DirectLoader)
    assert len(loader) == 2
    for _ in range(2):  # it can be iterated again
        assert [batch.indices.tolist() for batch in loader] == [[3, 1], [2]]
    assert multiprocessing.active_children() == before


def test_other_processes_share_the_images(regdb_root, folder):
    """The pickle sent to a spawned process refers to the file and does not contain the images."""
    source = cached(RegDB(regdb_root, "train"), "disk", folder, size=(96, 48))
    sent = bytes(ForkingPickler.dumps(source))
    assert len(sent) < 20_000 < source.images.numel()
    assert torch.equal(ForkingPickler.loads(sent).take([3, 5]), source.take([3, 5]))


# --- when it is written ---------------------------------------------------------------------------------------------


def test_written_once(root, folder, monkeypatch):
    decoded = count_decoded(monkeypatch)
    dataset = RegDB(root, "train")
    path = cached(dataset, "disk", folder).file.path
    before = path.stat()
    assert before.st_size == HEADER_BYTES + len(decoded) * 3 * SIZE[0] * SIZE[1]
    decoded.clear()
    for kind in KINDS:  # the cache on the device is read from the file
        assert_right(dataset, cached(dataset, kind, folder))
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
    """Two lines of an index are swapped: the same files in another order."""
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
def test_written_again_after(change, root, folder, monkeypatch):
    dataset = RegDB(root, "train")
    path = cached(dataset, "disk", folder).file.path
    before = path.stat().st_ino
    change(root / dataset.paths[0], path)
    decoded = count_decoded(monkeypatch)
    dataset = RegDB(root, "train")
    source = cached(dataset, "disk", folder)
    assert len(decoded) == len(dataset)
    assert path.stat().st_ino != before
    assert_right(dataset, source)
    assert_right(dataset, cached(dataset, "device", folder))


def test_every_split_trial_size_and_root_has_its_own(root, regdb_root, folder):
    for where, split, size, trial in (
        (root, "train", SIZE, 1), (root, "test", SIZE, 1), (root, "train", (64, 32), 1), (root, "train", SIZE, 2),
        (regdb_root, "train", SIZE, 1),
    ):  # fmt: skip
        dataset = RegDB(where, split, trial=trial)
        assert_right(dataset, cached(dataset, "disk", folder, size=size), size)
    assert len(list(folder.iterdir())) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_each_filter_has_its_own_cache(root, folder, kind):
    dataset, found = RegDB(root, "train"), {}
    for resize in ("bilinear", "lanczos", "bilinear"):
        options = {"num_workers": 0, "resize": resize}
        source = (
            disk_source(dataset, SIZE, folder, **options)
            if kind == "disk"
            else device_source(dataset, SIZE, folder, CPU, **options)
        )
        found[resize] = source.take(range(len(dataset)))
        assert torch.equal(found[resize], ImageFiles(dataset, SIZE, resize=resize).take(range(len(dataset))))
    assert not torch.equal(found["bilinear"], found["lanczos"])
    files = [CacheFile(dataset, SIZE, folder, resize=resize) for resize in ("bilinear", "lanczos")]
    assert files[0].path != files[1].path
    assert files[0].header != files[1].header


def test_a_cache_under_the_name_of_another(root, folder):
    one, two = RegDB(root, "train", trial=1), RegDB(root, "train", trial=2)
    path = cached(one, "disk", folder).file.path
    shutil.copy(path, CacheFile(two, SIZE, folder).path)
    assert_right(two, cached(two, "disk", folder))


# --- what may go wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_image_is_named_and_nothing_is_left(root, folder, kind, workers):
    dataset = RegDB(root, "train")
    broken = root / dataset.paths[-1]
    broken.write_bytes(b"nothing")
    assert f"{broken}: cannot be decoded" in refused(dataset, kind, folder, workers)
    assert not list(folder.glob("*"))


def test_image_that_vanished(root, folder):
    dataset = RegDB(root, "train")
    (root / dataset.paths[3]).unlink()
    assert f"{root / dataset.paths[3]}: cannot be read" in refused(dataset, "disk", folder)


def stop_at(monkeypatch, number: int, stop) -> None:
    """Call ``stop()`` before the ``number``-th image is decoded."""
    decoded = []

    def read(path: Path, size: tuple[int, int], resize: str) -> np.ndarray:
        decoded.append(path)
        if len(decoded) == number:
            stop()
        return read_image(path, size, resize)

    monkeypatch.setattr(data.datasets.images, "read_image", read)


def test_interrupted_it_leaves_no_file(root, folder, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(data.cache, "CHUNK", 8)
    stop_at(monkeypatch, 20, interrupt)
    with pytest.raises(KeyboardInterrupt):
        cached(RegDB(root, "train"), "disk", folder)
    assert not list(folder.iterdir())


def test_killed_it_leaves_no_cache(root, folder, monkeypatch):
    monkeypatch.setattr(data.cache, "CHUNK", 8)
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
        stop_at(monkeypatch, 20, lambda: os.kill(os.getpid(), signal.SIGKILL))
        cached(RegDB(root, "train"), "disk", folder)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert left.suffix == ".partial"

    dataset = RegDB(root, "train")
    source = cached(dataset, "disk", folder)
    assert_right(dataset, source)
    assert set(folder.iterdir()) == {source.file.path, left}  # it may belong to a run that is writing
    source.file.path.unlink()
    os.utime(left, (time.time() - 7200,) * 2)
    assert_right(dataset, cached(dataset, "disk", folder))
    assert set(folder.iterdir()) == {source.file.path}


def test_two_runs_write_at_once(root, folder, monkeypatch):
    inner, dataset = [], RegDB(root, "train")
    stop_at(monkeypatch, 20, lambda: inner.append(cached(dataset, "disk", folder)))
    outer = cached(dataset, "disk", folder)
    assert_right(dataset, inner[0])  # it keeps the file that the other run has replaced
    assert_right(dataset, outer)
    assert list(folder.iterdir()) == [outer.file.path]


def test_replaced_by_a_cache_of_other_images(root, folder):
    source = cached(RegDB(root, "train"), "disk", folder)
    rebuild, arguments_ = source.__reduce__()
    assert rebuild is MappedImages
    damage_header(root, source.file.path)
    with pytest.raises(UserError, match="another run replaced this cache"):
        rebuild(*arguments_)


def test_full_disk(root, folder, monkeypatch):
    dataset = RegDB(root, "train")
    needed = HEADER_BYTES + len(dataset) * 3 * SIZE[0] * SIZE[1]
    for free in (needed - 1, needed):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        if free < needed:
            message = refused(dataset, "disk", folder)
            assert f"{folder}: the cache needs" in message
            assert "set cache_dir" in message
            assert not list(folder.iterdir())
        else:
            assert_right(dataset, cached(dataset, "disk", folder))


def test_writing_fails(root, folder, monkeypatch):
    def fail(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    message = refused(RegDB(root, "train"), "disk", folder)
    assert "the cache cannot be written (No space left on device); set cache_dir" in message
    assert not list(folder.iterdir())


def test_folder_that_cannot_be(root, tmp_path):
    (tmp_path / "file").write_text("")
    assert "set cache_dir" in refused(RegDB(root, "train"), "disk", tmp_path / "file")


def test_too_little_memory(root, folder, monkeypatch):
    dataset = RegDB(root, "train")
    needed = len(dataset) * 3 * SIZE[0] * SIZE[1]
    monkeypatch.setattr(data.cache, "available_memory", lambda: needed - 1)
    assert "cache: 'device' needs" in refused(dataset, "device", folder)
    monkeypatch.setattr(data.cache, "available_memory", lambda: needed)
    assert_right(dataset, cached(dataset, "device", folder))


def test_available_memory():
    assert 2**20 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_images_that_changed_places_are_noticed(root, folder):
    """Two images of the same size and modification time are swapped."""
    images = sorted(root.glob("Visible/*/*.bmp"))[:2]
    for path in images:
        os.utime(path, (1e9, 1e9))
    for split in ("train", "test"):
        cached(RegDB(root, split), "disk", folder)
    images[0].rename(folder / "aside")
    images[1].rename(images[0])
    (folder / "aside").rename(images[1])
    for split in ("train", "test"):
        dataset = RegDB(root, split)
        assert_right(dataset, cached(dataset, "disk", folder))
