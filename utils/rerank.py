"""Multi-Spectral Enhanced Ranking (MSER, MCJA): k-reciprocal re-ranking over all spectra of the visible images.

Each spectrum of an image is a row of X = [all spectra of the queries; all spectra of the gallery]. A candidate is a row
that can be a neighbour of other rows: with the neighbours "queries" the query rows are candidates, with "all" all rows
are. The steps:

1. Distances: d_ij = squared Euclidean distance of the normalised rows i and j. Normalised by the row maximum:
   d_ij / max_i, where max_i is the largest distance of row i to any candidate and, for a query row, to any gallery row.
2. Rank lists: the nearest candidates of each row.
3. k-reciprocal sets: R(i) = {j in the top k1 + 1 of i : i in the top k1 + 1 of j}, for candidates i and j.
4. Weights: V_ij = exp(-d_ij / max_i) over R(i), with a sum of 1. Rows that are not candidates have zero weights.
5. Query expansion: V_i becomes the mean of V over the first k2 candidates in the rank list of row i, unless k2 is 1.
6. Jaccard distance from V; final = (1 - lam) * Jaccard + lam * d_ij / max_i.
7. Mean over the spectra.

Distances are computed for a block of rows at a time. Everything is float32; the released code keeps weights and Jaccard
distances in half precision.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from utils.features import SPECTRA
from utils.kernels import kernels_for
from utils.tensors import as_tensor, blocks

NEIGHBOURS = ("queries", "all")
TINY = 1e-12  # smallest divisor: if all features are equal, all distances are 0
SAME = 1e-4  # tolerance below which spectra count as equal (infrared)

Values = TypeVar("Values", np.ndarray, Tensor)


class MSER(NamedTuple):
    """Hyper-parameters of MSER."""

    k1: int  # size of the k-reciprocal neighbourhood
    k2: int  # number of neighbours whose weights are averaged; 1: no query expansion
    lam: float  # weight of the original distance in the final one, 0 to 1
    spectra: tuple[str, ...] = SPECTRA  # of the visible images; ("original",) is k-reciprocal re-ranking alone


class RankLists(NamedTuple):
    """The nearest candidates of rows, in ascending order."""

    positions: Tensor  # (rows, count) int64, positions of the candidates
    distances: Tensor  # (rows, count) distances to them
    largest: Tensor  # (rows,) largest distance to any candidate


class PoolDistances(NamedTuple):
    """Distances between the N images of the gallery pool and the query rows, reduced over spectra."""

    mean: Tensor  # (N, query rows) mean over the spectra of the pool
    largest: Tensor  # (N, query rows) largest over the spectra of the pool
    # (N, Nq) mean of d_ij / max_i over all spectra, with i in the pool; None unless the neighbours are "all"
    reverse: Tensor | None


def mser_distance(query: Values, gallery: Values, *, k1: int, k2: int, lam: float, neighbours: str) -> Values:
    """Re-ranked distances between queries and gallery.

    Args:
        query: (Sq, Nq, D) normalised features of each spectrum.
        gallery: (Sg, Ng, D). One of Sq and Sg is 1, or that side's spectra are all equal: it is the infrared one.
        k1, k2, lam: see :class:`MSER`.
        neighbours: which rows are candidates, ``queries`` (SYSU-MM01, LLCM) or ``all`` (RegDB).

    Returns:
        (Nq, Ng) float32; an array for arrays, a tensor on the same device for tensors.

    Raises:
        ValueError: both sides have several different spectra, one is empty, or ``neighbours`` is unknown.
    """
    sides = as_tensor(query).float(), as_tensor(gallery).float()
    distance = Reranker(*sides, MSER(k1, k2, lam), neighbours=neighbours).distance()
    return distance if isinstance(query, Tensor) else distance.numpy()


class Reranker:
    """Re-rank many galleries from one gallery pool.

    Steps 1 to 3 are computed once, for the whole pool. Only the row maxima of the queries depend on the gallery; with
    the neighbours "all" they do not, because the whole pool takes part.

    Args:
        query: (Sq, Nq, D) float32, see :func:`mser_distance`.
        pool: (Sg, N, D) float32, all images that can be in a gallery.
    """

    def __init__(self, query: Tensor, pool: Tensor, mser: MSER, *, neighbours: str):
        if neighbours not in NEIGHBOURS:
            raise ValueError(f"unknown neighbours {neighbours!r}; choose from {', '.join(NEIGHBOURS)}")
        query, pool = _single_infrared_spectrum(query, pool)
        self.mser, self.kernels = mser, kernels_for(query.device)
        self.query_spectra, self.query_rows = len(query), query.shape[0] * query.shape[1]
        self.all_are_candidates = neighbours == "all"
        candidates = query.flatten(0, 1)
        if self.all_are_candidates:
            candidates = torch.cat([candidates, pool.flatten(0, 1)])

        query_lists = self._rank_queries(query, candidates)
        pool_lists, self.pool_distances = self._rank_pool(pool, candidates, queries=query.shape[1])
        self.row_maxima, self.neighbours, self.reciprocal_distances = self._reciprocal(query_lists, pool_lists)
        self.query_members, self.pool_members = self._members(query_lists, pool_lists, pool.shape[:2])

    def distance(self, columns: Tensor | None = None) -> Tensor:
        """Distances of the queries to the images of the pool at ``columns``, or to all: (Nq, columns) float32."""
        gallery: slice | Tensor = slice(None) if columns is None else columns
        query_maxima, pool_maxima = self.row_maxima.tensor_split([self.query_rows])
        query_maxima = torch.maximum(query_maxima, self.pool_distances.largest[gallery].amax(dim=0))
        row_maxima = torch.cat([query_maxima, pool_maxima]).clamp(min=TINY)
        weight = self.mser.lam / row_maxima[: self.query_rows, None]
        jaccard = self._jaccard(row_maxima, gallery)
        final = jaccard.mul_(1 - self.mser.lam).addcmul_(self.pool_distances.mean[gallery].T, weight)
        return _mean_over_spectra(final, self.query_spectra)

    def reverse_distance(self) -> Tensor:
        """Distances of all images of the pool, as queries, to the queries, as their gallery: (N, Nq) float32.

        Raises:
            ValueError: the neighbours are not "all": with the pool as queries, the candidates would be others.
        """
        original = self.pool_distances.reverse
        if original is None:
            raise ValueError("the reverse distance is only defined for neighbours 'all'")
        jaccard = _mean_over_spectra(self._jaccard(self.row_maxima.clamp(min=TINY), slice(None)), self.query_spectra)
        return torch.lerp(jaccard.T, original, self.mser.lam)

    def _rank_queries(self, query: Tensor, candidates: Tensor) -> RankLists:
        """Steps 1 and 2 for the query rows."""
        count = self._list_length(len(candidates))
        return _joined([self._nearest(distance, count) for _, distance in distance_blocks(query, candidates)])

    def _rank_pool(self, pool: Tensor, candidates: Tensor, *, queries: int) -> tuple[RankLists, PoolDistances]:
        """Steps 1 and 2 for the rows of the pool, and their distances to the query rows."""
        # rows that are not candidates only need a rank list for step 5
        count = self._list_length(len(candidates)) if self.all_are_candidates else min(self.mser.k2, len(candidates))
        images = pool.shape[1]
        mean, largest = (pool.new_empty((images, self.query_rows)) for _ in range(2))
        reverse = pool.new_empty((images, queries)) if self.all_are_candidates else None
        parts = []
        for block, distance in distance_blocks(pool, candidates):
            lists = self._nearest(distance, count)
            parts.append(lists)
            query_distance = distance[..., : self.query_rows]
            mean[block], largest[block] = query_distance.mean(dim=0), query_distance.amax(dim=0)
            if reverse is not None:
                relative = query_distance / lists.largest[..., None].clamp(min=TINY)
                reverse[block] = relative.mean(dim=0).unflatten(1, (self.query_spectra, queries)).mean(dim=1)
        return _joined(parts), PoolDistances(mean, largest, reverse)

    def _list_length(self, candidates: int) -> int:
        """Length of a candidate's rank list: enough for steps 3 and 5."""
        return min(max(self.mser.k1 + 1, self.mser.k2), candidates)

    def _nearest(self, distance: Tensor, count: int) -> RankLists:
        """Rank lists of a block of images: (spectra, images, candidates) -> (spectra, images, count)."""
        positions = self.kernels.smallest(distance.flatten(0, 1), count).unflatten(0, distance.shape[:2])
        return RankLists(positions, distance.gather(2, positions), distance.amax(dim=2))

    def _reciprocal(self, query: RankLists, pool: RankLists) -> tuple[Tensor, Tensor, Tensor]:
        """Step 3: the neighbours of each candidate, and its distances to those in its k-reciprocal set.

        Returns:
            (candidates,) largest distance to any candidate; (candidates, k1 + 1) positions of the neighbours;
            (candidates, k1 + 1) distances to them, infinite outside the k-reciprocal set.
        """
        candidate_lists = (query, pool) if self.all_are_candidates else (query,)
        positions, distances, row_maxima = (torch.cat(parts) for parts in zip(*candidate_lists, strict=True))
        neighbours = positions[:, : self.mser.k1 + 1].contiguous()
        return row_maxima, neighbours, distances[:, : self.mser.k1 + 1].masked_fill(~mutual(neighbours), torch.inf)

    def _members(self, query: RankLists, pool: RankLists, pool_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Step 5: positions of the candidates whose weights are averaged for each row.

        Returns:
            (query rows, k2) and (N, Sg, k2) for the images of the pool.
        """
        k2 = self.mser.k2
        if k2 > 1:
            query_members, pool_members = query.positions[:, :k2], pool.positions[:, :k2]
        else:  # each row keeps its own weights; rows of the pool that are not candidates have none, and so no members
            rows = torch.arange(len(query.largest) + len(pool.largest), device=query.largest.device)[:, None]
            query_members, pool_members = rows.tensor_split([len(query.largest)])
            if not self.all_are_candidates:
                pool_members = pool_members[:, :0]
        return query_members, pool_members.unflatten(0, pool_shape).transpose(0, 1).contiguous()

    def _jaccard(self, row_maxima: Tensor, gallery: slice | Tensor) -> Tensor:
        """Step 4, step 5, the Jaccard distances of step 6 and their mean over the spectra of the gallery.

        Args:
            row_maxima: (candidates,) at least ``TINY``.
            gallery: positions in the pool.

        Returns:
            (query rows, gallery)
        """
        weights = gaussian_weights(self.reciprocal_distances, row_maxima)
        return self.kernels.jaccard(self.neighbours, weights, self.query_members, self.pool_members[gallery])


def distance_blocks(features: Tensor, candidates: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Step 1: squared distances of images to the candidates, a block of images with all their spectra at a time.

    Args:
        features: (spectra, images, D) normalised.
        candidates: (candidates, D) normalised.

    Yields:
        The positions of a block of images, and their distances (spectra, images of the block, candidates).
    """
    for images in blocks(features.shape[1], len(features) * len(candidates), features.device):
        products = features[:, images].flatten(0, 1) @ candidates.T
        yield images, products.mul_(-2).add_(2).clamp_(min=0).unflatten(0, (len(features), -1))


def mutual(neighbours: Tensor) -> Tensor:
    """Step 3: which neighbours of a candidate also have it as a neighbour: (candidates, k) -> (candidates, k) bool."""
    result = torch.empty_like(neighbours, dtype=torch.bool)
    row = torch.arange(len(neighbours), device=neighbours.device)
    width = 2 * neighbours.shape[1] ** 2  # int64 takes twice the memory of float32
    for rows in blocks(len(neighbours), width, neighbours.device):
        result[rows] = (neighbours[neighbours[rows]] == row[rows, None, None]).any(dim=2)
    return result


def gaussian_weights(distances: Tensor, row_maxima: Tensor) -> Tensor:
    """Step 4: exp(-distance / row maximum), with a sum of 1 per row, or 0 if all distances of a row are infinite.

    Args:
        distances: (candidates, k) distances to the neighbours, infinite outside the k-reciprocal set.
        row_maxima: (candidates,)
    """
    weights = torch.exp(-distances / row_maxima[:, None])
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=TINY)


