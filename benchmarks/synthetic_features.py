"""Synthetic features at about the published sizes of the test sets, scattered around the centre of each identity."""

from itertools import product
from pathlib import Path

import numpy as np

from data.datasets import SYSU, RegDB
from data.datasets.sysu import MODES, SHOTS
from utils.features import SPECTRA, Features
from utils.protocols import Search

TRIALS = 10
# test images of each camera; their sums are the published 3,803 infrared and 6,775 visible ones
SYSU_IMAGES = {1: 1600, 2: 1700, 3: 1900, 4: 1750, 5: 1725, 6: 1903}
SYSU_IDENTITIES = 96
SYSU_INDOOR = 56  # identities seen by cameras 1 and 2, the gallery of indoor search
REGDB_IDENTITIES, REGDB_IMAGES = 206, 10


def synthetic_features(
    identities: np.ndarray, cameras: np.ndarray, paths: list[str], *, dimensions: int, scatter: float, seed: int
) -> Features:
    """Random features: within-identity spread = scatter * distance between identity centres."""
    rng = np.random.default_rng(seed)

    def normal(rows: int) -> np.ndarray:
        return rng.standard_normal((rows, dimensions), dtype=np.float32)

    original = normal(int(identities.max()) + 1)[identities]
    original += 0.7 * scatter * normal(int(cameras.max()) + 1)[cameras]
    original += scatter * normal(len(identities))
    infrared = np.isin(cameras, SYSU.infrared_cameras)
    spectra = {"original": original}
    for name in SPECTRA[1:]:
        spectra[name] = original + np.where(infrared[:, None], 0, 0.4 * scatter * normal(len(identities)))
    return Features(np.array(paths), identities, cameras, spectra)


def sysu(*, dimensions: int = 2048, scatter: float = 2.0, seed: int = 0, scale: float = 1.0) -> tuple[Features, Search]:
    """Features of SYSU-MM01's test size with a gallery pool ``scale`` times as large, and all its settings."""
    rows = []
    for camera, images in SYSU_IMAGES.items():
        images = int(images * scale) if camera in SYSU.visible_cameras else images
        identities = np.arange(1, (SYSU_INDOOR if camera in MODES["indoor"] else SYSU_IDENTITIES) + 1)
        rows += [(camera, identity) for identity in np.sort(np.resize(identities, images))]
    cameras, identities = np.array(rows).T
    paths = [f"{number}.jpg" for number in range(len(rows))]
    features = synthetic_features(identities, cameras, paths, dimensions=dimensions, scatter=scatter, seed=seed)

    query, pool = (np.flatnonzero(np.isin(cameras, side)) for side in (SYSU.infrared_cameras, SYSU.visible_cameras))
    rng = np.random.default_rng(seed)
    galleries = {}
    for (mode, seen_by), shots in product(MODES.items(), SHOTS):
        pairs = sorted({(camera, identity) for camera, identity in rows if camera in seen_by})
        groups = [np.flatnonzero((cameras[pool] == camera) & (identities[pool] == i)) for camera, i in pairs]
        galleries[f"{mode}/{shots}-shot"] = tuple(
            np.concatenate([rng.permutation(group)[:shots] for group in groups]) for _ in range(TRIALS)
        )
    locations = SYSU.locations_of(cameras)
    return features, Search(query, pool, locations[query], locations[pool], galleries, neighbours="queries")


def regdb(*, dimensions: int = 2048, scatter: float = 2.0, seed: int = 0) -> tuple[Features, Search]:
    """Features of RegDB's test size, and the search in both directions."""
    identities = np.tile(np.repeat(np.arange(1, REGDB_IDENTITIES + 1), REGDB_IMAGES), 2)
    cameras = np.repeat([*RegDB.visible_cameras, *RegDB.infrared_cameras], len(identities) // 2)
    paths = [f"{number}.bmp" for number in range(len(identities))]
    features = synthetic_features(identities, cameras, paths, dimensions=dimensions, scatter=scatter, seed=seed)
    (search,) = RegDB.protocol(features, Path())  # reads no file
    return features, search
