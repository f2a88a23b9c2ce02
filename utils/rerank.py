"""Multi-Spectral Enhanced Ranking (MSER): k-reciprocal re-ranking over all spectra of the visible images (MCJA).

The spectra of an image are ranked as if each were an image of its own; in the end their distances are averaged. Nothing
is approximated; everything is in float32, where the released code keeps weights in half precision.

Nothing here holds the distances of all rows from all others: they are made a block of rows at a time, and of each block
only the nearest candidates, the row maxima and the distances between queries and gallery are kept.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from utils.kernels import jaccard_blend, row_maxima, row_means, smallest

NEIGHBOURS = ("queries", "all")
TINY = 1e-12  # instead of a largest distance of 0, where all features are equal
SAME = 1e-4  # spectra that differ less in every normalised feature are those of infrared images
BLOCK_BYTES = 64 * 2**20  # of distances made at a time


class MSER(NamedTuple):
    """Hyper-parameters: size of the k-reciprocal neighbourhood; neighbours whose weights are averaged (1 averages
    nothing); weight of the original distance in the final one, 0 to 1."""

    k1: int
    k2: int
    lam: float


def mser_distance(
    query: np.ndarray, gallery: np.ndarray, *, k1: int, k2: int, lam: float, neighbours: str
) -> np.ndarray:
    """Re-ranked distances, the mean over spectra.

    Args:
        query: (Sq, Nq, D) normalised features per spectrum; the infrared side has one spectrum, or equal ones.
        gallery: (Sg, Ng, D), likewise.
        k1, k2, lam: see :class:`MSER`.
        neighbours: ``queries`` (SYSU-MM01: only queries may be neighbours) or ``all`` (RegDB).

    Returns:
        (Nq, Ng) float32.

    Raises:
        ValueError: both sides have several different spectra, or an unknown ``neighbours``.
    """
    if neighbours == "queries":
        return QueryReranker(query, gallery, MSER(k1, k2, lam)).distance()
    if neighbours == "all":
        return rerank_all(query, gallery, MSER(k1, k2, lam))[0]
    raise ValueError(f"unknown neighbours {neighbours!r}; choose from {', '.join(NEIGHBOURS)}")


class QueryReranker:
    """Re-ranks with queries as the only neighbours, for many galleries out of one pool.

    Rank lists and reciprocal sets then do not depend on the gallery, only the row maxima do; so all but the weights is
    computed once.

    Args:
        query: (Sq, Nq, D); see :func:`mser_distance`.
        pool: (Sg, N, D), all images that a gallery may hold.
    """

    def __init__(self, query: np.ndarray, pool: np.ndarray, mser: MSER):
        query, pool = _one_side_infrared(query, pool)
        self.mser = mser
        self.query_spectra, self.spectra = len(query), len(pool)
        queries = _flat(query)
        count, images = len(queries), pool.shape[1]

        self.largest = np.empty(count, dtype=np.float32)  # of the distances to other queries
        nearest = np.empty((count, min(max(mser.k1 + 1, mser.k2), count)), dtype=np.int32)
        near_distance = np.empty(nearest.shape, dtype=np.float32)
        for rows in _blocks(count, count):
            distance = squared_distances(queries[rows], queries)
            self.largest[rows] = distance.max(axis=1)
            nearest[rows] = smallest(distance, nearest.shape[1])
            near_distance[rows] = np.take_along_axis(distance, nearest[rows], axis=1)
        self.reciprocal = reciprocal_distances(nearest[:, : mser.k1 + 1], near_distance[:, : mser.k1 + 1])
        self.query_nearest = nearest[:, : mser.k2]

        # of the spectra's distances between each query and image
        self.pool_largest = np.empty((count, images), dtype=np.float32)
        self.pool_mean = np.empty((count, images), dtype=np.float32)
        # gallery images have no weights of their own: without averaging they have none
        members = 0 if mser.k2 == 1 else min(mser.k2, count)
        self.pool_nearest = np.empty((images, self.spectra, members), dtype=np.int32)
        for rows in _blocks(images, self.spectra * count):
            distance = squared_distances(_flat(pool[:, rows].swapaxes(0, 1)), queries)
            self.pool_nearest[rows] = smallest(distance, members).reshape(rows.stop - rows.start, self.spectra, members)
            distance = distance.reshape(-1, self.spectra, count)
            self.pool_largest[:, rows] = distance.max(axis=1).T
            self.pool_mean[:, rows] = distance.mean(axis=1).T

    def distance(self, columns: np.ndarray | None = None) -> np.ndarray:
        """Re-ranked distances to the images of the pool at ``columns``, or to all: (Nq, columns) float32."""
        columns = np.arange(self.pool_mean.shape[1]) if columns is None else columns
        largest = np.maximum(self.largest, row_maxima(self.pool_largest, columns)).clip(min=TINY)
        weights = reciprocal_weights(self.reciprocal, largest)
        query = weights if self.mser.k2 == 1 else row_means(self.query_nearest, weights)
        members = _flat(self.pool_nearest[columns])
        scale = np.stack([np.full_like(largest, 1 - self.mser.lam), self.mser.lam / largest], axis=1)
        distance = jaccard_blend(query, weights, members, self.spectra, self.pool_mean, columns, scale)
        return _mean(distance.reshape(self.query_spectra, -1, len(columns)))


def rerank_all(query: np.ndarray, gallery: np.ndarray, mser: MSER) -> tuple[np.ndarray, np.ndarray]:
    """Re-ranks with all rows as neighbours, in both directions at once: they share all but the original distance.

    Args:
        query, gallery: (Sq, Nq, D) and (Sg, Ng, D); see :func:`mser_distance`.

    Returns:
        Distances of queries to the gallery (Nq, Ng), and of gallery images, as queries, to them (Ng, Nq).
    """
    query, gallery = _one_side_infrared(query, gallery)
    features = np.concatenate([_flat(query), _flat(gallery)])
    count, total = query.shape[0] * query.shape[1], len(features)

    nearest = np.empty((total, min(max(mser.k1 + 1, mser.k2), total)), dtype=np.int32)
    near_distance = np.empty(nearest.shape, dtype=np.float32)
    largest = np.empty(total, dtype=np.float32)
    forward = np.empty((count, total - count), dtype=np.float32)  # relative distances
    backward = np.empty((total - count, count), dtype=np.float32)
    for rows in _blocks(total, total):
        distance = squared_distances(features[rows], features)
        largest[rows] = distance.max(axis=1).clip(min=TINY)
        nearest[rows] = smallest(distance, nearest.shape[1])
        near_distance[rows] = np.take_along_axis(distance, nearest[rows], axis=1)
        distance /= largest[rows, None]
        queries = max(0, min(rows.stop, count) - rows.start)  # rows of this block that are queries
        forward[rows.start : rows.start + queries] = distance[:queries, count:]
        backward[max(0, rows.start - count) : max(0, rows.stop - count)] = distance[queries:, :count]

    weights = reciprocal_weights(
        reciprocal_distances(nearest[:, : mser.k1 + 1], near_distance[:, : mser.k1 + 1]), largest
    )
    # every row is a candidate: without averaging it has its own weights
    members = np.arange(total, dtype=np.int32)[:, None] if mser.k2 == 1 else nearest[:, : mser.k2]
    spectra, images = len(gallery), gallery.shape[1]
    jaccard = jaccard_blend(
        row_means(members[:count], weights),
        weights,
        _flat(members[count:].reshape(spectra, images, -1).swapaxes(0, 1)),
        spectra,
        np.zeros((count, images), dtype=np.float32),
        np.arange(images),
        np.tile(np.array([1, 0], dtype=np.float32), (count, 1)),
    )
    shape = (len(query), query.shape[1], spectra, images)
    jaccard = _mean(jaccard.reshape(len(query), -1, images))
    forward = forward.reshape(shape).mean(axis=(0, 2))
    backward = backward.reshape(shape[2:] + shape[:2]).mean(axis=(0, 2))
    return (1 - mser.lam) * jaccard + mser.lam * forward, (1 - mser.lam) * jaccard.T + mser.lam * backward


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances of normalised rows: (n, D), (m, D) -> (n, m) float32, not below 0."""
    distance = a @ b.T
    distance *= -2
    distance += 2
    return np.maximum(distance, 0, out=distance)


