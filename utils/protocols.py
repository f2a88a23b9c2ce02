"""The test protocols of SYSU-MM01 and RegDB: which image is a query, which is in the gallery, and how it is scored."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from utils.errors import UserError
from utils.features import SPECTRA, Features
from utils.metrics import Metrics, retrieval_metrics
from utils.rerank import mser_distance
from utils.results import SettingResult, TrialScore

SYSU_MODES = {"all": (1, 2, 4, 5), "indoor": (1, 2)}  # gallery cameras
SYSU_SHOTS = (1, 10)
SYSU_QUERY_CAMERAS = (3, 6)
REGDB_CAMERAS = {"visible": 2, "infrared": 3}
RANKS = (1, 5, 10, 20)


class MSER(NamedTuple):
    """Hyper-parameters of the re-ranking; see :func:`utils.rerank.mser_distance`."""

    k1: int
    k2: int
    lam: float


class Trial(NamedTuple):
    """Positions of query and gallery images, and the places that stand for their cameras when a query is scored."""

    query: np.ndarray
    gallery: np.ndarray
    query_places: np.ndarray
    gallery_places: np.ndarray


@dataclass(frozen=True)
class Setting:
    """A row of the results: its name, its trials, and what may be a neighbour when it is re-ranked."""

    name: str
    trials: tuple[Trial, ...]
    neighbours: str


def score(features: Features, settings: list[Setting], *, mser: MSER | None = None) -> dict[str, SettingResult]:
    """Every setting plain and, with ``mser``, re-ranked under its name with ``/mser`` appended.

    Raises:
        UserError: ``mser`` is asked for, but the features lack a spectrum.
    """
    lacking = [name for name in SPECTRA if name not in features.spectra]
    if mser and lacking:
        raise UserError(f"MSER needs the features of every spectrum; {', '.join(lacking)} is missing")
    spectra = np.stack([features.normalised(name) for name in (SPECTRA if mser else SPECTRA[:1])])

    plain, reranked = {}, {}
    for setting in settings:
        plain[setting.name] = SettingResult(
            tuple(_score(features, trial, _cosine_distance(spectra[0], trial)) for trial in setting.trials)
        )
        if mser:
            reranked[f"{setting.name}/mser"] = SettingResult(
                tuple(
                    _score(features, trial, _mser(spectra, trial, mser, setting.neighbours)) for trial in setting.trials
                )
            )
    return plain | reranked


def sysu_settings(features: Features, permutations: Mapping[tuple[int, int], np.ndarray]) -> list[Setting]:
    """All-search and indoor-search, single-shot and multi-shot, ten trials each.

    A trial's gallery: for every gallery camera and identity, the first ``shots`` instances of the permutation's row.
    Cameras 2 and 3 see one place: a camera-3 query ignores camera-2 gallery images.

    Args:
        features: of all test images; paths end in ``cam<camera>/<identity>/<instance>.jpg``.
        permutations: (camera, identity) -> (trials, images) 1-based instance numbers.

    Raises:
        UserError: an image that a permutation names has no feature, or there is no query.
    """
    position = {
        (camera, identity, _instance(path)): index
        for index, (path, identity, camera) in enumerate(
            zip(features.paths.tolist(), features.identities.tolist(), features.cameras.tolist(), strict=True)
        )
    }
    query = np.flatnonzero(np.isin(features.cameras, SYSU_QUERY_CAMERAS))
    if not len(query):
        raise UserError(f"no query: no feature of an infrared camera ({SYSU_QUERY_CAMERAS})")
    places = np.where(features.cameras == 3, 2, features.cameras)
    identities = np.unique(features.identities).tolist()
    trials = len(next(iter(permutations.values())))

    settings = []
    for (mode, cameras), shots in product(SYSU_MODES.items(), SYSU_SHOTS):
        seen = [
            (camera, identity) for camera in cameras for identity in identities if (camera, identity) in permutations
        ]
        galleries = [
            np.array([_position(position, key, n) for key in seen for n in permutations[key][trial, :shots].tolist()])
            for trial in range(trials)
        ]
        settings.append(
            Setting(
                f"{mode}/{shots}-shot",
                tuple(Trial(query, gallery, places[query], places[gallery]) for gallery in galleries),
                neighbours="queries",
            )
        )
    return settings


def regdb_settings(features: Features) -> list[Setting]:
    """Infrared to visible and visible to infrared, all against all; the two cameras share no place."""
    sides = {name: np.flatnonzero(features.cameras == camera) for name, camera in REGDB_CAMERAS.items()}
    for name, positions in sides.items():
        if not len(positions):
            raise UserError(f"no feature of {name} images (camera {REGDB_CAMERAS[name]})")
    return [
        Setting(
            f"{query}_to_{gallery}",
            (Trial(sides[query], sides[gallery], *(features.cameras[sides[side]] for side in (query, gallery))),),
            neighbours="all",
        )
        for query, gallery in (("infrared", "visible"), ("visible", "infrared"))
    ]


def _instance(path: str) -> int:
    stem = path.replace("\\", "/").rsplit("/", 1)[-1].split(".")[0]
    if not stem.isdecimal():
        raise UserError(f"{path}: the file's name should be the instance number")
    return int(stem)


def _position(position: dict[tuple[int, int, int], int], key: tuple[int, int], instance: int) -> int:
    try:
        return position[(*key, instance)]
    except KeyError:
        raise UserError(
            f"camera {key[0]}, identity {key[1]}: the permutation names instance {instance}, which has no feature"
        ) from None


def _cosine_distance(features: np.ndarray, trial: Trial) -> np.ndarray:
    return -(features[trial.query] @ features[trial.gallery].T)


def _mser(spectra: np.ndarray, trial: Trial, mser: MSER, neighbours: str) -> np.ndarray:
    return mser_distance(
        spectra[:, trial.query], spectra[:, trial.gallery], k1=mser.k1, k2=mser.k2, lam=mser.lam, neighbours=neighbours
    )


def _score(features: Features, trial: Trial, distance: np.ndarray) -> TrialScore:
    ids = features.identities
    try:
        metrics = retrieval_metrics(
            distance, ids[trial.query], trial.query_places, ids[trial.gallery], trial.gallery_places
        )
    except ValueError as error:
        raise UserError(f"the test set cannot be scored: {error}") from None
    return _percent(metrics)


def _percent(metrics: Metrics) -> TrialScore:
    last = len(metrics.cmc)
    return TrialScore(
        *(100 * float(metrics.cmc[min(rank, last) - 1]) for rank in RANKS), 100 * metrics.mAP, 100 * metrics.mINP
    )
