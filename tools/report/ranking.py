"""Numbers behind the figures: rankings per query, examples, pair distances, embeddings, breakdowns."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from sklearn.manifold import TSNE
from torch import Tensor

from utils.features import Features
from utils.metrics import MatchRanks, average_precision, cmc, exclusion_keys, match_ranks
from utils.protocols import Distances, Search
from utils.tensors import blocks

TOP = 20  # ranks of a CMC curve
BINS = 100  # of a histogram of cosine distances, which lie between 0 and 2
EXAMPLES = 3  # queries per kind of example
LISTED = 10  # results per query
SHOWN_IDENTITIES = 7  # of the t-SNE: as many as there are colours
SHOWN_IMAGES = 30  # of the t-SNE, per identity and modality


@dataclass(frozen=True)
class Ranking:
    """The ranking of the queries of one setting, over all of its trials."""

    setting: str
    search: Search
    columns: np.ndarray  # (Ng,) indices into the gallery pool, of the first trial
    distance: np.ndarray  # (Nq, Ng) of the first trial
    keys: tuple[np.ndarray, np.ndarray]  # (Nq,) and (Ng,) of the first trial, see utils.metrics.exclusion_keys
    trials: tuple[MatchRanks, ...]
    nearest: tuple[np.ndarray, ...]  # per trial: (Nq,) identity of the image that is ranked first

    @property
    def cmc(self) -> np.ndarray:
        """Mean over the trials: (TOP,) fractions."""
        curves = []
        for ranks in self.trials:
            matched = ranks.identity[ranks.identity > 0]
            curve = cmc(matched, max(TOP, int(matched.max())))
            curves.append(curve[:TOP])
        return np.mean(curves, axis=0)

    @property
    def precisions(self) -> list[np.ndarray]:
        """Per trial: average precision of each query, (Nq,), NaN without a match."""
        return list(map(_precision, self.trials))

    @property
    def precision(self) -> np.ndarray:
        """Those of the first trial."""
        return _precision(self.trials[0])

    @property
    def first(self) -> np.ndarray:
        """Rank of the query's identity in the first trial: (Nq,), 0 without a match."""
        return self.trials[0].identity

    def joined(self, other: "Ranking") -> "Ranking":
        """This ranking with the trials of another one, whose queries may differ."""
        return replace(self, trials=self.trials + other.trials, nearest=self.nearest + other.nearest)

    def results(self, query: int) -> np.ndarray:
        """Positions in the features of the ranked images of a query, the nearest first, in the first trial."""
        query_keys, gallery_keys = self.keys
        order = np.argsort(self.distance[query], kind="stable")
        kept = order[gallery_keys[order] != query_keys[query]]
        return self.search.pool[self.columns[kept]]


def rank(features: Features, search: Search, setting: str, distances: Distances, device: torch.device) -> Ranking:
    """Rank the galleries of all trials of a setting of the search."""
    if setting == search.reverse:
        distance = distances.reverse()
        search = reversed_search(search)
        of_columns: Callable[[Tensor], Tensor] = lambda columns: distance  # noqa: E731 - all queries are the gallery
    else:
        of_columns = distances.to_gallery
    identities = features.identities
    trials, nearest, first, keys = [], [], None, None
    for columns in search.galleries[setting]:
        distance = of_columns(torch.from_numpy(columns).to(device))
        pool = search.pool[columns]
        labels = identities[search.query], search.query_locations, identities[pool], search.pool_locations[columns]
        trials.append(match_ranks(distance, *labels, exclude=search.exclude))
        trial_keys = exclusion_keys(*labels, search.exclude)
        values = distance.cpu().numpy()
        nearest.append(identities[pool[nearest_columns(values, *trial_keys)]])
        if first is None:
            first, keys = values.copy(), trial_keys
    assert first is not None and keys is not None
    return Ranking(setting, search, search.galleries[setting][0], first, keys, tuple(trials), tuple(nearest))


def nearest_columns(distance: np.ndarray, query_keys: np.ndarray, gallery_keys: np.ndarray) -> np.ndarray:
    """The column of the nearest image that is not ignored: (Nq, Ng) -> (Nq,)."""
    return np.where(query_keys[:, None] == gallery_keys, np.inf, distance).argmin(axis=1)


def reversed_search(search: Search) -> Search:
    """The search of its setting ``reverse``: queries and gallery pool are exchanged."""
    assert search.reverse
    return replace(
        search,
        query=search.pool,
        pool=search.query,
        query_locations=search.pool_locations,
        pool_locations=search.query_locations,
        galleries={search.reverse: (np.arange(len(search.query)),)},
        reverse=None,
        infrared_queries=not search.infrared_queries,
    )


