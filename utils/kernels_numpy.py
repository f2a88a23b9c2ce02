"""The inner loops of scoring in NumPy: what :mod:`utils.kernels_numba` computes, where numba cannot be used."""

import numpy as np
from scipy import sparse

ROWS = 512  # sorted at a time; bounds memory


def smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Positions of each row's ``count`` smallest values, ascending, equals in order: (n, m) -> (n, count) int32."""
    result = np.empty((len(values), count), dtype=np.int32)
    for start in range(0, len(values), ROWS):
        result[start : start + ROWS] = np.argsort(values[start : start + ROWS], axis=1, kind="stable")[:, :count]
    return result


def row_maxima(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Largest of each row's values at ``columns``: (n, m) -> (n,)."""
    return values[:, columns].max(axis=1)


def take_columns(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The values at ``columns``: (n, m) -> (n, columns)."""
    return values[:, columns]


def jaccard_blend(
    query: sparse.csr_matrix,
    weights: sparse.csr_matrix,
    members: np.ndarray,
    spectra: int,
    mean_distance: np.ndarray,
    columns: np.ndarray,
    scale: np.ndarray,
) -> np.ndarray:
    """Jaccard distance, averaged over the gallery's spectra and blended with the original distance.

    With sigma_ij = sum over c of min(query_ic, gallery_jc), the Jaccard distance is 1 - sigma / (2 - sigma).

    Args:
        query: (queries, candidates) weights of the queries.
        weights: (candidates, candidates); a gallery row is the mean of some of its rows,
        members: (images x spectra, k), namely these; the spectra of an image side by side.
        mean_distance: (queries, pool).
        columns: (images,) where in the pool they are.
        scale: (queries, 2) factors of the Jaccard and of the mean distance.

    Returns:
        (queries, images) float32.
    """
    gallery = row_means(members, weights).tocsc()
    images = len(columns)
    result = np.empty((query.shape[0], images), dtype=np.float32)
    lengths = np.diff(gallery.indptr)
    for i in range(query.shape[0]):
        entries = slice(query.indptr[i], query.indptr[i + 1])
        candidates, weight = query.indices[entries], query.data[entries]
        # positions of all of these candidates' entries, one candidate after the other
        count = lengths[candidates]
        first = np.repeat(gallery.indptr[candidates] - np.concatenate([[0], count.cumsum()[:-1]]), count)
        positions = np.arange(count.sum()) + first
        minima = np.minimum(gallery.data[positions], np.repeat(weight, count))
        sigma = np.bincount(gallery.indices[positions], minima, minlength=spectra * images)
        jaccard = (1 - sigma / (2 - sigma)).reshape(images, spectra).mean(axis=1)
        result[i] = scale[i, 0] * jaccard + scale[i, 1] * mean_distance[i, columns]
    return result


def row_means(members: np.ndarray, weights: sparse.csr_matrix) -> sparse.csr_matrix:
    """Means of rows of ``weights``, those listed in each row of ``members``: (rows, k) -> (rows, candidates)."""
    rows, width = members.shape
    indptr = np.arange(0, rows * width + 1, width) if width else np.zeros(rows + 1, dtype=np.int64)
    data = np.full(rows * width, 1 / max(width, 1), dtype=np.float32)
    return sparse.csr_matrix((data, members.ravel(), indptr), shape=(rows, weights.shape[0])) @ weights


def query_figures(
    distance: np.ndarray,
    query_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_ids: np.ndarray,
    gallery_cameras: np.ndarray,
    identities: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Figures of each query against the gallery images of other cameras, equal distances in gallery order.

    Args:
        distance: (queries, gallery).
        query_ids, gallery_ids: identities as numbers 0 ... ``identities`` - 1, or -1 for a query of none of them.

    Returns:
        ``place``, how many identities rank before the query's own one, -1 without a match; ``length``, how many
        identities are ranked; average precision; inverse negative penalty; each (queries,).
    """
    order = np.argsort(distance, axis=1, kind="stable")
    valid = gallery_cameras[order] != query_cameras[:, None]
    hit = valid & (gallery_ids[order] == query_ids[:, None])
    rank, ordinal = valid.cumsum(axis=1), hit.cumsum(axis=1)
    matches = ordinal[:, -1]
    scored = matches > 0
    precision = np.divide(ordinal, rank, where=hit, out=np.zeros(hit.shape)).sum(axis=1) / np.maximum(matches, 1)
    penalty = np.where(scored, matches / np.maximum(np.where(hit, rank, 0).max(axis=1), 1), 0.0)

    never = order.shape[1]
    position = np.empty_like(order)  # place of each gallery image in the ranked list
    np.put_along_axis(position, order, np.where(valid, np.arange(never), never), axis=1)
    first = np.full((identities, len(distance)), never)  # place of each identity's first image
    np.minimum.at(first, gallery_ids, position.T)
    own = np.where(scored, first[query_ids, np.arange(len(distance))], never)
    place = np.where(scored, (first < own).sum(axis=0), -1)
    return place, (first < never).sum(axis=0), precision, penalty
