"""Multi-Spectral Enhanced Ranking (MSER): k-reciprocal re-ranking over all spectra of the visible images (MCJA).

The spectra of an image are ranked as if each were an image of its own; in the end their distances are averaged. Nothing
is approximated; everything is in float32, where the released code keeps weights in half precision.

Nothing here holds the distances of all rows from all others: they are made a block of rows at a time, and of each block
only the nearest candidates, the row maxima and the distances between queries and gallery are kept. All of it is done
where the features are, on the CPU or a GPU.
"""

from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from utils.kernels import kernels_for
from utils.tensors import as_tensor, blocks

NEIGHBOURS = ("queries", "all")
TINY = 1e-12  # instead of a largest distance of 0, where all features are equal
SAME = 1e-4  # spectra that differ less in every normalised feature are those of infrared images

Values = TypeVar("Values", np.ndarray, Tensor)


class MSER(NamedTuple):
    """Hyper-parameters: size of the k-reciprocal neighbourhood; neighbours whose weights are averaged (1 averages
    nothing); weight of the original distance in the final one, 0 to 1."""

    k1: int
    k2: int
    lam: float


def mser_distance(query: Values, gallery: Values, *, k1: int, k2: int, lam: float, neighbours: str) -> Values:
    """Re-ranked distances, the mean over spectra.

    Args:
        query: (Sq, Nq, D) normalised features per spectrum; the infrared side has one spectrum, or equal ones.
        gallery: (Sg, Ng, D), likewise.
        k1, k2, lam: see :class:`MSER`.
        neighbours: ``queries`` (SYSU-MM01: only queries may be neighbours) or ``all`` (RegDB).

    Returns:
        (Nq, Ng) float32; an array for arrays, a tensor of the same device for tensors.

    Raises:
        ValueError: both sides have several different spectra, or an unknown ``neighbours``.
    """
    sides = as_tensor(query).float(), as_tensor(gallery).float()
    if neighbours == "queries":
        distance = QueryReranker(*sides, MSER(k1, k2, lam)).distance()
    elif neighbours == "all":
        distance = rerank_all(*sides, MSER(k1, k2, lam))[0]
    else:
        raise ValueError(f"unknown neighbours {neighbours!r}; choose from {', '.join(NEIGHBOURS)}")
    return distance if isinstance(query, Tensor) else distance.numpy()


class QueryReranker:
    """Re-ranks with queries as the only neighbours, for many galleries out of one pool.

    Rank lists and reciprocal sets then do not depend on the gallery, only the row maxima do; so all but the weights is
    computed once.

    Args:
        query: (Sq, Nq, D) float32; see :func:`mser_distance`.
        pool: (Sg, N, D), likewise, all images that a gallery may hold.
    """

    def __init__(self, query: Tensor, pool: Tensor, mser: MSER):
        query, pool = _one_side_infrared(query, pool)
        self.mser, self.kernels = mser, kernels_for(query.device)
        self.query_spectra, spectra = len(query), len(pool)
        queries = query.flatten(0, 1)
        count, images = len(queries), pool.shape[1]
        positions = {"dtype": torch.int64, "device": queries.device}

        self.largest = queries.new_empty(count)  # of the distances to other queries
        nearest = torch.empty((count, min(max(mser.k1 + 1, mser.k2), count)), **positions)
        near_distance = queries.new_empty(nearest.shape)
        for rows in blocks(count, count):
            distance = squared_distances(queries[rows], queries)
            self.largest[rows] = distance.amax(dim=1)
            nearest[rows] = self.kernels.smallest(distance, nearest.shape[1])
            near_distance[rows] = distance.gather(1, nearest[rows])
        self.near = nearest[:, : mser.k1 + 1].contiguous()
        self.reciprocal = reciprocal_distances(self.near, near_distance[:, : mser.k1 + 1])
        self.query_members = _members(nearest, mser)

        # of the spectra's distances between each query and image
        self.pool_largest = queries.new_empty((count, images))
        self.pool_mean = queries.new_empty((count, images))
        # gallery images have no weights of their own: without averaging they have none
        members = 0 if mser.k2 == 1 else min(mser.k2, count)
        self.pool_members = torch.empty((images, spectra, members), **positions)
        for rows in blocks(images, spectra * count):
            distance = squared_distances(pool[:, rows].transpose(0, 1).flatten(0, 1), queries)
            self.pool_members[rows] = self.kernels.smallest(distance, members).unflatten(0, (-1, spectra))
            distance = distance.unflatten(0, (-1, spectra))
            self.pool_largest[:, rows] = distance.amax(dim=1).T
            self.pool_mean[:, rows] = distance.mean(dim=1).T

    def distance(self, columns: Tensor | None = None) -> Tensor:
        """Re-ranked distances to the images of the pool at ``columns``, or to all: (Nq, columns) float32."""
        columns = torch.arange(len(self.pool_members), device=self.near.device) if columns is None else columns
        largest = torch.maximum(self.largest, self.kernels.row_maxima(self.pool_largest, columns)).clamp(min=TINY)
        distance = self.kernels.jaccard_blend(
            self.near,
            reciprocal_weights(self.reciprocal, largest),
            self.query_members,
            self.pool_members[columns],
            self.pool_mean,
            columns,
            torch.stack([torch.full_like(largest, 1 - self.mser.lam), self.mser.lam / largest], dim=1),
        )
        return _mean(distance.unflatten(0, (self.query_spectra, -1)))


