"""Multi-Spectral Enhanced Ranking (MSER): k-reciprocal re-ranking over all spectra of the visible images (MCJA).

Everything is computed in float32 and sums in float64; the released code keeps weights in half precision.
"""

import numpy as np
from scipy import sparse

NEIGHBOURS = ("queries", "all")
BLOCK_ROWS = 1024  # rows sorted at a time; bounds memory


def mser_distance(
    query: np.ndarray, gallery: np.ndarray, *, k1: int, k2: int, lam: float, neighbours: str
) -> np.ndarray:
    """Re-ranked distances, the mean over spectra.

    The spectra of the visible side are ranked together, as if each were an image of its own; then the distances of an
    image's spectra are averaged.

    Args:
        query: (Sq, Nq, D) normalised features per spectrum; the infrared side has one spectrum, or equal ones.
        gallery: (Sg, Ng, D), likewise.
        k1: size of the k-reciprocal neighbourhood.
        k2: neighbours whose weights are averaged; 1 averages nothing.
        lam: weight of the original distance in the final one, 0 to 1.
        neighbours: ``queries`` (SYSU-MM01: only queries may be neighbours) or ``all`` (RegDB).

    Returns:
        (Nq, Ng) float32.

    Raises:
        ValueError: both sides have several different spectra, or an unknown ``neighbours``.
    """
    if neighbours not in NEIGHBOURS:
        raise ValueError(f"unknown neighbours {neighbours!r}; choose from {', '.join(NEIGHBOURS)}")
    query, gallery = (_distinct(np.asarray(features, dtype=np.float32)) for features in (query, gallery))
    if len(query) > 1 and len(gallery) > 1:
        raise ValueError("query and gallery both have several spectra; one side has to be infrared, with a single one")
    (query_spectra, queries, dimensions), (gallery_spectra, images, _) = query.shape, gallery.shape
    distance = rerank(query.reshape(-1, dimensions), gallery.reshape(-1, dimensions), k1, k2, lam, neighbours)
    return distance.reshape(query_spectra, queries, gallery_spectra, images).mean(axis=(0, 2))


def _distinct(features: np.ndarray) -> np.ndarray:
    """(S, N, D), reduced to one spectrum where all are equal: infrared images have no more."""
    if features.ndim != 3:
        raise ValueError(f"features should be (spectra, images, dimensions), not {features.shape}")
    return features[:1] if (features[1:] == features[:1]).all() else features


def rerank(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, lam: float, neighbours: str) -> np.ndarray:
    """k-reciprocal re-ranking of rows, (Nq, D), (Ng, D) normalised -> (Nq, Ng) float32 final distances."""
    count = len(query)
    to_gallery = squared_distances(query, gallery)
    distance = np.concatenate([squared_distances(query, query), to_gallery.T])
    if neighbours == "queries":  # (rows, candidates): gallery rows have neighbours, but are none
        largest = np.maximum(distance[:count].max(axis=1), to_gallery.max(axis=1))
    else:
        distance = np.concatenate([distance, np.concatenate([to_gallery, squared_distances(gallery, gallery)])], axis=1)
        largest = distance.max(axis=1)

    ranked = nearest(distance, max(k1 + 1, k2))
    weights = reciprocal_weights(distance, largest, ranked[:, : k1 + 1])
    if k2 != 1:
        weights = neighbour_mean(ranked[:, :k2], len(largest)) @ weights
    else:
        weights.resize(len(distance), len(largest))  # rows that cannot be neighbours have no weights
    del distance
    result = sum_of_minima(weights[:count], weights[count:])
    result = (1 - lam) * (1 - result / (2 - result))  # Jaccard distance
    result += lam * (to_gallery / largest[:count, None])
    return result


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances of normalised rows: (n, D), (m, D) -> (n, m) float32, not below 0."""
    distance = a @ b.T
    distance *= -2
    distance += 2
    return np.maximum(distance, 0, out=distance)


def nearest(distance: np.ndarray, count: int) -> np.ndarray:
    """Positions of each row's ``count`` smallest values in ascending order: (n, m) -> (n, min(count, m))."""
    count = min(count, distance.shape[1])
    result = np.empty((len(distance), count), dtype=np.int64)
    for start in range(0, len(distance), BLOCK_ROWS):
        block = distance[start : start + BLOCK_ROWS]
        smallest = np.argpartition(block, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(block, smallest, axis=1), axis=1, kind="stable")
        result[start : start + BLOCK_ROWS] = np.take_along_axis(smallest, order, axis=1)
    return result


def reciprocal_weights(distance: np.ndarray, largest: np.ndarray, ranked: np.ndarray) -> sparse.csr_matrix:
    """V: exp(-distance / row maximum) over the k-reciprocal set, with sum 1 per row: (candidates, candidates)."""
    count, width = len(largest), ranked.shape[1]
    rows = np.repeat(np.arange(count), width)
    near = sparse.csr_matrix((np.ones(count * width, bool), (rows, ranked[:count].ravel())), shape=(count, count))
    mutual = near.multiply(near.T).tocoo()
    value = np.exp(-distance[mutual.row, mutual.col] / largest[mutual.row])
    total = np.bincount(mutual.row, value, minlength=count)
    return sparse.csr_matrix((value / total[mutual.row].astype(np.float32), (mutual.row, mutual.col)), (count, count))


def neighbour_mean(ranked: np.ndarray, candidates: int) -> sparse.csr_matrix:
    """The matrix that averages over each row's ranked neighbours: (rows, k2) -> (rows, candidates)."""
    count, width = ranked.shape
    indptr = np.arange(0, count * width + 1, width)
    data = np.full(count * width, 1 / width, dtype=np.float32)
    return sparse.csr_matrix((data, ranked.ravel(), indptr), shape=(count, candidates))


def sum_of_minima(query: sparse.csr_matrix, gallery: sparse.csr_matrix) -> np.ndarray:
    """sigma_ij = sum over c of min(query_ic, gallery_jc), through an inverted index: -> (Nq, Ng) float32."""
    index = gallery.tocsc()
    result = np.empty((query.shape[0], gallery.shape[0]), dtype=np.float32)
    for i in range(query.shape[0]):
        entries = slice(query.indptr[i], query.indptr[i + 1])
        columns, value = query.indices[entries], query.data[entries]
        starts, lengths = index.indptr[columns], np.diff(index.indptr)[columns]
        # positions in the index of all entries of these columns, one column after the other
        offset = np.repeat(starts - np.concatenate([[0], lengths.cumsum()[:-1]]), lengths)
        positions = np.arange(lengths.sum()) + offset
        minima = np.minimum(index.data[positions], np.repeat(value, lengths))
        result[i] = np.bincount(index.indices[positions], minima, minlength=gallery.shape[0])
    return result
