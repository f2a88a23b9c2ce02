"""The inner loops of scoring, compiled by numba, for tensors on the CPU.

:mod:`utils.kernels.torch_kernels` documents the public functions.
"""

from collections.abc import Callable

import numpy as np
import torch
from numba import config, njit, prange
from torch import Tensor

from utils.kernels.torch_kernels import Ranks

LANES = 128  # gallery rows (each one spectrum of an image) that are compared with a query row at a time
UNROLLED = 4  # candidates whose minima are added up before the sum is stored

# Use numba's own threads. With OpenMP, the first call would change the number of threads of torch, and with it the
# rounding in the training that follows.
config.THREADING_LAYER = "workqueue"


def compiled(function: Callable) -> Callable:
    """``function`` as machine code with parallel loops, cached on the disk.

    It is compiled again if the cache is damaged, and in each process if no folder can be written to.
    """
    fresh = njit(parallel=True, nogil=True)(function)
    try:
        cached = njit(parallel=True, nogil=True, cache=True)(function)
    except RuntimeError:  # no folder can be written to
        return fresh

    def call(*arguments):
        try:
            return cached(*arguments)
        except Exception:  # a damaged cache raises errors of many types; real errors are raised again
            return fresh(*arguments)

    return call


def smallest(values: Tensor, count: int) -> Tensor:
    assert 0 < count <= values.shape[1]  # compiled code does not check bounds
    return torch.from_numpy(_smallest(values.numpy(), count))


@compiled
def _smallest(values, count):
    """(rows, columns) float32, count <= columns -> (rows, count) int64."""
    rows, columns = values.shape
    result = np.empty((rows, count), dtype=np.int64)
    for i in prange(rows):
        best = np.empty(count, dtype=values.dtype)  # the smallest values so far, ascending
        held = 0  # how many there are
        for j in range(columns):
            value = values[i, j]
            if held == count and not value < best[count - 1]:
                continue
            k = held if held < count else count - 1  # insertion sort: move larger values up by one
            while k > 0 and value < best[k - 1]:
                best[k] = best[k - 1]
                result[i, k] = result[i, k - 1]
                k -= 1
            best[k] = value
            result[i, k] = j
            held = min(held + 1, count)
    return result


def jaccard(neighbours: Tensor, weights: Tensor, query_members: Tensor, gallery_members: Tensor) -> Tensor:
    spectra = gallery_members.shape[1]
    assert spectra <= LANES
    sparse = neighbours.contiguous().numpy().astype(np.int32), weights.contiguous().numpy()  # int32 saves cache
    query_V = _mean_weights(query_members.contiguous().numpy(), *sparse)
    return torch.from_numpy(_jaccard(*query_V, *sparse, gallery_members.contiguous().flatten(0, 1).numpy(), spectra))


@compiled
def _mean_weights(members, neighbours, weights):
    """Mean of the members' weights, as a sparse matrix (rows, candidates).

    Args:
        members: (rows, m) int64.
        neighbours: (candidates, k) int32.
        weights: (candidates, k) float32.

    Returns:
        mean (entries,) float32, column (entries,) int32, start (rows + 1,) int64. Row i has the weights
        ``mean[start[i] : start[i + 1]]`` for the candidates ``column[start[i] : start[i + 1]]``.
    """
    rows, width = members.shape
    candidates, k = neighbours.shape
    start = np.zeros(rows + 1, dtype=np.int64)
    for i in prange(rows):
        start[i + 1] = _number(np.full(candidates, -1, dtype=np.int32), members[i : i + 1], neighbours, weights)
    for i in range(rows):
        start[i + 1] += start[i]
    column = np.empty(start[rows], dtype=np.int32)
    mean = np.zeros(start[rows], dtype=np.float32)
    for i in prange(rows):
        slot = np.full(candidates, -1, dtype=np.int32)
        _number(slot, members[i : i + 1], neighbours, weights)
        for member in members[i]:
            for n in range(k):
                if weights[member, n] > 0:
                    at = start[i] + slot[neighbours[member, n]]
                    column[at] = neighbours[member, n]
                    mean[at] += weights[member, n] / np.float32(width)
    return mean, column, start


@njit
def _number(slot, members, neighbours, weights):
    """Assign consecutive numbers (in ``slot``) to candidates with a positive weight in any member; the rest stay -1.

    Args:
        slot: (candidates,) int32, filled with -1; written to.
        members: (rows, m) int64.
        neighbours: (candidates, k) int32.
        weights: (candidates, k) float32.

    Returns:
        How many candidates have a number.
    """
    slots = 0
    for row in members:
        for member in row:
            for n in range(neighbours.shape[1]):
                if weights[member, n] > 0 and slot[neighbours[member, n]] < 0:
                    slot[neighbours[member, n]] = slots
                    slots += 1
    return slots


