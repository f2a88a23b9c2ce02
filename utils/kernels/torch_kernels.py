"""The inner loops of scoring in torch, for tensors on any device."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from utils.tensors import block_factor, blocks

WEIGHT_UNIT = 2.0**-30  # weights are rounded to whole multiples of it before they are added up
PAIRS = 2**22  # pairs of weights that a CPU compares at a time
RANKING_TENSORS = 16  # ranking needs about 16 times the memory of the distances


class Entries(NamedTuple):
    """The non-zero weights of a matrix."""

    row: Tensor  # (entries,) int32
    column: Tensor  # (entries,) int32
    units: Tensor  # (entries,) int32, weights in multiples of WEIGHT_UNIT


class Ranks(NamedTuple):
    """Ranks of the matches of each query, counted from 1; 0 means no match."""

    identity: Tensor  # (queries,) int64, rank of the query's identity; each identity is ranked at its first image
    images: Tensor  # (queries, max matches) int64, ranks of the matching images, ascending, then zeros


def smallest(values: Tensor, count: int) -> Tensor:
    """Positions of the ``count`` smallest values of each row, in ascending order: (n, m) -> (n, count) int64.

    Equal values keep their order.
    """
    return values.sort(dim=1, stable=True).indices[:, :count]


def jaccard(neighbours: Tensor, weights: Tensor, query_members: Tensor, gallery_members: Tensor) -> Tensor:
    """Jaccard distances from k-reciprocal weights, averaged over the gallery's spectra.

    The weights V of a row are the mean of its members' weights. With sigma_ij = sum over c of min(V_ic, V_jc), the
    Jaccard distance is 1 - sigma_ij / (2 - sigma_ij).

    Args:
        neighbours: (candidates, k) int64, positions of candidates, each at most once in a row.
        weights: (candidates, k) float32, weights of these neighbours, at least 0, with a sum of at most 1 in each row.
        query_members: (query rows, m) int64, positions of candidates.
        gallery_members: (images, spectra, n) int64, positions of candidates; with n = 0 all weights of the gallery
            are 0.

    Returns:
        (query rows, images) float32.
    """
    query_V = _entries(_mean_weights(query_members, neighbours, weights))
    queries, (images, spectra, _) = len(query_members), gallery_members.shape
    result = weights.new_empty((queries, images))
    for block in blocks(images, spectra * len(neighbours), weights.device):
        gallery_V = _mean_weights(gallery_members[block].flatten(0, 1), neighbours, weights)
        sigma = _sums_of_minima(query_V, queries, gallery_V).unflatten(1, (-1, spectra))
        result[:, block] = 1 - (sigma / (2 - sigma)).mean(dim=2)
    return result


def _mean_weights(members: Tensor, neighbours: Tensor, weights: Tensor) -> Tensor:
    """Mean of the members' weights, as a dense matrix: (rows, m) -> (rows, candidates)."""
    result = weights.new_zeros((len(members), len(neighbours)))
    for member in members.T:  # one member at a time adds to each entry at most once: sums always have the same order
        result.scatter_add_(1, neighbours[member], weights[member])
    return result / max(1, members.shape[1])


def _entries(matrix: Tensor) -> Entries:
    """The entries of a matrix of weights, row by row."""
    row, column = (positions.int() for positions in matrix.nonzero(as_tuple=True))
    return Entries(row, column, (matrix[row, column] / WEIGHT_UNIT).round().int())


