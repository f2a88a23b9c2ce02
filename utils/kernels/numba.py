"""The inner loops of scoring, compiled by numba.

Same functions, arguments and results as :mod:`utils.kernels.torch`, which documents them; tensors of the CPU alone.
"""

import numpy as np
import torch
from numba import prange
from torch import Tensor

from utils.kernels.compiled import compiled

LANES = 128  # gallery rows that are compared with a query side by side, by vector instructions
TOGETHER = 4  # candidates whose minima are added up before the sum is stored


def smallest(values: Tensor, count: int) -> Tensor:
    assert 0 <= count <= values.shape[1]  # compiled code checks no bounds
    if not count:
        return torch.empty((len(values), 0), dtype=torch.int64)
    return torch.from_numpy(_smallest(values.numpy(), count))


@compiled
def _smallest(values, count):
    rows, columns = values.shape
    result = np.empty((rows, count), dtype=np.int64)
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


def row_maxima(values: Tensor, columns: Tensor) -> Tensor:
    assert len(columns)
    return torch.from_numpy(_row_maxima(values.numpy(), columns.numpy()))


@compiled
def _row_maxima(values, columns):
    result = np.empty(len(values), dtype=values.dtype)
    for i in prange(len(values)):
        largest = values[i, columns[0]]
        for column in columns:
            largest = max(largest, values[i, column])
        result[i] = largest
    return result


def jaccard_blend(
    near: Tensor,
    weight: Tensor,
    query_members: Tensor,
    members: Tensor,
    mean_distance: Tensor,
    columns: Tensor,
    scale: Tensor,
) -> Tensor:
    lists = near.numpy().astype(np.int32), weight.numpy()  # narrow, so that they stay in the cache
    gallery = members.flatten(0, 1).numpy(), members.shape[1]
    more = (values.numpy() for values in (mean_distance, columns, scale))
    return torch.from_numpy(_jaccard_blend(*_row_means(query_members.numpy(), *lists), *lists, *gallery, *more))


