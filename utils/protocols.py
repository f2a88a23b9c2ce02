"""Score features by a test protocol: searches of queries in galleries, plain and with MSER."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from utils.features import CPU, SPECTRA, Features
from utils.metrics import retrieval_metrics
from utils.rerank import MSER, Reranker
from utils.results import RANKS, Results, SettingResult, TrialScore
from utils.run.errors import UserError

logger = logging.getLogger(__name__)


class ImageTable(Protocol):
    """What is known of N test images: a data set, or a file of features."""

    @property
    def paths(self) -> np.ndarray: ...  # (N,) relative to the data set's root

    @property
    def identities(self) -> np.ndarray: ...  # (N,) int64

    @property
    def cameras(self) -> np.ndarray: ...  # (N,) int64


@dataclass(frozen=True)
class Search:
    """Queries, and galleries that are taken from one gallery pool."""

    query: np.ndarray  # (Nq,) positions of the query images
    pool: np.ndarray  # (N,) positions of the gallery pool: the union of all images that can be in a gallery
    query_locations: np.ndarray  # (Nq,)
    pool_locations: np.ndarray  # (N,)
    galleries: dict[str, tuple[np.ndarray, ...]]  # setting -> one array of indices into `pool` per trial
    neighbours: str  # MSER: "queries" or "all", see utils.rerank.mser_distance
    reverse: str | None = None  # the setting with queries and gallery pool exchanged, if any
    # Which gallery images from the query's own location are ignored: "camera", all of them; "identity_and_camera", only
    # those of the query's identity.
    exclude: str = "camera"
    infrared_queries: bool = True  # else the queries are visible and the gallery pool is infrared

    def only(self, settings: Collection[str]) -> "Search":
        """The same search with these settings only."""
        galleries = {name: trials for name, trials in self.galleries.items() if name in settings}
        return replace(self, galleries=galleries, reverse=self.reverse if self.reverse in settings else None)

    @property
    def settings(self) -> tuple[str, ...]:
        return (*self.galleries, *([self.reverse] if self.reverse else []))


def only(protocol: Iterable[Search], settings: Collection[str]) -> tuple[Search, ...]:
    """The same protocol with these settings only."""
    searches = (search.only(settings) for search in protocol)
    return tuple(search for search in searches if search.settings)


def score(
    features: Features, protocol: Sequence[Search], *, mser: MSER | None = None, device: torch.device = CPU
) -> Results:
    """Score every setting of the protocol. With ``mser``, also ``<setting>/mser``.

    A setting that several searches have gets the trials of all of them, because trials may differ in their queries.
    Computed on ``device``, or on the CPU if the memory of ``device`` is too small.

    Raises:
        UserError: ``mser`` is given and the features lack a spectrum; a feature is NaN or infinite; a gallery has no
            match for any query.
    """
    spectra = [name for name in SPECTRA if name == "original" or (mser and name in mser.spectra)]
    lacking = [name for name in spectra if name not in features.spectra]
    if lacking:
        verb = "is" if len(lacking) == 1 else "are"
        raise UserError(f"MSER needs the features of every spectrum; {', '.join(lacking)} {verb} missing")
    features.require_finite(spectra)
    require_scorable(protocol, features.identities)
    try:
        return _score(features, protocol, mser, device)
    except torch.OutOfMemoryError:
        logger.warning("%s has too little memory for scoring; scoring on the CPU", device)
    return _score(features, protocol, mser, CPU)


def _score(features: Features, protocol: Sequence[Search], mser: MSER | None, device: torch.device) -> Results:
    kinds: dict[str, Callable[[Search], Distances]] = {"": lambda search: plain_distances(features, search, device)}
    if mser:
        kinds["/mser"] = lambda search: mser_distances(features, search, mser, device)
    trials: dict[str, list[TrialScore]] = {}
    for suffix, distances in kinds.items():
        for search in protocol:
            for name, scores in _settings(search, features.identities, device, distances(search)).items():
                trials.setdefault(name + suffix, []).extend(scores)
    return {name: SettingResult(tuple(scores)) for name, scores in trials.items()}


class Distances(NamedTuple):
    """Distances of one search."""

    to_gallery: Callable[[Tensor], Tensor]  # columns of the gallery pool (Ng,) -> distances of the queries (Nq, Ng)
    reverse: Callable[[], Tensor]  # () -> distances of the gallery pool to the queries (N, Nq)


def plain_distances(features: Features, search: Search, device: torch.device) -> Distances:
    """Negative cosine similarities, computed for the whole gallery pool at once."""
    query, pool = (features.normalised(SPECTRA[:1], side, device)[0] for side in (search.query, search.pool))
    distance = (query @ pool.T).neg_()
    return Distances(lambda columns: distance.index_select(1, columns), lambda: distance.T)


def mser_distances(features: Features, search: Search, mser: MSER, device: torch.device) -> Distances:
    """MSER's distances."""
    infrared, visible = SPECTRA[:1], mser.spectra
    query, pool = (infrared, visible) if search.infrared_queries else (visible, infrared)
    reranker = Reranker(  # no local variables: the normalised features are freed when it is built
        features.normalised(query, search.query, device),
        features.normalised(pool, search.pool, device),
        mser,
        neighbours=search.neighbours,
    )
    return Distances(reranker.distance, reranker.reverse_distance)