def rerank_all(query: Tensor, gallery: Tensor, mser: MSER) -> tuple[Tensor, Tensor]:
    """Re-ranks with all rows as neighbours, in both directions at once: they share all but the original distance.

    Args:
        query, gallery: (Sq, Nq, D) and (Sg, Ng, D) float32; see :func:`mser_distance`.

    Returns:
        Distances of queries to the gallery (Nq, Ng), and of gallery images, as queries, to them (Ng, Nq).
    """
    query, gallery = _one_side_infrared(query, gallery)
    kernels = kernels_for(query.device)
    features = torch.cat([query.flatten(0, 1), gallery.flatten(0, 1)])
    count, total = query.shape[0] * query.shape[1], len(features)

    nearest = torch.empty((total, min(max(mser.k1 + 1, mser.k2), total)), dtype=torch.int64, device=features.device)
    near_distance = features.new_empty(nearest.shape)
    largest = features.new_empty(total)
    forward = features.new_empty((count, total - count))  # relative distances
    backward = features.new_empty((total - count, count))
    for rows in blocks(total, total):
        distance = squared_distances(features[rows], features)
        largest[rows] = distance.amax(dim=1).clamp(min=TINY)
        nearest[rows] = kernels.smallest(distance, nearest.shape[1])
        near_distance[rows] = distance.gather(1, nearest[rows])
        distance /= largest[rows, None]
        queries = max(0, min(rows.stop, count) - rows.start)  # rows of this block that are queries
        forward[rows.start : rows.start + queries] = distance[:queries, count:]
        backward[max(0, rows.start - count) : max(0, rows.stop - count)] = distance[queries:, :count]

    near = nearest[:, : mser.k1 + 1].contiguous()
    weights = reciprocal_weights(reciprocal_distances(near, near_distance[:, : mser.k1 + 1]), largest)
    members = _members(nearest, mser)
    spectra, images = gallery.shape[:2]
    jaccard = kernels.jaccard_blend(
        near,
        weights,
        members[:count],
        members[count:].unflatten(0, (spectra, images)).transpose(0, 1).contiguous(),
        features.new_zeros((count, images)),
        torch.arange(images, device=features.device),
        torch.stack([features.new_ones(count), features.new_zeros(count)], dim=1),
    )
    jaccard = _mean(jaccard.unflatten(0, (len(query), -1)))
    forward = forward.unflatten(1, (spectra, images)).unflatten(0, (len(query), -1)).mean(dim=(0, 2))
    backward = backward.unflatten(1, (len(query), -1)).unflatten(0, (spectra, images)).mean(dim=(0, 2))
    return (1 - mser.lam) * jaccard + mser.lam * forward, (1 - mser.lam) * jaccard.T + mser.lam * backward


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances of normalised rows: (n, D), (m, D) -> (n, m), not below 0."""
    return (a @ b.T).mul_(-2).add_(2).clamp_(min=0)


def reciprocal_distances(near: Tensor, distance: Tensor) -> Tensor:
    """Distances of near rows that have each other among their near ones; infinite those of others.

    Args:
        near: (rows, k) positions of the near rows.
        distance: (rows, k) of them.
    """
    result = torch.full_like(distance, torch.inf)
    row = torch.arange(len(near), device=near.device)
    for rows in blocks(len(near), 2 * near.shape[1] ** 2):  # positions are twice as wide as float32
        mutual = (near[near[rows]] == row[rows, None, None]).any(dim=2)
        result[rows] = distance[rows].where(mutual, torch.inf)
    return result


def reciprocal_weights(reciprocal: Tensor, largest: Tensor) -> Tensor:
    """exp(-distance / row maximum), with sum 1 over each row's reciprocal set, which may be empty: -> (rows, k)."""
    weight = torch.exp(-reciprocal / largest[:, None])
    return weight / weight.sum(dim=1, keepdim=True).clamp(min=TINY)


def _members(nearest: Tensor, mser: MSER) -> Tensor:
    """The rows whose weights are averaged for each candidate: its nearest, or without averaging itself alone."""
    if mser.k2 == 1:
        return torch.arange(len(nearest), device=nearest.device)[:, None]
    return nearest[:, : mser.k2].contiguous()


def _one_side_infrared(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides, the infrared one with a single spectrum; only where both have several do their values tell which."""
    for features in (query, gallery):
        if features.ndim != 3 or 0 in features.shape:
            raise ValueError(f"features should be (spectra, images, dimensions), not {tuple(features.shape)}")
    if len(query) == 1 or len(gallery) == 1:
        return query, gallery
    if _all_the_same(query):
        return query[:1], gallery
    if _all_the_same(gallery):
        return query, gallery[:1]
    raise ValueError("query and gallery both have several spectra; one side has to be infrared, with a single one")


def _all_the_same(features: Tensor) -> bool:
    """Whether all spectra are equal but for rounding, as those of infrared images: (S, N, D)."""
    return all(
        torch.allclose(spectrum[rows], features[0, rows], rtol=0, atol=SAME)
        for rows in (slice(1), slice(None))  # the first image usually tells, without looking at the others
        for spectrum in features[1:]
    )


def _mean(values: Tensor) -> Tensor:
    """(S, n, m) -> (n, m), without a copy where there is one spectrum."""
    return values[0] if len(values) == 1 else values.mean(dim=0)


class Reranker:
    """temporary"""

    def __init__(self, query, pool, mser, *, neighbours):
        if neighbours == "queries":
            self.distance = QueryReranker(query, pool, mser).distance
            self.reverse_distance = None
        else:
            forward, backward = rerank_all(query, pool, mser)
            self.distance = lambda columns: forward.index_select(1, columns)
            self.reverse_distance = lambda: backward
