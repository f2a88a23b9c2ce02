import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs import get_config
from data import build_dataset
from data.datasets import DATASETS, SYSU, RegDB
from data.datasets.base import Counts
from data.datasets.images import ImageFiles, read_image
from data.datasets.permutations import read_permutations
from data.loaders import ordered_loader, train_loader
from data.samplers import EpochSampler, Sizes
from utils.run.errors import UserError

SIZE = (48, 24)


def refused(dataset, *arguments, **options) -> str:
    with pytest.raises(UserError) as error:
        dataset(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def ids(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().strip().split(",")]


def test_sysu_samples(sysu_root):
    train, test = SYSU(sysu_root, "train"), SYSU(sysu_root, "test")
    order = ids(sysu_root / "exp/train_id.txt") + ids(sysu_root / "exp/val_id.txt")
    for sample in train.samples:
        camera, identity, name = sample.path.split("/")
        assert (sample.camera, sample.identity) == (int(camera[3:]), int(identity))
        assert sample.label == order.index(sample.identity)  # its position in train + val
        assert name.endswith(".jpg")
    assert sorted({sample.label for sample in train.samples}) == list(range(len(order)))
    assert {sample.identity for sample in test.samples} == set(ids(sysu_root / "exp/test_id.txt"))
    assert all(sample.label == sample.identity for sample in test.samples)
    assert train.paths.tolist() == sorted(train.paths.tolist())
    on_disk = {path.relative_to(sysu_root).as_posix() for path in sysu_root.glob("cam?/*/*.jpg")}
    assert set(train.paths) | set(test.paths) == on_disk


def test_only_the_six_camera_folders_count(sysu):
    before = SYSU(sysu, "train").samples
    shutil.copytree(sysu / "cam1", sysu / "cam1_video_train")
    assert SYSU(sysu, "train").samples == before


def test_regdb_samples(regdb_root):
    for trial in (1, 2):
        train, test = (RegDB(regdb_root, split, trial=trial) for split in ("train", "test"))
        identities = sorted({sample.identity for sample in train.samples})
        for sample in train.samples:
            folder, identity, _ = sample.path.split("/")
            assert sample.camera == {"Visible": 2, "Thermal": 3}[folder]
            assert sample.identity == int(identity)
            assert sample.label == identities.index(sample.identity)  # index in the sorted identities
        assert set(identities).isdisjoint({sample.identity for sample in test.samples})
    assert (RegDB(regdb_root, "train", trial=1).paths != RegDB(regdb_root, "train", trial=2).paths).any()


@pytest.mark.parametrize(
    ("options", "resampling"),
    [({}, Image.Resampling.BILINEAR), ({"resize": "lanczos"}, Image.Resampling.LANCZOS)],
    ids=["MCJA", "AGW"],
)
def test_images_are_decoded_as_released(sysu_root, options, resampling):
    dataset = SYSU(sysu_root, "train")
    (image_7,) = ImageFiles(dataset, SIZE, **options).take([7])
    with Image.open(sysu_root / dataset.paths[7]) as image:
        expected = np.asarray(image.convert("RGB").resize((SIZE[1], SIZE[0]), resampling))
    assert image_7.dtype == torch.uint8
    np.testing.assert_array_equal(image_7.permute(1, 2, 0), expected)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_mode_is_read_as_rgb(tmp_path, mode):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new("RGB", (9, 7), (200, 200, 200)).convert(mode).save(path)
    image = read_image(path, (14, 18))
    assert image.shape == (3, 14, 18)
    assert np.abs(image.astype(int) - image[:1]).max() <= 1  # grey is replicated


def test_cameras_and_locations():
    assert SYSU.cameras_of() == (1, 2, 3, 4, 5, 6)
    assert SYSU.locations_of(np.arange(1, 7)).tolist() == [1, 2, 2, 4, 5, 6]
    assert RegDB.locations_of(np.array([2, 3])).tolist() == [2, 3]
    assert RegDB.infrared_cameras == (3,)


@pytest.mark.parametrize("name", DATASETS)
def test_what_every_data_set_declares(name):
    dataset = DATASETS[name]
    keys = {"num_id", "num_cam", "data_root", "mser_k1", "mser_k2", "mser_lambda"}
    assert dataset.defaults.keys() >= keys
    assert dataset.defaults["num_cam"] == {"sysu": 6, "regdb": 2, "llcm": 9}[name]
    assert not set(dataset.locations) - set(dataset.cameras_of())
    assert not set(dataset.visible_cameras) & set(dataset.infrared_cameras)
    assert dataset.published["train"].identities == dataset.defaults["num_id"]
    published = {"sysu": Counts(96, 6775, 3803), "regdb": Counts(206, 2060, 2060), "llcm": Counts(351, 8680, 7166)}
    assert dataset.published["test"] == published[name]


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_give_what_the_sampler_lists(sysu_root, workers):
    dataset = SYSU(sysu_root, "train")
    source = ImageFiles(dataset, SIZE)
    sampler = EpochSampler(dataset.labels, dataset.infrared, method="norm_triplet", sizes=Sizes(2, 4, 8), seed=0)
    loader = train_loader(dataset, source, sampler, num_workers=workers, pin_memory=False)
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        state = torch.get_rng_state()
        batches = list(loader)
        assert torch.equal(torch.get_rng_state(), state)  # loading draws nothing from the global generator
        assert [batch.indices.tolist() for batch in batches] == sampler.batches.tolist()
        for batch in batches:
            positions = batch.indices.numpy()
            np.testing.assert_array_equal(batch.labels, dataset.labels[positions])
            np.testing.assert_array_equal(batch.is_infrared, dataset.infrared[positions])
            assert batch.images.shape == (8, 3, *SIZE)
    ordered = ordered_loader(dataset, source, [5, 3, 9], batch_size=2, num_workers=workers, pin_memory=False)
    assert [batch.indices.tolist() for batch in ordered] == [[5, 3], [9]]


def test_closing_does_not_wait_for_a_lock_of_a_killed_worker(sysu_root):
    dataset = SYSU(sysu_root, "train")
    positions = list(range(8))
    loader = ordered_loader(
        dataset, ImageFiles(dataset, SIZE), positions, batch_size=2, num_workers=2, pin_memory=False
    )
    next(iter(loader))
    iterator = loader._iterator
    iterator._workers_done_event._cond.acquire()  # as if the worker were killed while it looked at the event
    iterator._workers[0].kill()
    iterator._workers[0].join()
    closing = threading.Thread(target=loader.close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()
    assert not iterator._workers[1].is_alive()


def test_summary(sysu_root):
    dataset = SYSU(sysu_root, "train")
    text = dataset.summary()
    assert f"SYSU-MM01 train: {dataset.num_identities} identities, {(~dataset.infrared).sum()} visible and" in text
    assert f"camera 6 (infrared): {len(set(dataset.identities[dataset.cameras == 6]))} identities" in text


def test_permutations(sysu_root):
    permutations = read_permutations(sysu_root / "exp/rand_perm_cam.mat", SYSU.cameras_of())
    for (camera, identity), instances in permutations.items():
        images = list((sysu_root / f"cam{camera}" / f"{identity:04d}").glob("*.jpg"))
        assert instances.shape == (10, len(images))
        assert (np.sort(instances, axis=1) == np.arange(1, len(images) + 1)).all()


# --- damaged data sets ----------------------------------------------------------------------------------------------


def test_missing_root():
    assert "/nowhere: no such folder; set data_root" in refused(SYSU, "/nowhere", "train")


def test_missing_camera(sysu):
    shutil.rmtree(sysu / "cam4")
    assert f"{sysu / 'cam4'}: no such folder" in refused(SYSU, sysu, "train")


@pytest.mark.parametrize("name", ["train_id.txt", "val_id.txt", "rand_perm_cam.mat"])
def test_missing_lists(sysu, name):
    (sysu / "exp" / name).unlink()
    assert f"{sysu / 'exp' / name}: no such file; expected: " in refused(SYSU, sysu, "train")


@pytest.mark.parametrize("remove", ["folder", "images"])
def test_identity_that_one_camera_lost(sysu, remove):
    path = sysu / SYSU(sysu, "train").paths[0]
    for image in path.parent.glob("*.jpg"):
        image.unlink()
    if remove == "folder":
        path.parent.rmdir()
    assert f"{path.parent}: holds no image" in refused(SYSU, sysu, "train")


def test_identity_that_no_camera_saw(sysu):
    with (sysu / "exp/val_id.txt").open("a") as file:
        file.write(",77")
    message = refused(SYSU, sysu, "train")
    assert f"{sysu}/cam*/0077" in message


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("infrared", [True, False])
def test_instance_without_its_image(sysu, split, infrared):
    dataset = SYSU(sysu, split)
    path = sysu / dataset.paths[dataset.infrared == infrared][0]
    path.unlink()
    assert f"{path}: no such image" in refused(SYSU, sysu, split)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,x", "'x' is not an identity number"),
        ("1,-2", "'-2' is not an identity number"),
        ("1,²", "'²' is not an identity number"),
        ("5,5", "identity 5 is listed twice"),
        ("", "lists no identity"),
    ],
)
def test_bad_identity_lists(sysu, text, words):
    (sysu / "exp/test_id.txt").write_text(text)
    message = refused(SYSU, sysu, "test")
    assert words in message
    assert "test_id.txt" in message


