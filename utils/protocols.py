"""The test protocols of SYSU-MM01 and RegDB: which image is a query, which is in a gallery, and how it is scored."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from utils.features import CPU, SPECTRA, Features
from utils.metrics import Metrics, retrieval_metrics
from utils.rerank import MSER, Reranker
from utils.results import SettingResult, TrialScore
from utils.run.errors import UserError

SYSU_MODES = {"all": (1, 2, 4, 5), "indoor": (1, 2)}  # gallery cameras
SYSU_SHOTS = (1, 10)
SYSU_QUERY_CAMERAS = (3, 6)
REGDB_CAMERAS = {"visible": 2, "infrared": 3}
RANKS = (1, 5, 10, 20)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """Queries against galleries out of one pool: all settings of a data set, so that they can share their work.

    A place stands for a camera where a query ignores the gallery images of its own one.
    """

    query: np.ndarray  # positions in the features; infrared images, which have one spectrum
    pool: np.ndarray  # positions in the features of every image that a gallery may hold; visible ones
    query_places: np.ndarray
    pool_places: np.ndarray
    galleries: dict[str, tuple[np.ndarray, ...]]  # setting -> trials -> positions in the pool
    neighbours: str  # see utils.rerank.mser_distance
    backward: str | None = None  # the setting, if any, in which the whole pool searches for the queries

    def only(self, names: Collection[str]) -> "Search":
        """The settings of these names."""
        galleries = {name: trials for name, trials in self.galleries.items() if name in names}
        return replace(self, galleries=galleries, backward=self.backward if self.backward in names else None)


def score(
    features: Features, search: Search, *, mser: MSER | None = None, device: torch.device = CPU
) -> dict[str, SettingResult]:
    """Every setting plain and, with ``mser``, re-ranked under its name with ``/mser`` appended.

    Computed on ``device``; on the CPU where its memory does not suffice.

    Raises:
        UserError: ``mser`` is asked for, but the features lack a spectrum; a feature is not finite; or a gallery has
            no match of any query.
    """
    lacking = [name for name in SPECTRA if name not in features.spectra]
    if mser and lacking:
        raise UserError(f"MSER needs the features of every spectrum; {', '.join(lacking)} is missing")
    features.require_finite(SPECTRA if mser else SPECTRA[:1])
    require_scorable(search, features.identities)
    try:
        return _score(features, search, mser, device)
    except torch.OutOfMemoryError:
        logger.warning("%s has too little memory left for scoring, which goes on on the CPU", device)
    return _score(features, search, mser, CPU)


def _score(features: Features, search: Search, mser: MSER | None, device: torch.device) -> dict[str, SettingResult]:
    results = _plain(features, search, device)
    if mser:
        results |= {f"{name}/mser": result for name, result in _reranked(features, search, mser, device).items()}
    return results


def require_scorable(search: Search, identities: np.ndarray) -> None:
    """Raise ``UserError`` for the first gallery that is empty, or that holds no match of any query.

    Args:
        identities: (N,) of the images whose positions the search holds.
    """
    queries = _seen(identities[search.query], search.query_places)
    for name, trials in search.galleries.items():
        for number, columns in enumerate(trials, start=1):
            gallery = _seen(identities[search.pool[columns]], search.pool_places[columns])
            if not gallery:
                raise UserError(f"the test set cannot be scored: the gallery of {name}, trial {number}, has no image")
            # where an identity is searched for, it has to be seen at another place
            if not any(gallery.get(identity, set()) - {place} for identity in queries for place in queries[identity]):
                raise UserError(
                    f"the test set cannot be scored: no query of {name}, trial {number}, has a match in the gallery:"
                    " the same identity at another place"
                )


def _seen(identities: np.ndarray, places: np.ndarray) -> dict[int, set[int]]:
    """Identity -> its places."""
    seen: dict[int, set[int]] = {}
    for identity, place in set(zip(identities.tolist(), places.tolist(), strict=True)):
        seen.setdefault(identity, set()).add(place)
    return seen


def _plain(features: Features, search: Search, device: torch.device) -> dict[str, SettingResult]:
    sides = (search.query, search.pool)
    query, pool = (features.normalised(SPECTRA[:1], positions, device)[0] for positions in sides)
    distance = (query @ pool.T).neg_()
    return _Scorer(features, search, device).results(
        lambda columns: distance.index_select(1, columns), lambda: distance.T
    )


def _reranked(features: Features, search: Search, mser: MSER, device: torch.device) -> dict[str, SettingResult]:
    reranker = Reranker(
        features.normalised(SPECTRA[:1], search.query, device),
        features.normalised(SPECTRA, search.pool, device),
        mser,
        neighbours=search.neighbours,
    )
    return _Scorer(features, search, device).results(reranker.distance, reranker.reverse_distance)


class _Scorer:
    """Figures of distances between a search's queries and images of its pool."""

    def __init__(self, features: Features, search: Search, device: torch.device):
        self.search, self.device = search, device
        self.query = features.identities[search.query], search.query_places
        self.pool = features.identities[search.pool], search.pool_places

    def results(
        self, forward: Callable[[Tensor], Tensor], backward: Callable[[], Tensor] | None = None
    ) -> dict[str, SettingResult]:
        """Every setting.

        Args:
            forward: columns of the pool -> distances of the queries to the images there.
            backward: distances of the whole pool to the queries.
        """
        results = {
            name: SettingResult(tuple(self._trial(forward, columns) for columns in trials))
            for name, trials in self.search.galleries.items()
        }
        if self.search.backward:
            results[self.search.backward] = SettingResult((_figures(backward(), *self.pool, *self.query),))
        return results

    def _trial(self, forward: Callable[[Tensor], Tensor], columns: np.ndarray) -> TrialScore:
        distance = forward(torch.from_numpy(columns).to(self.device))
        return _figures(distance, *self.query, *(values[columns] for values in self.pool))