def _joined(parts: list[RankLists]) -> RankLists:
    """Join blocks of rank lists (spectra, images, ...) to (spectra * images, ...), spectrum after spectrum."""
    return RankLists(*(torch.cat(values, dim=1).flatten(0, 1) for values in zip(*parts, strict=True)))


def _mean_over_spectra(values: Tensor, spectra: int) -> Tensor:
    """(spectra * n, m) -> (n, m), without a copy if there is one spectrum."""
    return values if spectra == 1 else values.unflatten(0, (spectra, -1)).mean(dim=0)


def _single_infrared_spectrum(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides, with only the first spectrum of the infrared side."""
    for features in (query, gallery):
        if features.ndim != 3 or 0 in features.shape:
            raise ValueError(f"features should be (spectra, images, dimensions), not {tuple(features.shape)}")
    if len(query) == 1 or len(gallery) == 1:
        return query, gallery
    if _spectra_are_equal(query):
        return query[:1], gallery
    if _spectra_are_equal(gallery):
        return query, gallery[:1]
    raise ValueError("query and gallery both have several spectra; one side has to be infrared, with a single one")


def _spectra_are_equal(features: Tensor) -> bool:
    """Whether all spectra are equal except for rounding: (spectra, images, D)."""
    return all(
        torch.allclose(spectrum[images], features[0, images], rtol=0, atol=SAME)
        for images in (slice(1), slice(None))  # the first image usually decides it
        for spectrum in features[1:]
    )