def test_identity_in_train_and_val(sysu):
    both = ids(sysu / "exp/train_id.txt")[0]
    (sysu / "exp/val_id.txt").write_text(str(both))
    assert f"identity {both} is in both" in refused(SYSU, sysu, "train")


def test_harmless_spelling_of_identity_lists(sysu):
    expected = SYSU(sysu, "test").samples
    path = sysu / "exp/test_id.txt"
    path.write_bytes(b"\xef\xbb\xbf " + path.read_bytes().strip().replace(b",", b", ") + b",\r\n\r\n")
    assert SYSU(sysu, "test").samples == expected


def test_regdb_index_line_without_its_image(regdb):
    path = regdb / RegDB(regdb, "train").paths[3]
    path.unlink()
    message = refused(RegDB, regdb, "train")
    assert f"{path}: no such image" in message
    assert "train_visible_1.txt" in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Visible/1/x.bmp", "expected 'relative/path label'"),
        ("Visible/1/x.bmp one", "expected 'relative/path label'"),
        ("../Visible/1/x.bmp 0", "leads outside"),
        ("Visible/../../1/x.bmp 0", "leads outside"),
        ("/etc/1/x.bmp 0", "leads outside"),
        ("C:\\x\\1\\x.bmp 0", "leads outside"),
        ("x.bmp 0", "is not below Visible/"),
        ("Thermal/1/x.bmp 0", "is not below Visible/"),
        ("Visible/x.bmp 0", "folder named by its identity"),
        ("Visible/one/x.bmp 0", "folder named by its identity"),
        ("", "lists no image"),
    ],
)
def test_bad_regdb_lines(regdb, line, words):
    index = regdb / "idx/train_visible_1.txt"
    index.write_text(line)
    message = refused(RegDB, regdb, "train")
    assert words in message
    assert "train_visible_1.txt" in message