@compiled
def _jaccard_blend(
    query_weight, query_column, query_start, near, weight, members, spectra, mean_distance, columns, scale
):
    queries, images = len(mean_distance), len(columns)
    candidates, neighbours = near.shape
    width = np.float32(members.shape[1])
    step = max(1, LANES // spectra)  # images of a tile
    result = np.ones((queries, images), dtype=np.float32)
    for tile in prange((images + step - 1) // step):
        # The weights of the tile's rows, by those candidates that any of them has: gallery images side by side have
        # most of theirs in common, and what they have stays in the cache while all queries pass by.
        low, high = tile * step, min(images, (tile + 1) * step)
        slot = np.full(candidates, -1, dtype=np.int32)
        slots = 0
        for row in range(low * spectra, high * spectra):
            for member in members[row]:
                for entry in range(neighbours):
                    if weight[member, entry] > 0 and slot[near[member, entry]] < 0:
                        slot[near[member, entry]] = slots
                        slots += 1
        tile_weight = np.zeros((slots, LANES), dtype=np.float32)
        for row in range(low * spectra, high * spectra):
            for member in members[row]:
                for entry in range(neighbours):
                    if weight[member, entry] > 0:
                        tile_weight[slot[near[member, entry]], row - low * spectra] += weight[member, entry] / width

        slots_of_query = np.empty(candidates + TOGETHER, dtype=np.int32)
        own = np.empty(candidates + TOGETHER, dtype=np.float32)
        sigma = np.empty(LANES, dtype=np.float32)
        for i in range(queries):
            shared = 0
            for entry in range(query_start[i], query_start[i + 1]):
                place = slot[query_column[entry]]
                if place >= 0:
                    slots_of_query[shared], own[shared] = place, query_weight[entry]
                    shared += 1
            if shared == 0:  # most tiles hold nobody like the query
                continue
            slots_of_query[shared : shared + TOGETHER] = 0
            own[shared : shared + TOGETHER] = 0  # the minimum with nothing is nothing
            sigma[:] = 0
            for k in range(0, shared, TOGETHER):
                a, b, c, d = slots_of_query[k], slots_of_query[k + 1], slots_of_query[k + 2], slots_of_query[k + 3]
                own_a, own_b, own_c, own_d = own[k], own[k + 1], own[k + 2], own[k + 3]
                for lane in range(LANES):
                    sigma[lane] += (
                        min(tile_weight[a, lane], own_a)
                        + min(tile_weight[b, lane], own_b)
                        + min(tile_weight[c, lane], own_c)
                        + min(tile_weight[d, lane], own_d)
                    )
            for j in range(low, high):
                jaccard = np.float32(spectra)
                for lane in range((j - low) * spectra, (j - low + 1) * spectra):
                    jaccard -= sigma[lane] / (np.float32(2) - sigma[lane])
                result[i, j] = jaccard / spectra
    for i in prange(queries):  # not above: going down the rows of a tile would miss the cache at every step
        for j in range(images):
            result[i, j] = scale[i, 0] * result[i, j] + scale[i, 1] * mean_distance[i, columns[j]]
    return result


@compiled
def _row_means(members, near, weight):
    """Mean weights of the candidates listed in each row, in the order of the rows: (weights, their candidates), and
    where each row's begin and the last one's end."""
    rows, width = members.shape
    candidates, neighbours = near.shape
    start = np.zeros(rows + 1, dtype=np.int64)
    for i in prange(rows):
        seen = np.zeros(candidates, dtype=np.bool_)
        for member in members[i]:
            for entry in range(neighbours):
                if weight[member, entry] > 0:
                    start[i + 1] += not seen[near[member, entry]]
                    seen[near[member, entry]] = True
    for i in range(rows):
        start[i + 1] += start[i]
    column = np.empty(start[rows], dtype=np.int32)
    mean = np.zeros(start[rows], dtype=np.float32)
    for i in prange(rows):
        place = np.full(candidates, -1, dtype=np.int64)
        following = start[i]
        for member in members[i]:
            for entry in range(neighbours):
                if weight[member, entry] > 0:
                    candidate = near[member, entry]
                    if place[candidate] < 0:
                        place[candidate] = following
                        column[following] = candidate
                        following += 1
                    mean[place[candidate]] += weight[member, entry] / np.float32(width)
    return mean, column, start


def query_figures(
    distance: Tensor,
    query_ids: Tensor,
    query_cameras: Tensor,
    gallery_ids: Tensor,
    gallery_cameras: Tensor,
    identities: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arrays = (values.numpy() for values in (distance, query_ids, query_cameras, gallery_ids, gallery_cameras))
    place, length, precision, penalty = map(torch.from_numpy, _query_figures(*arrays, identities))
    return place, length, precision, penalty


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
        others = np.empty(images, dtype=row.dtype)  # distances of the images that are ranked
        hits = np.empty(images, dtype=np.int64)
        ranked = matches = 0
        for j in range(images):
            if gallery_cameras[j] == query_cameras[i]:
                continue
            others[ranked] = row[j]
            ranked += 1
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
        for k in range(matches):
            hit = row[hits[k]]
            rank, equals = np.int32(1), np.int32(0)  # as wide as the distances, so that they are counted side by side
            for j in range(ranked):
                rank += np.int32(others[j] < hit)
                equals += np.int32(others[j] == hit)
            if equals > 1:  # rare: those that stand before it in the gallery rank before it
                for j in range(hits[k]):
                    rank += np.int32(gallery_cameras[j] != query_cameras[i] and row[j] == hit)
            precision[i] += (k + 1) / rank
            penalty[i] = (k + 1) / rank
        precision[i] /= matches

        own = hits[0]
        before = 0
        for identity in range(identities):
            nearest = first[identity]
            if nearest >= 0 and (row[nearest] < row[own] or (row[nearest] == row[own] and nearest < own)):
                before += 1
        place[i] = before
    return place, length, precision, penalty
