"""Score features by a test protocol: searches of queries in galleries, plain and with MSER."""

import logging
from collections.abc import Callable, Collection, Sequence
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
    """Queries, and galleries that are taken from one gallery pool.

    Gallery images from the query's own location are ignored.
    """

    query: np.ndarray  # (Nq,) positions of the query images, which are infrared
    pool: np.ndarray  # (N,) positions of the gallery pool: the union of all images that can be in a gallery
    query_locations: np.ndarray  # (Nq,)
    pool_locations: np.ndarray  # (N,)
    galleries: dict[str, tuple[np.ndarray, ...]]  # setting -> one array of indices into `pool` per trial
    neighbours: str  # MSER: "queries" or "all", see utils.rerank.mser_distance
    reverse: str | None = None  # the setting with queries and gallery pool exchanged, if any

    def only(self, settings: Collection[str]) -> "Search":
        """The same search with these settings only."""
        galleries = {name: trials for name, trials in self.galleries.items() if name in settings}
        return replace(self, galleries=galleries, reverse=self.reverse if self.reverse in settings else None)


def score(
    features: Features, protocol: Sequence[Search], *, mser: MSER | None = None, device: torch.device = CPU
) -> Results:
    """Score every setting of the protocol. With ``mser``, also ``<setting>/mser``.

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
    results: dict[str, SettingResult] = {}
    for search in protocol:
        results |= _settings(search, features.identities, device, plain_distances(features, search, device))
    if mser:
        for search in protocol:
            reranked = _settings(search, features.identities, device, mser_distances(features, search, mser, device))
            results |= {f"{name}/mser": result for name, result in reranked.items()}
    return results


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
    reranker = Reranker(  # no local variables: the normalised features are freed when it is built
        features.normalised(SPECTRA[:1], search.query, device),
        features.normalised(mser.spectra, search.pool, device),
        mser,
        neighbours=search.neighbours,
    )
    return Distances(reranker.distance, reranker.reverse_distance)


def _settings(
    search: Search, identities: np.ndarray, device: torch.device, distances: Distances
) -> dict[str, SettingResult]:
    """Every setting of one search.

    Args:
        identities: the identities of all images.
    """
    query = identities[search.query], search.query_locations
    pool = identities[search.pool], search.pool_locations
    results = {
        name: SettingResult(
            tuple(
                _trial(
                    distances.to_gallery(torch.from_numpy(columns).to(device)),
                    *query,
                    *(values[columns] for values in pool),
                )
                for columns in trials
            )
        )
        for name, trials in search.galleries.items()
    }
    if search.reverse:
        results[search.reverse] = SettingResult((_trial(distances.reverse(), *pool, *query),))
    return results


def _trial(distance: Tensor, *identities_and_locations: np.ndarray) -> TrialScore:
    """Metrics in percent. Beyond the number of gallery identities, CMC keeps its last value."""
    try:
        metrics = retrieval_metrics(distance, *identities_and_locations)
    except ValueError as error:
        raise UserError(f"the test set cannot be scored: {error}") from None
    cmc = (metrics.cmc[min(rank, len(metrics.cmc)) - 1] for rank in RANKS)
    return TrialScore(*(100 * float(value) for value in (*cmc, metrics.mAP, metrics.mINP)))


def require_scorable(protocol: Sequence[Search], identities: np.ndarray) -> None:
    """Raise ``UserError`` for the first gallery that is empty or has no match for any query.

    Args:
        identities: (N,) identities of all images that the positions of the searches refer to.
    """
    for search in protocol:
        queries = _locations_by_identity(identities[search.query], search.query_locations)
        for name, trials in search.galleries.items():
            for number, columns in enumerate(trials, start=1):
                where = f"the test set cannot be scored: setting {name}, trial {number}"
                if not len(columns):
                    raise UserError(f"{where}: the gallery has no image")
                gallery = _locations_by_identity(identities[search.pool[columns]], search.pool_locations[columns])
                if not _any_match(queries, gallery):
                    raise UserError(f"{where}: no query has a match (same identity, another location)")


def _any_match(queries: dict[int, set[int]], gallery: dict[int, set[int]]) -> bool:
    """Whether a gallery image shows the identity of a query from another location than the query's.

    Args:
        queries, gallery: identity -> locations.
    """
    for identity, query_locations in queries.items():
        gallery_locations = gallery.get(identity, set())
        if any(gallery_locations - {location} for location in query_locations):
            return True
    return False


def _locations_by_identity(identities: np.ndarray, locations: np.ndarray) -> dict[int, set[int]]:
    seen: dict[int, set[int]] = {}
    for identity, location in zip(identities.tolist(), locations.tolist(), strict=True):
        seen.setdefault(identity, set()).add(location)
    return seen