def test_identities_of_both_splits_are_refused(sysu, regdb):
    with (sysu / "exp/test_id.txt").open("a") as file:
        file.write(f",{ids(sysu / 'exp/train_id.txt')[0]}")
    for split in ("train", "test"):
        assert "both training and testing" in refused(SYSU, sysu, split)
    for modality in ("visible", "thermal"):
        (regdb / f"idx/test_{modality}_1.txt").write_text((regdb / f"idx/train_{modality}_1.txt").read_text())
    assert "both training and testing in split 1" in refused(RegDB, regdb, "test")


def test_regdb_identity_of_one_modality(regdb):
    index = regdb / "idx/train_thermal_1.txt"
    lines = index.read_text().splitlines()
    identity = lines[0].split("/")[1]
    index.write_text("\n".join(line for line in lines if line.split("/")[1] != identity))
    message = refused(RegDB, regdb, "train")
    assert f"lists no image of identity {identity}" in message
    assert "train_thermal_1.txt" in message


def test_what_is_no_instance_is_left_out(sysu):
    expected = SYSU(sysu, "train").samples
    folder = (sysu / expected[0].path).parent
    for name in ("0001 (copy).jpg", "._0001.jpg", "Thumbs.db"):
        (folder / name).write_bytes(b"x")
    assert SYSU(sysu, "train").samples == expected


def test_regdb_line_given_twice(regdb):
    index = regdb / "idx/test_thermal_1.txt"
    index.write_text(index.read_text() + index.read_text().splitlines()[0])
    assert "listed twice" in refused(RegDB, regdb, "test")


def test_missing_trial(regdb):
    (regdb / "idx/train_thermal_4.txt").unlink()
    assert "train_thermal_4.txt: no such file" in refused(RegDB, regdb, "train", trial=4)


def test_harmless_spelling_of_regdb_lists(regdb):
    expected = RegDB(regdb, "train").samples
    for index in regdb.glob("idx/train_*_1.txt"):
        index.write_bytes(b"\xef\xbb\xbf\r\n" + index.read_bytes().replace(b"/", b"\\").replace(b"\n", b"\r\n"))
    assert RegDB(regdb, "train").samples == expected


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_unreadable_images(sysu_root, tmp_path, content):
    path = tmp_path / "0001.jpg"
    whole = next(sysu_root.glob("cam1/*/0001.jpg")).read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert f"{path}: cannot be decoded" in refused(read_image, path, SIZE)
    assert "no such image" in refused(read_image, tmp_path / "absent.jpg", SIZE)


def test_configured_numbers_are_compared_with_the_data(sysu_root, tmp_path):
    (tmp_path / "x.yml").write_text(f"data_root: {sysu_root}\n")
    found = SYSU(sysu_root, "train").num_identities
    assert f"num_id: 395, but {sysu_root} has {found} training identities" in refused(
        build_dataset, get_config(tmp_path / "x.yml"), "train"
    )
    cfg = get_config(tmp_path / "x.yml", ["num_id", str(found), "num_cam", "5"])
    assert "num_cam: 5, but SYSU-MM01 has 6 cameras; set num_cam 6" in refused(build_dataset, cfg, "train")
    with pytest.raises(ValueError, match="unknown split 'val'"):
        SYSU(sysu_root, "val")
