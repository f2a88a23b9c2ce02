"""The golden LLCM test set: its tree of empty files, its features and its expected metrics."""

import json
from pathlib import Path

import numpy as np

from tests.helpers.golden import GOLDEN
from utils.features import Features

EXPECTED = json.loads((GOLDEN / "llcm_expected.json").read_text())
PATHS = [*EXPECTED["visible_images_in_order"], *EXPECTED["infrared_images_in_order"]]


def index_path(path: str) -> str:
    """``test_vis/cam1/0044/NAME.jpg`` as in the lists: ``vis/0044/NAME.jpg``."""
    top, _, identity, name = path.split("/")
    return f"{top.removeprefix('test_')}/{identity}/{name}"


def make_tree(root: Path, *, folders: bool) -> Path:
    """Lists and empty images.

    Args:
        folders: whether ``test_vis`` and ``test_nir`` are there; else ``vis`` and ``nir``.
    """
    (root / "idx").mkdir(parents=True)
    (root / "idx/test_id.txt").write_text(EXPECTED["test_id_txt"])
    for name, lines in EXPECTED["index_lines"].items():
        (root / f"idx/{name}.txt").write_text("\n".join(lines))
    if folders:
        (root / "test_nir/cam3").mkdir(parents=True)
    for path in PATHS:
        path = root / (path if folders else index_path(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def golden_features(*, folders: bool = True, seed: int = 0) -> Features:
    """The features with rows in random order, not normalised; infrared camera c has the number c + 9."""
    with np.load(GOLDEN / "llcm_features.npz") as arrays:
        values = np.concatenate([arrays["vis_features"], arrays["nir_features"]])
        identities = np.concatenate([arrays["vis_ids"], arrays["nir_ids"]])
        cameras = np.concatenate([arrays["vis_cams"], arrays["nir_cams"] + 9])
    random = np.random.default_rng(seed)
    order = random.permutation(len(values))
    values = values * random.uniform(0.5, 2, (len(values), 1))
    paths = np.array(PATHS if folders else [index_path(path) for path in PATHS])
    return Features(paths[order], identities[order], cameras[order], {"original": values[order]})