@compiled
def _jaccard(query_V, query_column, query_start, neighbours, weights, members, spectra):
    """Jaccard distances of query rows to gallery images, a tile of gallery images at a time.

    Args:
        query_V, query_column, query_start: weights of the query rows, as from :func:`_mean_weights`.
        neighbours: (candidates, k) int32.
        weights: (candidates, k) float32.
        members: (images * spectra, n) int64, the spectra of an image in consecutive rows.

    Returns:
        (query rows, images) float32.
    """
    queries, images, candidates = len(query_start) - 1, len(members) // spectra, len(neighbours)
    step = LANES // spectra  # images per tile
    result = np.ones((queries, images), dtype=np.float32)
    for tile in prange((images + step - 1) // step):
        # The tile has dense weights for the candidates of all its rows. Neighbouring gallery images share most
        # candidates, so the tile stays in cache for all queries.
        low, high = tile * step, min(images, (tile + 1) * step)
        slot = np.full(candidates, -1, dtype=np.int32)
        tile_members = members[low * spectra : high * spectra]
        slots = _number(slot, tile_members, neighbours, weights)
        tile_V = _dense_weights(slot, slots, tile_members, neighbours, weights)

        shared_slot = np.empty(candidates + UNROLLED, dtype=np.int32)
        shared_V = np.empty(candidates + UNROLLED, dtype=np.float32)
        sigma = np.empty(LANES, dtype=np.float32)
        for i in range(queries):
            shared = 0  # candidates that both the query and the tile have weights for
            for n in range(query_start[i], query_start[i + 1]):
                if slot[query_column[n]] >= 0:
                    shared_slot[shared], shared_V[shared] = slot[query_column[n]], query_V[n]
                    shared += 1
            if shared == 0:  # true for most tiles
                continue
            shared_slot[shared : shared + UNROLLED] = 0
            shared_V[shared : shared + UNROLLED] = 0  # the minimum with 0 adds nothing
            _sum_minima(sigma, tile_V, shared_slot, shared_V, shared)
            for j in range(low, high):
                distance = np.float32(spectra)
                for lane in range((j - low) * spectra, (j - low + 1) * spectra):
                    distance -= sigma[lane] / (np.float32(2) - sigma[lane])
                result[i, j] = distance / spectra
    return result


@njit
def _dense_weights(slot, slots, members, neighbours, weights):
    """Mean of the members' weights: (rows, m) int64 -> (slots, LANES) float32, one column per row."""
    width = np.float32(members.shape[1])
    result = np.zeros((slots, LANES), dtype=np.float32)
    for row in range(len(members)):
        for member in members[row]:
            for n in range(neighbours.shape[1]):
                if weights[member, n] > 0:
                    result[slot[neighbours[member, n]], row] += weights[member, n] / width
    return result


@njit
def _sum_minima(sigma, tile_V, slot, V, count):
    """Write the sum over n < count of min(tile_V[slot[n], lane], V[n]) into sigma[lane], for all lanes.

    Args:
        sigma: (LANES,) float32.
        tile_V: (slots, LANES) float32.
        slot, V: int32 and float32; V is 0 from ``count`` to the next multiple of ``UNROLLED``.
    """
    sigma[:] = 0
    for n in range(0, count, UNROLLED):
        a, b, c, d = slot[n], slot[n + 1], slot[n + 2], slot[n + 3]
        V_a, V_b, V_c, V_d = V[n], V[n + 1], V[n + 2], V[n + 3]
        for lane in range(LANES):
            sigma[lane] += (
                min(tile_V[a, lane], V_a)
                + min(tile_V[b, lane], V_b)
                + min(tile_V[c, lane], V_c)
                + min(tile_V[d, lane], V_d)
            )


def rank_matches(
    distance: Tensor, query_ids: Tensor, query_locations: Tensor, gallery_ids: Tensor, gallery_locations: Tensor
) -> Ranks:
    arrays = (values.numpy() for values in (distance, query_ids, query_locations, gallery_ids, gallery_locations))
    counts = gallery_ids.bincount()
    return Ranks(*map(torch.from_numpy, _rank_matches(*arrays, len(counts), int(counts.max()))))


@compiled
def _rank_matches(distance, query_ids, query_locations, gallery_ids, gallery_locations, identities, max_matches):
    """Ranks of the matches of each query.

    Args:
        distance: (queries, images) float32 or float64.
        query_ids, gallery_ids: (queries,) and (images,) int64, less than ``identities``.
        query_locations, gallery_locations: (queries,) and (images,).
        max_matches: the largest number of gallery images of an identity.

    Returns:
        The fields of ``Ranks``: (queries,) int64 and (queries, max_matches) int64.
    """
    queries, images = distance.shape
    identity_rank = np.zeros(queries, dtype=np.int64)
    image_ranks = np.zeros((queries, max_matches), dtype=np.int64)
    for i in prange(queries):
        row = distance[i]
        first = np.full(identities, -1, dtype=np.int64)  # nearest image of each identity, the earliest of equal ones
        listed = np.empty(images, dtype=row.dtype)  # distances of the images that are ranked
        hits = np.empty(max_matches, dtype=np.int64)  # the matching images
        length = matches = 0
        for j in range(images):
            if gallery_locations[j] == query_locations[i]:
                continue
            listed[length] = row[j]
            length += 1
            identity = gallery_ids[j]
            if first[identity] < 0 or row[j] < row[first[identity]]:
                first[identity] = j
            if identity == query_ids[i]:
                hits[matches] = j
                matches += 1
        if matches == 0:
            continue
        hits = hits[:matches]
        hits = hits[np.argsort(row[hits], kind="mergesort")]  # stable: equal distances stay in gallery order
        for n in range(matches):
            image_ranks[i, n] = _rank(hits[n], row, listed[:length], gallery_locations, query_locations[i])
        identity_rank[i] = 1
        for image in first:
            if image >= 0 and (row[image] < row[hits[0]] or (row[image] == row[hits[0]] and image < hits[0])):
                identity_rank[i] += 1
    return identity_rank, image_ranks


@njit
def _rank(image, row, listed, locations, query_location):
    """Rank of a gallery image, counted from 1, without sorting.

    Args:
        row: (images,) distances of one query.
        listed: (ranked images,) those of the images from other locations than the query's.
        locations: (images,)
    """
    distance = row[image]
    rank, equal = np.int32(1), np.int32(0)  # 32 bit, like float32 distances, for vector instructions
    for j in range(len(listed)):
        rank += np.int32(listed[j] < distance)
        equal += np.int32(listed[j] == distance)
    if equal > 1:  # rare
        for j in range(image):
            rank += np.int32(locations[j] != query_location and row[j] == distance)
    return rank