class Examples(NamedTuple):
    """Queries to look at, as rows of the ranking."""

    title: str
    meaning: str
    queries: list[int]


def examples(features: Features, plain: Ranking, mser: Ranking | None) -> list[Examples]:
    """The best, the median and the worst queries, and those that MSER mended or broke; each of another identity."""
    precision, identities = plain.precision, features.identities[plain.search.query]
    matched = np.flatnonzero(plain.first > 0)
    by_precision = matched[np.argsort(precision[matched], kind="stable")]
    median = np.median(precision[matched])
    by_median = matched[np.argsort(np.abs(precision[matched] - median), kind="stable")]
    found = [
        Examples("Best queries", "the highest average precision", _distinct(by_precision[::-1], identities)),
        Examples("Median queries", "average precision next to the median", _distinct(by_median, identities)),
        Examples("Worst queries", "the lowest average precision", _distinct(by_precision, identities)),
    ]
    if mser:
        gain = np.nan_to_num(mser.precision - precision)
        mended = np.flatnonzero((plain.first > 1) & (mser.first == 1))
        broken = np.flatnonzero((plain.first == 1) & (mser.first > 1))
        mended, broken = mended[np.argsort(-gain[mended])], broken[np.argsort(gain[broken])]
        counts = f"{len(mended)} of {len(matched)} queries", f"{len(broken)} of {len(matched)} queries"
        found += [
            Examples("Mended by MSER", f"rank-1 wrong before, right after: {counts[0]}", _distinct(mended, identities)),
            Examples("Broken by MSER", f"rank-1 right before, wrong after: {counts[1]}", _distinct(broken, identities)),
        ]
    return [kind for kind in found if kind.queries]


def _distinct(order: np.ndarray, identities: np.ndarray) -> list[int]:
    """The first queries of ``order`` whose identities differ."""
    chosen: dict[int, int] = {}
    for query in order.tolist():
        chosen.setdefault(int(identities[query]), query)
        if len(chosen) == EXAMPLES:
            break
    return list(chosen.values())


def _precision(ranks: MatchRanks) -> np.ndarray:
    result = np.full(len(ranks.identity), np.nan)
    matched = ranks.identity > 0
    result[matched] = average_precision(ranks.images[matched])
    return result


class Histogram(NamedTuple):
    """Cosine distances of pairs of images, as shares of the pairs per bin."""

    name: str  # of the pair of modalities
    pairs: tuple[int, int]  # numbers of matching and of other pairs
    same_location: bool  # whether pairs of one location count, too
    edges: np.ndarray  # (BINS + 1,)
    matching: np.ndarray  # (BINS,) pairs of the same identity, sum 1
    others: np.ndarray  # (BINS,) pairs of different identities, sum 1

    @property
    def overlap(self) -> float:
        """The area that the two histograms share, 0 to 1."""
        return float(np.minimum(self.matching, self.others).sum())


def histograms(features: Features, infrared: np.ndarray, locations: np.ndarray) -> list[Histogram]:
    """Per pair of modalities: the distances of all pairs of two images from different locations.

    If all images of a modality are from one location, as on RegDB, all pairs count.

    Args:
        infrared: (N,) bool.
        locations: (N,)
    """
    sides = {"infrared": np.flatnonzero(infrared), "visible": np.flatnonzero(~infrared)}
    pairs = [("infrared", "visible"), ("infrared", "infrared"), ("visible", "visible")]
    found = []
    for a, b in pairs:
        name, rows, columns = f"{a} – {b}", sides[a], sides[b]
        several = len(np.unique(locations[np.concatenate([rows, columns])])) > 1
        found.append(_histogram(features, name, rows, columns, locations if several else None))
    return [histogram for histogram in found if histogram]


def _histogram(
    features: Features, name: str, rows: np.ndarray, columns: np.ndarray, locations: np.ndarray | None
) -> Histogram | None:
    """None if there is no matching pair or no other pair.

    Args:
        locations: pairs of the same location are left out; None: only pairs of an image with itself are.
    """
    own = np.arange(len(features.paths)) if locations is None else locations
    a, b = (features.normalised(["original"], side)[0] for side in (rows, columns))
    identities = torch.from_numpy(features.identities)
    counts = torch.zeros(2, BINS, dtype=torch.int64)
    for block in blocks(len(rows), len(columns), a.device):
        bins = ((1 - a[block] @ b.T) * (BINS / 2)).clamp_(0, BINS - 1).to(torch.int64)
        same = identities[rows[block], None] == identities[columns]
        counted = torch.from_numpy(own[rows[block], None] != own[columns])
        for row, chosen in enumerate((same & counted, ~same & counted)):
            counts[row] += bins[chosen].bincount(minlength=BINS)
    if not counts.any(dim=1).all():
        return None
    matching, others = (counts / counts.sum(dim=1, keepdim=True)).numpy()
    pairs = int(counts[0].sum()), int(counts[1].sum())
    return Histogram(name, pairs, locations is None, np.linspace(0, 2, BINS + 1), matching, others)


