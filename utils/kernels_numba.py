"""The inner loops of scoring, compiled by numba and parallel over rows; the results of compiling are kept on the disk.

Same functions, arguments and results as :mod:`utils.kernels_numpy`, which documents them.
"""

import numpy as np
from numba import njit, prange
from scipy import sparse

compiled = njit(parallel=True, cache=True, nogil=True)


def smallest(values: np.ndarray, count: int) -> np.ndarray:
    return _smallest(values, count)


@compiled
def _smallest(values, count):
    rows, columns = values.shape
    result = np.empty((rows, count), dtype=np.int32)
    for i in prange(rows):
        best = np.empty(count, dtype=values.dtype)  # ascending
        held = 0
        for j in range(columns):
            value = values[i, j]
            if held == count and not value < best[count - 1]:
                continue
            place = held if held < count else count - 1
            while place > 0 and value < best[place - 1]:
                best[place] = best[place - 1]
                result[i, place] = result[i, place - 1]
                place -= 1
            best[place] = value
            result[i, place] = j
            held = min(held + 1, count)
    return result


def jaccard_blend(
    query: sparse.csr_matrix, gallery: sparse.csc_matrix, spectra: int, mean_distance: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    return _jaccard_blend(
        *(query.indptr, query.indices, query.data),
        *(gallery.indptr, gallery.indices, gallery.data),
        *(spectra, mean_distance, scale),
    )


@compiled
def _jaccard_blend(
    query_start, query_column, query_weight, gallery_start, gallery_row, gallery_weight, spectra, mean_distance, scale
):
    queries, images = mean_distance.shape
    result = np.empty((queries, images), dtype=np.float32)
    for i in prange(queries):
        sigma = np.zeros(spectra * images, dtype=np.float32)
        for entry in range(query_start[i], query_start[i + 1]):
            column, weight = query_column[entry], query_weight[entry]
            for position in range(gallery_start[column], gallery_start[column + 1]):
                sigma[gallery_row[position]] += min(weight, gallery_weight[position])
        for j in range(images):
            jaccard = np.float32(0)
            for s in range(spectra):
                shared = sigma[s * images + j]
                jaccard += np.float32(1) - shared / (np.float32(2) - shared)
            result[i, j] = scale[i, 0] * jaccard / spectra + scale[i, 1] * mean_distance[i, j]
    return result


def query_figures(
    distance: np.ndarray,
    query_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_ids: np.ndarray,
    gallery_cameras: np.ndarray,
    identities: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return _query_figures(distance, query_ids, query_cameras, gallery_ids, gallery_cameras, identities)


@compiled
def _query_figures(distance, query_ids, query_cameras, gallery_ids, gallery_cameras, identities):
    queries, images = distance.shape
    place = np.full(queries, -1, dtype=np.int64)
    length = np.zeros(queries, dtype=np.int64)
    precision = np.zeros(queries)
    penalty = np.zeros(queries)
    for i in prange(queries):
        row = distance[i]
        first = np.full(identities, -1, dtype=np.int64)  # nearest image of each identity, the earliest of equals
        hits = np.empty(images, dtype=np.int64)
        matches = 0
        for j in range(images):
            if gallery_cameras[j] == query_cameras[i]:
                continue
            identity = gallery_ids[j]
            if first[identity] < 0 or row[j] < row[first[identity]]:
                first[identity] = j
            if identity == query_ids[i]:
                hits[matches] = j
                matches += 1
        for identity in range(identities):
            length[i] += first[identity] >= 0
        if matches == 0:
            continue

        hits = hits[:matches]
        hits = hits[np.argsort(row[hits], kind="mergesort")]  # stable: equals in gallery order
        between = np.zeros(matches + 1, dtype=np.int64)  # images that rank after k hits and before the next
        for j in range(images):
            if gallery_cameras[j] != query_cameras[i]:
                low, high = 0, matches
                while low < high:
                    middle = (low + high) // 2
                    other = hits[middle]
                    if row[other] < row[j] or (row[other] == row[j] and other < j):
                        low = middle + 1
                    else:
                        high = middle
                between[low] += 1
        rank = 0
        for k in range(matches):
            rank += between[k]
            precision[i] += (k + 1) / rank
        precision[i] /= matches
        penalty[i] = matches / rank

        own = hits[0]
        before = 0
        for identity in range(identities):
            nearest = first[identity]
            if nearest >= 0 and (row[nearest] < row[own] or (row[nearest] == row[own] and nearest < own)):
                before += 1
        place[i] = before
    return place, length, precision, penalty
