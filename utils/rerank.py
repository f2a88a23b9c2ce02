"""Multi-Spectral Enhanced Ranking (MSER, MCJA): k-reciprocal re-ranking over all spectra of the visible images.

Each spectrum of an image is a row of X = [all spectra of the queries; all spectra of the gallery]. With "queries" as
neighbours the candidates are the query rows, with "all" they are all rows. The steps:

1. d_ij = squared Euclidean distance of normalised rows; relative to the largest of its row, it is d_ij / max_i.
2. Rank lists: the nearest candidates of each row.
3. k-reciprocal sets: R(i) = {j in the top k1 + 1 of i : i in the top k1 + 1 of j}.
4. Weights: V_ij = exp(-d_ij / max_i) over R(i), with a sum of 1; rows that are no candidates have none.
5. Query expansion: V_i becomes the mean of V over the first k2 of i's rank list, unless k2 is 1.
6. Jaccard distance from V; final = (1 - lam) * Jaccard + lam * d_ij / max_i.
7. Mean over the spectra.

Distances are computed for a block of rows at a time, and everything is float32 (the released code holds weights and
Jaccard distances in half precision).
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from utils.kernels import kernels_for
from utils.tensors import as_tensor, blocks

NEIGHBOURS = ("queries", "all")
TINY = 1e-12  # smallest divisor: all distances of a row are 0 where all features are equal
SAME = 1e-4  # spectra whose features differ less are those of infrared images

Values = TypeVar("Values", np.ndarray, Tensor)


class MSER(NamedTuple):
    """Hyper-parameters of MSER."""

    k1: int  # size of the k-reciprocal neighbourhood
    k2: int  # neighbours whose weights are averaged; 1 averages nothing
    lam: float  # weight of the original distance in the final one, 0 to 1


class RankLists(NamedTuple):
    """Nearest candidates of rows, in ascending order."""

    positions: Tensor  # (rows, count) of the candidates
    distances: Tensor  # (rows, count)
    largest: Tensor  # (rows,) largest distance to any candidate


def mser_distance(query: Values, gallery: Values, *, k1: int, k2: int, lam: float, neighbours: str) -> Values:
    """Re-ranked distances between queries and gallery.

    Args:
        query: (Sq, Nq, D) normalised features of each spectrum.
        gallery: (Sg, Ng, D). One of Sq and Sg is 1, or that side's spectra are all equal: it is the infrared one.
        k1, k2, lam: see :class:`MSER`.
        neighbours: ``queries`` (SYSU-MM01: only queries are neighbours) or ``all`` (RegDB).

    Returns:
        (Nq, Ng) float32; an array for arrays, a tensor on the same device for tensors.

    Raises:
        ValueError: both sides have several different spectra, one is empty, or ``neighbours`` is unknown.
    """
    sides = as_tensor(query).float(), as_tensor(gallery).float()
    distance = Reranker(*sides, MSER(k1, k2, lam), neighbours=neighbours).distance()
    return distance if isinstance(query, Tensor) else distance.numpy()


class Reranker:
    """Re-ranks many galleries out of one gallery pool.

    Steps 1 to 3 are computed once, for the whole pool: of a gallery, only the row maxima of the queries depend on it.
    With "all" as neighbours the whole pool takes part in every gallery.

    Args:
        query: (Sq, Nq, D) float32, see :func:`mser_distance`.
        pool: (Sg, N, D) float32, all images that a gallery may hold.
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

        lists = self._neighbour_pass(query, pool, candidates)
        self.query_members, self.pool_members = self._members(*lists)
        self.pool_members = self.pool_members.unflatten(0, pool.shape[:2]).transpose(0, 1).contiguous()
        candidate_lists = lists if self.all_are_candidates else lists[:1]
        positions, distances, self.largest = (torch.cat(values) for values in zip(*candidate_lists, strict=True))
        self.neighbours = positions[:, : mser.k1 + 1].contiguous()
        self.reciprocal_distances = distances[:, : mser.k1 + 1].masked_fill(~mutual(self.neighbours), torch.inf)

    def distance(self, columns: Tensor | None = None) -> Tensor:
        """Distances of the queries to the images of the pool at ``columns``, or to all: (Nq, columns) float32."""
        columns = slice(None) if columns is None else columns
        to_queries = torch.maximum(self.largest[: self.query_rows], self.pool_largest[columns].amax(dim=0))
        largest = torch.cat([to_queries, self.largest[self.query_rows :]]).clamp(min=TINY)
        weight = self.mser.lam / largest[: self.query_rows, None]
        final = self._jaccard(largest, columns).mul_(1 - self.mser.lam).addcmul_(self.pool_mean[columns].T, weight)
        return _mean_over_spectra(final, self.query_spectra)

    def reverse_distance(self) -> Tensor:
        """Distances of all images of the pool, as queries, to the queries, as their gallery: (N, Nq) float32.

        Raises:
            ValueError: the neighbours are not "all": with the pool as queries, the candidates would be others.
        """
        if not self.all_are_candidates:
            raise ValueError("the reverse distance is only defined for neighbours 'all'")
        jaccard = _mean_over_spectra(self._jaccard(self.largest.clamp(min=TINY), slice(None)), self.query_spectra)
        return torch.lerp(jaccard.T, self.reverse, self.mser.lam)

    def _neighbour_pass(self, query: Tensor, pool: Tensor, candidates: Tensor) -> tuple[RankLists, RankLists]:
        """Steps 1 and 2: rank lists of all rows, and between queries and pool the original distances.

        The original distances are reduced over the spectra of the pool: to the mean, to the largest, and, relative to
        the row maxima of the pool, to the reverse direction's mean.
        """
        k1, k2, _ = self.mser
        longest = min(max(k1 + 1, k2), len(candidates))
        query_lists = [self._nearest(distance, longest) for _, distance in distance_blocks(query, candidates)]

        count = longest if self.all_are_candidates else min(k2, len(candidates))
        images = pool.shape[1]
        self.pool_mean, self.pool_largest = (pool.new_empty((images, self.query_rows)) for _ in range(2))
        self.reverse = pool.new_empty((images, query.shape[1])) if self.all_are_candidates else None
        pool_lists = []
        for rows, distance in distance_blocks(pool, candidates):
            pool_lists.append(self._nearest(distance, count))
            to_queries = distance[..., : self.query_rows]
            self.pool_mean[rows], self.pool_largest[rows] = to_queries.mean(dim=0), to_queries.amax(dim=0)
            if self.reverse is not None:
                relative = to_queries / pool_lists[-1].largest[..., None].clamp(min=TINY)
                self.reverse[rows] = relative.mean(dim=0).unflatten(1, query.shape[:2]).mean(dim=1)
        return _joined(query_lists), _joined(pool_lists)

    def _nearest(self, distance: Tensor, count: int) -> RankLists:
        """Rank lists of a block of images: (spectra, images, candidates) -> (spectra, images, count)."""
        positions = self.kernels.smallest(distance.flatten(0, 1), count).unflatten(0, distance.shape[:2])
        return RankLists(positions, distance.gather(2, positions), distance.amax(dim=2))

    def _members(self, query: RankLists, pool: RankLists) -> list[Tensor]:
        """Step 5: positions of the candidates whose weights are averaged for each row of the queries and the pool."""
        if self.mser.k2 > 1:
            return [lists.positions[:, : self.mser.k2] for lists in (query, pool)]
        rows = torch.arange(len(query.largest) + len(pool.largest), device=query.largest.device)[:, None]
        query_rows, pool_rows = rows.split([len(query.largest), len(pool.largest)])
        return [query_rows, pool_rows if self.all_are_candidates else pool_rows[:, :0]]

    def _jaccard(self, largest: Tensor, columns: Tensor | slice) -> Tensor:
        """Steps 4 to 6, averaged over the spectra of the pool: (query rows, columns)."""
        weights = gaussian_weights(self.reciprocal_distances, largest)
        return self.kernels.jaccard(self.neighbours, weights, self.query_members, self.pool_members[columns])