def _settings(
    search: Search, identities: np.ndarray, device: torch.device, distances: Distances
) -> dict[str, list[TrialScore]]:
    """The trials of every setting of one search.

    Args:
        identities: the identities of all images.
    """
    query = identities[search.query], search.query_locations
    pool = identities[search.pool], search.pool_locations
    results = {
        name: [
            _trial(
                distances.to_gallery(torch.from_numpy(columns).to(device)),
                *query,
                *(values[columns] for values in pool),
                exclude=search.exclude,
            )
            for columns in trials
        ]
        for name, trials in search.galleries.items()
    }
    if search.reverse:
        results[search.reverse] = [_trial(distances.reverse(), *pool, *query, exclude=search.exclude)]
    return results


def _trial(distance: Tensor, *identities_and_locations: np.ndarray, exclude: str) -> TrialScore:
    """Metrics in percent. Beyond the number of gallery identities, CMC keeps its last value."""
    metrics = retrieval_metrics(distance, *identities_and_locations, exclude=exclude)
    cmc = (metrics.cmc[min(rank, len(metrics.cmc)) - 1] for rank in RANKS)
    return TrialScore(*(100 * float(value) for value in (*cmc, metrics.mAP, metrics.mINP)))


def require_scorable(protocol: Sequence[Search], identities: np.ndarray) -> None:
    """Raise ``UserError`` for the first gallery that is empty or has no match for any query.

    Args:
        identities: (N,) identities of all images that the positions of the searches refer to.
    """
    for name, trials in _scored(protocol, identities).items():
        for number, trial in enumerate(trials, start=1):
            where = f"the test set cannot be scored: setting {name}, trial {number}"
            if not trial.gallery:
                raise UserError(f"{where}: the gallery has no image")
            if not trial.scored:
                raise UserError(f"{where}: no query has a match (same identity, another location)")


def describe_queries(protocol: Sequence[Search], identities: np.ndarray) -> list[str]:
    """How many queries of each setting have a match and so are scored: one line per setting.

    Args:
        identities: as of :func:`require_scorable`.
    """
    lines = []
    for name, trials in _scored(protocol, identities).items():
        scored, queries = ({trial[index] for trial in trials} for index in (0, 1))
        lines.append(f"{name}: {_span(scored)} of {_span(queries)} queries are scored")
    return lines


def _span(numbers: set[int]) -> str:
    """The number, or the smallest and the largest one."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


class _Trial(NamedTuple):
    """Sizes of a trial."""

    scored: int  # queries with a match
    queries: int
    gallery: int


def _scored(protocol: Sequence[Search], identities: np.ndarray) -> dict[str, list[_Trial]]:
    """The sizes of the trials of each setting."""
    result: dict[str, list[_Trial]] = {}
    for search in protocol:
        query, pool = (search.query, search.query_locations), (search.pool, search.pool_locations)
        trials = [
            (name, query, (search.pool[columns], search.pool_locations[columns]))
            for name, galleries in search.galleries.items()
            for columns in galleries
        ]
        if search.reverse:
            trials.append((search.reverse, pool, query))
        for name, queries, gallery in trials:
            pairs = (
                Counter(zip(identities[side].tolist(), locations.tolist(), strict=True))
                for side, locations in (queries, gallery)
            )
            scored = _matched(*pairs)
            result.setdefault(name, []).append(_Trial(scored, len(queries[0]), len(gallery[0])))
    return result


def _matched(queries: Counter[tuple[int, int]], gallery: Counter[tuple[int, int]]) -> int:
    """Number of queries whose identity is in the gallery from another location than theirs.

    Args:
        queries, gallery: (identity, location) -> number of images.
    """
    seen: dict[int, set[int]] = {}
    for identity, location in gallery:
        seen.setdefault(identity, set()).add(location)
    # images of other identities are never matches, so both values of Search.exclude give the same number
    return sum(count for (identity, location), count in queries.items() if seen.get(identity, set()) - {location})