def _figures(distance: Tensor, *identities_and_places: np.ndarray) -> TrialScore:
    try:
        return _percent(retrieval_metrics(distance, *identities_and_places))
    except ValueError as error:
        raise UserError(f"the test set cannot be scored: {error}") from None


def _percent(metrics: Metrics) -> TrialScore:
    last = len(metrics.cmc)
    return TrialScore(
        *(100 * float(metrics.cmc[min(rank, last) - 1]) for rank in RANKS), 100 * metrics.mAP, 100 * metrics.mINP
    )


def sysu_search(features: Features, permutations: Mapping[tuple[int, int], np.ndarray]) -> Search:
    """All-search and indoor-search, single-shot and multi-shot, ten trials each.

    A trial's gallery: for every gallery camera and identity, the first ``shots`` instances of the permutation's row.
    Cameras 2 and 3 see one place: a camera-3 query ignores camera-2 gallery images.

    Args:
        features: of all test images; paths end in ``cam<camera>/<identity>/<instance>.jpg``.
        permutations: (camera, identity) -> (trials, images) 1-based instance numbers.

    Raises:
        UserError: an image that a permutation names has no feature, or there is no query.
    """
    query = np.flatnonzero(np.isin(features.cameras, SYSU_QUERY_CAMERAS))
    pool = np.flatnonzero(np.isin(features.cameras, SYSU_MODES["all"]))
    if not len(query):
        raise UserError(f"no query: no feature of an infrared camera {SYSU_QUERY_CAMERAS}")
    column = {
        (camera, identity, _instance(path)): number
        for number, (camera, identity, path) in enumerate(
            zip(
                *(values[pool].tolist() for values in (features.cameras, features.identities, features.paths)),
                strict=True,
            )
        )
    }
    places = np.where(features.cameras == 3, 2, features.cameras)
    identities = np.unique(features.identities).tolist()
    trials = range(len(next(iter(permutations.values()))))

    galleries = {}
    for (mode, cameras), shots in product(SYSU_MODES.items(), SYSU_SHOTS):
        seen = [key for key in product(cameras, identities) if key in permutations]
        galleries[f"{mode}/{shots}-shot"] = tuple(
            np.array(
                [_column(column, key, n) for key in seen for n in permutations[key][trial, :shots].tolist()],
                dtype=np.int64,  # of an empty one, too
            )
            for trial in trials
        )
    return Search(query, pool, places[query], places[pool], galleries, neighbours="queries")


def regdb_search(features: Features) -> Search:
    """Infrared to visible and visible to infrared, all against all; the two cameras share no place."""
    sides = {name: np.flatnonzero(features.cameras == camera) for name, camera in REGDB_CAMERAS.items()}
    for name, positions in sides.items():
        if not len(positions):
            raise UserError(f"no feature of {name} images (camera {REGDB_CAMERAS[name]})")
    query, pool = sides["infrared"], sides["visible"]
    return Search(
        *(query, pool, features.cameras[query], features.cameras[pool]),
        galleries={"infrared_to_visible": (np.arange(len(pool)),)},
        neighbours="all",
        backward="visible_to_infrared",
    )


def _instance(path: str) -> int:
    stem = path.replace("\\", "/").rsplit("/", 1)[-1].split(".")[0]
    if not stem.isdecimal():
        raise UserError(f"{path}: the file's name should be the instance number")
    return int(stem)


def _column(column: Mapping[tuple[int, int, int], int], key: tuple[int, int], instance: int) -> int:
    try:
        return column[(*key, instance)]
    except KeyError:
        raise UserError(
            f"camera {key[0]}, identity {key[1]}: the permutation names instance {instance}, which has no feature"
        ) from None