def _sums_of_minima(a: Entries, rows: int, b: Tensor) -> Tensor:
    """Sums over c of min(a_ic, b_jc), for weights with a sum of at most 1 in each row: (rows, c), (m, c) -> (rows, m).

    Only pairs of entries in the same column are compared. For example, a = [[0.2, 0.7]] and b = [[0, 0.5], [0.3, 0.6]]
    have three pairs: a_00 with b_10, and a_01 with b_01 and with b_11. The sums are [[0.5, 0.2 + 0.6]]. They are
    computed with integers: unlike floats, their sum is the same in any order. Positions have 32 bits to save memory.
    """
    # The entries of b column by column: their column is the row of the transposed matrix.
    b_column, b_row, b_units = _entries(b.T)

    # Pairs: an entry of a has as many as its column has entries of b. These are consecutive.
    column_length = b_column.bincount(minlength=b.shape[1])
    column_start = column_length.cumsum(dim=0) - column_length
    length, start = column_length[a.column], column_start[a.column]  # for each entry of a
    pairs_end = length.cumsum(dim=0)  # number the pairs: those of an entry of a are pairs_start to pairs_end
    pairs_start = pairs_end - length

    # Parts of the entries of a, with about PAIRS pairs each: part p begins at the entry of pair p * PAIRS.
    total = int(pairs_end[-1]) if len(pairs_end) else 0
    size = PAIRS * block_factor(b.device)
    first = torch.searchsorted(pairs_end, torch.arange(0, total, size, device=b.device), right=True)
    entry_bounds = [*first.cpu().tolist(), len(pairs_end)]
    pair_bounds = [*pairs_start[first].cpu().tolist(), total]

    sums = torch.zeros(rows * len(b), dtype=torch.int32, device=b.device)
    for entries, (low, high) in zip(pairwise(entry_bounds), pairwise(pair_bounds), strict=True):
        part = slice(*entries)
        # for each pair: its entry of a, in part
        in_a = torch.repeat_interleave(length[part].int(), output_size=high - low)
        # for each pair: its entry of b
        in_b = (start[part] - (pairs_start[part] - low)).int().index_select(0, in_a)
        in_b += torch.arange(len(in_a), dtype=torch.int32, device=b.device)
        minima = torch.minimum(a.units[part].index_select(0, in_a), b_units.index_select(0, in_b))
        target = (a.row[part] * len(b)).index_select(0, in_a)
        target += b_row.index_select(0, in_b)
        sums.index_add_(0, target, minima)
    return sums.unflatten(0, (rows, len(b))) * WEIGHT_UNIT


def rank_matches(
    distance: Tensor, query_ids: Tensor, query_locations: Tensor, gallery_ids: Tensor, gallery_locations: Tensor
) -> Ranks:
    """Rank the gallery images from other locations than the query's by distance, equal distances in gallery order.

    Args:
        distance: (queries, images) float32 or float64, at least one of each.
        query_ids, gallery_ids: (queries,) and (images,) int64, identities as 0, 1, ...
        query_locations, gallery_locations: (queries,) and (images,).
    """
    counts = gallery_ids.bincount()  # gallery images of each identity
    parts = [
        _rank_matches(distance[rows], query_ids[rows], query_locations[rows], gallery_ids, gallery_locations, counts)
        for rows in blocks(len(distance), RANKING_TENSORS * distance.shape[1], distance.device)
    ]
    return Ranks(*map(torch.cat, zip(*parts, strict=True)))


def _rank_matches(
    distance: Tensor,
    query_ids: Tensor,
    query_locations: Tensor,
    gallery_ids: Tensor,
    gallery_locations: Tensor,
    counts: Tensor,
) -> Ranks:
    """Ranks for a block of queries. The matrices (queries, images) are in the order of the distances."""
    order = distance.sort(dim=1, stable=True).indices
    ids, listed = gallery_ids[order], gallery_locations[order] != query_locations[:, None]
    matches = listed & (ids == query_ids[:, None])
    rank, ordinal = (mask.cumsum(dim=1, dtype=torch.int32) for mask in (listed, matches))

    # column 0 receives all other images and is cut off below
    images = rank.new_zeros((len(rank), int(counts.max()) + 1))
    images.scatter_(1, ordinal.where(matches, 0).long(), rank)

    unranked = order.shape[1] + 1  # larger than any rank
    first = rank.new_full((len(rank), len(counts)), unranked)  # rank of the first image of each identity
    first.scatter_reduce_(1, ids, rank.where(listed, unranked), "amin")
    identity = torch.where(matches.any(dim=1), (first < images[:, 1:2]).sum(dim=1) + 1, 0)
    return Ranks(identity, images[:, 1:].long())
