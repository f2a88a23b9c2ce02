"""A data set is one class and one registry entry: a third one is checked, trained on, tested and scored."""

import json
import shutil

import numpy as np
import pytest

from data.datasets import DATASETS
from data.datasets.base import ReIDDataset, Sample
from tests.helpers.runs import SMALL, run
from tools.doctor import main as doctor_main
from tools.score import main as score_main
from utils.protocols import Search


class Twins(ReIDDataset):
    """Cameras 3 and 6 are visible, camera 1 is infrared and shares its location with camera 3."""

    name = "Twins"
    visible_cameras = (3, 6)
    infrared_cameras = (1,)
    locations = {1: 3}
    defaults = {"num_id": 8, "num_cam": 3, "data_root": "twins", "mser_k1": 4, "mser_k2": 2, "mser_lambda": 0.3}
    selection = ("night_to_day",)

    def list_samples(self):
        samples = []
        for path in sorted((self.root / self.split).glob("*/*/*.jpg")):
            camera, identity = int(path.parts[-3]), int(path.parts[-2])
            samples.append((path.relative_to(self.root).as_posix(), identity, camera))
        labels = {identity: label for label, identity in enumerate(sorted({identity for _, identity, _ in samples}))}
        return [Sample(*sample, labels[sample[1]] if self.split == "train" else sample[1]) for sample in samples]

    @classmethod
    def protocol(cls, images, root):
        query = np.flatnonzero(np.isin(images.cameras, cls.infrared_cameras))
        pool = np.flatnonzero(np.isin(images.cameras, cls.visible_cameras))
        locations = cls.locations_of(images.cameras)
        galleries = {"night_to_day": (np.arange(len(pool)),)}
        return (Search(query, pool, locations[query], locations[pool], galleries, neighbours="queries"),)


@pytest.fixture
def twins(sysu_root, tmp_path, monkeypatch):
    """Images of the synthetic SYSU-MM01 under other camera numbers."""
    cameras = {1: 3, 2: 6, 3: 1, 4: 3, 5: 6, 6: 1}
    for image in sorted(sysu_root.glob("cam*/*/*.jpg")):
        identity, camera = int(image.parts[-2]), cameras[int(image.parts[-3][3:])]
        split = "train" if identity <= 8 else "test"
        target = tmp_path / f"twins/{split}/{camera}/{identity}/{image.parts[-3]}_{image.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, target)
    monkeypatch.setitem(DATASETS, "twins", Twins)
    return tmp_path / "twins"


def test_a_third_data_set(twins, tmp_path, capsys):
    (tmp_path / "twins.yml").write_text(f"dataset: twins\ndata_root: {twins}\n")
    keys = {**SMALL, "num_epoch": "1", "save_features": "true", "output_dir": str(tmp_path / "runs")}
    del keys["mser_k1"], keys["mser_k2"]  # the data set's defaults
    words = ["--cfg", str(tmp_path / "twins.yml"), "--gpu", "cpu"]
    overrides = [word for pair in keys.items() for word in pair]

    assert doctor_main([*words, *overrides]) == 0
    assert "Twins train in" in capsys.readouterr().out

    folder = run(tmp_path, *words, "--seed", "5", *overrides)
    results = json.loads((folder / "results.json").read_text())
    assert list(results["results"]) == ["night_to_day", "night_to_day/mser"]
    assert results["config"]["mser_k1"] == 4
    assert "camera 1 (infrared)" in (folder / "log.txt").read_text()

    scores = tmp_path / "scores.json"
    words = ["--dataset", "twins", "--data-root", str(twins), "--json", str(scores), "--gpu", "cpu"]
    score_main([str(folder / "features.npz"), *words])
    for name, metrics in json.loads(scores.read_text()).items():
        assert metrics == pytest.approx(results["results"][name], abs=1e-6)