def reciprocal_distances(nearest: np.ndarray, distance: np.ndarray) -> sparse.csr_matrix:
    """Distances within k-reciprocal sets, of rows that are each other's near ones: -> (rows, rows), zeros explicit.

    Args:
        nearest: (rows, k) positions of the near rows.
        distance: (rows, k) of them.
    """
    rows, width = nearest.shape
    indptr = np.arange(0, rows * width + 1, width)
    # entries say where in `distance` their distance stands, counted from 1, so that none is lost as a zero
    entries = np.arange(1, rows * width + 1)
    near = sparse.csr_matrix((entries, nearest.ravel(), indptr), shape=(rows, rows))
    mutual = near.multiply(near.T.astype(bool)).tocsr()
    return sparse.csr_matrix((distance.ravel()[mutual.data - 1], mutual.indices, mutual.indptr), shape=mutual.shape)


def reciprocal_weights(reciprocal: sparse.csr_matrix, largest: np.ndarray) -> sparse.csr_matrix:
    """exp(-distance / row maximum) over each row's reciprocal set, with sum 1 per row."""
    lengths = np.diff(reciprocal.indptr)
    rows = np.repeat(np.arange(len(largest)), lengths)
    weight = np.exp(-reciprocal.data / largest[rows])
    total = np.bincount(rows, weight, minlength=len(largest))
    data = (weight / total[rows]).astype(np.float32)
    return sparse.csr_matrix((data, reciprocal.indices, reciprocal.indptr), shape=reciprocal.shape)


def _one_side_infrared(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    query, gallery = (_distinct(np.asarray(features, dtype=np.float32)) for features in (query, gallery))
    if len(query) > 1 and len(gallery) > 1:
        raise ValueError("query and gallery both have several spectra; one side has to be infrared, with a single one")
    return query, gallery


def _distinct(features: np.ndarray) -> np.ndarray:
    """(S, N, D), reduced to one spectrum where all are equal but for rounding: infrared images have no more."""
    if features.ndim != 3:
        raise ValueError(f"features should be (spectra, images, dimensions), not {features.shape}")
    same = all(
        np.allclose(spectrum[rows], features[0, rows], rtol=0, atol=SAME)
        for rows in (slice(1), slice(None))  # the first image usually tells, without looking at the others
        for spectrum in features[1:]
    )
    return features[:1] if same else features


def _flat(values: np.ndarray) -> np.ndarray:
    """(S, N, D) -> (S x N, D)."""
    return values.reshape(values.shape[0] * values.shape[1], values.shape[2])


def _mean(values: np.ndarray) -> np.ndarray:
    """(S, n, m) -> (n, m), without a copy where there is one spectrum."""
    return values[0] if len(values) == 1 else values.mean(axis=0)


def _blocks(rows: int, width: int) -> list[slice]:
    """Slices of rows of which ``width`` float32 numbers each fit into a block."""
    size = max(1, BLOCK_BYTES // (4 * width))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
