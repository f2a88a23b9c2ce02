"""Synthetic features at the published sizes of the test sets: images scatter around the centre of their identity."""

import numpy as np

from utils.features import SPECTRA, Features
from utils.protocols import REGDB_CAMERAS

TRIALS = 10
# test images of each camera; their sums are the published 3,803 infrared and 6,775 visible ones
SYSU_IMAGES = {1: 1600, 2: 1700, 3: 1900, 4: 1750, 5: 1725, 6: 1903}
SYSU_IDENTITIES = 96
SYSU_INDOOR = 56  # identities seen by cameras 1 and 2, the gallery of indoor search
REGDB_IDENTITIES, REGDB_IMAGES = 206, 10


def synthetic_features(
    identities: np.ndarray, cameras: np.ndarray, paths: list[str], *, dimensions: int, scatter: float, seed: int
) -> Features:
    """Features of images that are ``scatter`` times as far from each other as the centres of identities."""
    random = np.random.default_rng(seed)

    def normal(rows: int) -> np.ndarray:
        return random.standard_normal((rows, dimensions), dtype=np.float32)

    original = normal(int(identities.max()) + 1)[identities]
    original += 0.7 * scatter * normal(int(cameras.max()) + 1)[cameras]
    original += scatter * normal(len(identities))
    infrared = np.isin(cameras, (3, 6))
    spectra = {"original": original}
    for name in SPECTRA[1:]:
        spectra[name] = original + np.where(infrared[:, None], 0, 0.4 * scatter * normal(len(identities)))
    return Features(np.array(paths), identities, cameras, spectra)


def sysu(
    *, dimensions: int = 2048, scatter: float = 2.0, seed: int = 0, scale: float = 1.0
) -> tuple[Features, dict[tuple[int, int], np.ndarray]]:
    """Features and permutations of SYSU-MM01's test size, with a gallery pool ``scale`` times as large."""
    random = np.random.default_rng(seed)
    rows, permutations = [], {}
    for camera, images in SYSU_IMAGES.items():
        seen = np.arange(1, (SYSU_INDOOR if camera in (1, 2) else SYSU_IDENTITIES) + 1)
        images = images if camera in (3, 6) else int(images * scale)
        for identity, count in zip(seen, np.diff(np.linspace(0, images, len(seen) + 1).astype(int)), strict=True):
            rows += [(camera, identity, instance) for instance in range(1, count + 1)]
            permutations[camera, int(identity)] = np.stack([random.permutation(count) + 1 for _ in range(TRIALS)])
    cameras, identities, _ = np.array(rows).T
    paths = [f"cam{camera}/{identity:04d}/{instance:04d}.jpg" for camera, identity, instance in rows]
    features = synthetic_features(identities, cameras, paths, dimensions=dimensions, scatter=scatter, seed=seed)
    return features, permutations


def regdb(*, dimensions: int = 2048, scatter: float = 2.0, seed: int = 0) -> Features:
    """Features of RegDB's test size."""
    identities = np.tile(np.repeat(np.arange(1, REGDB_IDENTITIES + 1), REGDB_IMAGES), 2)
    cameras = np.repeat(list(REGDB_CAMERAS.values()), len(identities) // 2)
    paths = [f"{number}.bmp" for number in range(len(identities))]
    return synthetic_features(identities, cameras, paths, dimensions=dimensions, scatter=scatter, seed=seed)