class Centres(NamedTuple):
    """Mean cosine distances between centres: means of the normalised embeddings of an identity in one modality."""

    modalities: float  # between the two centres of an identity
    identities: float  # between the centres of different identities, within a modality


def centres(features: Features, infrared: np.ndarray) -> Centres:
    embeddings = features.normalised(["original"], np.arange(len(infrared)))[0].numpy()
    both = np.intersect1d(features.identities[infrared], features.identities[~infrared])
    means = np.stack([
        [embeddings[(features.identities == identity) & side].mean(axis=0) for identity in both]
        for side in (infrared, ~infrared)
    ])  # fmt: skip
    means /= np.linalg.norm(means, axis=2, keepdims=True).clip(min=1e-12)
    products = means @ means.transpose(0, 2, 1)
    between = products[:, ~np.eye(len(both), dtype=bool)]
    return Centres(
        modalities=float(1 - (means[0] * means[1]).sum(axis=1).mean()),
        identities=float(1 - between.mean()) if between.size else float("nan"),
    )


class Embedding(NamedTuple):
    """Positions of images on a plane, of some identities."""

    points: np.ndarray  # (n, 2)
    identities: np.ndarray  # (n,)
    infrared: np.ndarray  # (n,) bool


def embedding(features: Features, infrared: np.ndarray) -> Embedding | None:
    """t-SNE of the images of some identities that have images of both modalities; None if there are too few images."""
    both = np.intersect1d(features.identities[infrared], features.identities[~infrared])
    random = np.random.default_rng(0)
    shown = random.choice(both, min(SHOWN_IDENTITIES, len(both)), replace=False)
    chosen = np.concatenate([
        random.permutation(np.flatnonzero((features.identities == identity) & side))[:SHOWN_IMAGES]
        for identity in sorted(shown.tolist()) for side in (infrared, ~infrared)
    ])  # fmt: skip
    if len(chosen) < 5:
        return None
    rows = features.normalised(["original"], chosen)[0].numpy()
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    points = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0).fit_transform(rows)
    return Embedding(points, features.identities[chosen], infrared[chosen])


class Group(NamedTuple):
    """Metrics of a group of queries, in percent, over all trials."""

    name: int  # camera or identity
    queries: int
    rank1: float
    mAP: float
    confused: str = ""  # the identities that were most often ranked first by mistake


def by_camera(features: Features, ranking: Ranking) -> list[Group]:
    return list(_groups(ranking, features.cameras[ranking.search.query]))


def by_identity(features: Features, ranking: Ranking) -> list[Group]:
    """The identities from the lowest to the highest mAP."""
    identities = features.identities[ranking.search.query]
    groups = []
    for group in _groups(ranking, identities):
        wrong = [
            identity
            for trial, nearest in zip(ranking.trials, ranking.nearest, strict=True)
            for identity in nearest[(identities == group.name) & (trial.identity > 1)].tolist()
        ]
        confused = ", ".join(f"{identity} ({count}×)" for identity, count in Counter(wrong).most_common(3))
        groups.append(group._replace(confused=confused))
    return sorted(groups, key=lambda group: group.mAP)


def _groups(ranking: Ranking, labels: np.ndarray) -> Iterator[Group]:
    hits = _mean_over_trials([np.where(trial.identity > 0, trial.identity == 1, np.nan) for trial in ranking.trials])
    precision = _mean_over_trials([_precision(trial) for trial in ranking.trials])
    for label in np.unique(labels).tolist():
        chosen = (labels == label) & ~np.isnan(precision)
        if chosen.any():
            yield Group(
                label, int(chosen.sum()), 100 * float(hits[chosen].mean()), 100 * float(precision[chosen].mean())
            )


def _mean_over_trials(trials: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over the trials in which a query has a match, NaN if there is none: (Nq,)."""
    values = np.stack(trials)
    counts = (~np.isnan(values)).sum(axis=0)
    return np.where(counts > 0, np.nansum(values, axis=0) / counts.clip(min=1), np.nan)
