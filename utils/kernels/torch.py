"""The inner loops of scoring in torch, for tensors on any device."""

from typing import NamedTuple

import torch
from torch import Tensor

from utils.tensors import blocks

WEIGHT_UNIT = 2.0**-30  # weights are added up as whole multiples of it
PAIRS = 2**22  # pairs of weights compared at a time
RANKING_TENSORS = 16  # ranking needs memory for about so many tensors of the distances' size


class Ranks(NamedTuple):
    """Where the matches of each query stand in its ranked list, counted from 1; 0 stands for no match."""

    identity: Tensor  # (queries,) rank of the query's identity among the identities, each at its first image
    images: Tensor  # (queries, most matches) ranks of the matching images, ascending, then zeros


def smallest(values: Tensor, count: int) -> Tensor:
    """Positions of each row's ``count`` smallest values, ascending, equal ones in order: (n, m) -> (n, count) int64."""
    return values.sort(dim=1, stable=True).indices[:, :count]


def jaccard(neighbours: Tensor, weights: Tensor, query_members: Tensor, gallery_members: Tensor) -> Tensor:
    """Jaccard distances from k-reciprocal weights, averaged over the gallery's spectra.

    The weights V of a row are the mean of its members' weights. With sigma_ij = sum over c of min(V_ic, V_jc), the
    Jaccard distance is 1 - sigma_ij / (2 - sigma_ij).

    Args:
        neighbours: (candidates, k) positions of candidates, each at most once in a row.
        weights: (candidates, k) their weights, at least 0, with a sum of at most 1 in each row.
        query_members: (query rows, m) positions of candidates.
        gallery_members: (images, spectra, n) positions of candidates; with n = 0 all weights of the gallery are 0.

    Returns:
        (query rows, images) float32.
    """
    query_V = _mean_weights(query_members, neighbours, weights)
    images, spectra, _ = gallery_members.shape
    result = torch.empty((len(query_V), images), device=query_V.device)
    for block in blocks(images, spectra * len(neighbours)):
        gallery_V = _mean_weights(gallery_members[block].flatten(0, 1), neighbours, weights)
        sigma = _sums_of_minima(query_V, gallery_V).unflatten(1, (-1, spectra))
        result[:, block] = 1 - (sigma / (2 - sigma)).mean(dim=2)
    return result


def _mean_weights(members: Tensor, neighbours: Tensor, weights: Tensor) -> Tensor:
    """Dense mean of the members' weights: (rows, m) -> (rows, candidates)."""
    result = weights.new_zeros((len(members), len(neighbours)))
    for member in members.T:  # one at a time: no candidate comes twice, so the order of the sums is always the same
        result.scatter_add_(1, neighbours[member], weights[member])
    return result / max(1, members.shape[1])


def _sums_of_minima(a: Tensor, b: Tensor) -> Tensor:
    """Sums over c of min(a_ic, b_jc), for weights with a sum of at most 1 in each row: (n, c), (m, c) -> (n, m).

    Only pairs of non-zero entries are compared: each entry of a with the entries of b in its column. The minima are
    added up as integers: unlike floats, their sum is the same in any order.
    """
    row, column = a.nonzero().unbind(dim=1)
    a_units = (a[row, column] / WEIGHT_UNIT).round().int()
    b_column, b_row = b.T.nonzero().unbind(dim=1)  # ordered by column
    b_units = (b[b_row, b_column] / WEIGHT_UNIT).round().int()
    column_length = b_column.bincount(minlength=b.shape[1])
    start = (column_length.cumsum(dim=0) - column_length)[column]  # of each entry of a: where its column of b begins
    length = column_length[column]
    pairs_until = length.cumsum(dim=0)

    sums = torch.zeros(len(a) * len(b), dtype=torch.int32, device=a.device)
    total = int(pairs_until[-1]) if len(pairs_until) else 0
    first = torch.searchsorted(pairs_until, torch.arange(0, total, PAIRS, device=a.device), right=True)
    # the entries of a are cut into parts that have about PAIRS pairs each
    entry_bounds = [*first.cpu().tolist(), len(pairs_until)]
    pair_bounds = [*(pairs_until - length)[first].cpu().tolist(), total]
    for part, low, high in zip(map(slice, entry_bounds, entry_bounds[1:]), pair_bounds, pair_bounds[1:], strict=False):
        entry = torch.repeat_interleave(length[part], output_size=high - low)  # of a, for each pair
        other = (start[part] - (pairs_until[part] - length[part] - low)).index_select(0, entry)
        other += torch.arange(len(entry), device=a.device)  # entry of b, for each pair
        minima = torch.minimum(a_units[part].index_select(0, entry), b_units.index_select(0, other))
        target = (row[part] * len(b)).index_select(0, entry)
        target += b_row.index_select(0, other)
        sums.scatter_add_(0, target, minima)
    return sums.unflatten(0, (len(a), len(b))) * WEIGHT_UNIT


def rank_matches(
    distance: Tensor, query_ids: Tensor, query_cameras: Tensor, gallery_ids: Tensor, gallery_cameras: Tensor
) -> Ranks:
    """Rank the gallery images of other cameras than the query's by distance, equal distances in gallery order.

    Args:
        distance: (queries, images), neither of them 0.
        query_ids, gallery_ids: (queries,) and (images,) identities as small numbers from 0 on.
        query_cameras, gallery_cameras: (queries,) and (images,).
    """
    counts = gallery_ids.bincount()  # of each identity
    parts = [
        _rank_matches(distance[rows], query_ids[rows], query_cameras[rows], gallery_ids, gallery_cameras, counts)
        for rows in blocks(len(distance), RANKING_TENSORS * distance.shape[1])
    ]
    return Ranks(*map(torch.cat, zip(*parts, strict=True)))


def _rank_matches(
    distance: Tensor,
    query_ids: Tensor,
    query_cameras: Tensor,
    gallery_ids: Tensor,
    gallery_cameras: Tensor,
    counts: Tensor,
) -> Ranks:
    order = distance.sort(dim=1, stable=True).indices
    ids, listed = gallery_ids[order], gallery_cameras[order] != query_cameras[:, None]
    hits = listed & (ids == query_ids[:, None])
    rank, ordinal = listed.cumsum(dim=1), hits.cumsum(dim=1)

    images = rank.new_zeros((len(rank), int(counts.max()) + 1))
    images.scatter_(1, ordinal.where(hits, 0), rank)  # column 0 takes what is no match

    never = order.shape[1] + 1
    first = rank.new_full((len(rank), len(counts)), never)  # rank of each identity's first image
    first.scatter_reduce_(1, ids, rank.where(listed, never), "amin")
    identity = torch.where(hits.any(dim=1), (first < images[:, 1:2]).sum(dim=1) + 1, 0)
    return Ranks(identity, images[:, 1:])