def distance_blocks(features: Tensor, candidates: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Step 1: squared distances of images to the candidates, a block of images with all their spectra at a time.

    Args:
        features: (spectra, images, D) normalised.
        candidates: (candidates, D) normalised.

    Yields:
        The images, and their distances (spectra, images, candidates).
    """
    for images in blocks(features.shape[1], len(features) * len(candidates)):
        products = features[:, images].flatten(0, 1) @ candidates.T
        yield images, products.mul_(-2).add_(2).clamp_(min=0).unflatten(0, (len(features), -1))


def mutual(neighbours: Tensor) -> Tensor:
    """Step 3: which neighbours of a candidate have that candidate among theirs: (candidates, k) -> the same, bool."""
    result = torch.empty_like(neighbours, dtype=torch.bool)
    row = torch.arange(len(neighbours), device=neighbours.device)
    for rows in blocks(len(neighbours), 2 * neighbours.shape[1] ** 2):  # int64 takes twice the memory of float32
        result[rows] = (neighbours[neighbours[rows]] == row[rows, None, None]).any(dim=2)
    return result


def gaussian_weights(distances: Tensor, largest: Tensor) -> Tensor:
    """Step 4: exp(-distance / row maximum), with a sum of 1 per row, or 0 where all distances are infinite.

    Args:
        distances: (candidates, k) to the neighbours of each, infinite outside the k-reciprocal set.
        largest: (candidates,) row maxima.
    """
    weights = torch.exp(-distances / largest[:, None])
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=TINY)


def _joined(parts: list[RankLists]) -> RankLists:
    """Rank lists of blocks (spectra, images, ...) as those of all rows, spectrum after spectrum."""
    return RankLists(*(torch.cat(values, dim=1).flatten(0, 1) for values in zip(*parts, strict=True)))


def _mean_over_spectra(values: Tensor, spectra: int) -> Tensor:
    """(spectra * n, m) -> (n, m), without a copy where there is one spectrum."""
    return values if spectra == 1 else values.unflatten(0, (spectra, -1)).mean(dim=0)


def _single_infrared_spectrum(query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides, of the infrared one only the first spectrum."""
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
