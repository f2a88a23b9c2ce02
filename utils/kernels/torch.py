"""The inner loops of scoring in torch: for tensors of any device."""

import torch
from torch import Tensor

from utils.tensors import blocks

UNIT = 2.0**-30  # of weights that are added up
PAIRS = 2**22  # of weights that are compared at a time
AT_ONCE = 16  # tensors as large as the distances that ranking them needs


def smallest(values: Tensor, count: int) -> Tensor:
    """Positions of each row's ``count`` smallest values, ascending, equals in order: (n, m) -> (n, count) int64."""
    if not count:
        return torch.empty((len(values), 0), dtype=torch.int64, device=values.device)
    return values.sort(dim=1, stable=True).indices[:, :count]


def row_maxima(values: Tensor, columns: Tensor) -> Tensor:
    """Largest of each row's values at ``columns``: (n, m) -> (n,)."""
    return values.index_select(1, columns).amax(dim=1)


def jaccard_blend(
    near: Tensor,
    weight: Tensor,
    query_members: Tensor,
    members: Tensor,
    mean_distance: Tensor,
    columns: Tensor,
    scale: Tensor,
) -> Tensor:
    """Jaccard distance, averaged over the gallery's spectra and blended with the original distance.

    The weights V of a query or a gallery row are the mean of those of some candidates, its members. With
    sigma_ij = sum over c of min(V_ic, V_jc), the Jaccard distance is 1 - sigma / (2 - sigma).

    Args:
        near: (candidates, k) positions of the candidates that each candidate has weights for, each once.
        weight: (candidates, k) of them, not negative.
        query_members: (queries, m) positions of candidates.
        members: (images, spectra, n), likewise, of the gallery; with n = 0 it has no weights.
        mean_distance: (queries, pool).
        columns: (images,) where in the pool they are.
        scale: (queries, 2) factors of the Jaccard and of the mean distance.

    Returns:
        (queries, images) float32.
    """
    query = _row_means(query_members, near, weight)
    images, spectra, _ = members.shape
    jaccard = torch.empty((len(query), images), device=query.device)
    for block in blocks(images, spectra * len(near)):
        gallery = _row_means(members[block].flatten(0, 1), near, weight)
        sigma = _sums_of_minima(query, gallery).unflatten(1, (-1, spectra))
        jaccard[:, block] = 1 - (sigma / (2 - sigma)).mean(dim=2)
    return scale[:, :1] * jaccard + scale[:, 1:] * mean_distance.index_select(1, columns)


def _row_means(members: Tensor, near: Tensor, weight: Tensor) -> Tensor:
    """Mean weights of the candidates listed in each row of ``members``: (rows, m) -> (rows, candidates)."""
    result = weight.new_zeros((len(members), len(near)))
    for member in members.T:  # one by one: a candidate comes once in each, so that the order of the sums is fixed
        result.scatter_add_(1, near[member], weight[member])
    return result / max(1, members.shape[1])


def _sums_of_minima(a: Tensor, b: Tensor) -> Tensor:
    """Sums over c of min(a_ic, b_jc), of weights with sums up to 1 per row: (n, c), (m, c) -> (n, m).

    Only what is not zero on both sides is looked at: each entry of a meets the entries of b in its column. Weights are
    counted in whole units, whose sums, unlike those of floating point, are the same in any order.
    """
    row, column = a.nonzero().unbind(dim=1)
    own = (a[row, column] / UNIT).round().int()
    other_column, other_row = b.T.nonzero().unbind(dim=1)  # column by column
    other = (b[other_row, other_column] / UNIT).round().int()
    length = other_column.bincount(minlength=b.shape[1])  # of each column
    start = (length.cumsum(dim=0) - length)[column]  # of its entries
    length = length[column]  # the entries that each of a's meets
    met = length.cumsum(dim=0)

    sums = torch.zeros(len(a) * len(b), dtype=torch.int32, device=a.device)
    total = int(met[-1]) if len(met) else 0
    first = torch.searchsorted(met, torch.arange(0, total, PAIRS, device=a.device), right=True)  # entry of each part
    entries = [*first.cpu().tolist(), len(met)]
    pairs = [*(met - length)[first].cpu().tolist(), total]
    for part, low, high in zip(map(slice, entries, entries[1:]), pairs, pairs[1:], strict=False):
        pair = torch.repeat_interleave(length[part], output_size=high - low)  # which of a's entries
        place = (start[part] - (met[part] - length[part] - low)).index_select(0, pair)
        place += torch.arange(len(pair), device=a.device)
        minima = torch.minimum(own[part].index_select(0, pair), other.index_select(0, place))
        target = (row[part] * len(b)).index_select(0, pair)
        target += other_row.index_select(0, place)
        sums.scatter_add_(0, target, minima)
    return sums.unflatten(0, (len(a), len(b))) * UNIT


def query_figures(
    distance: Tensor,
    query_ids: Tensor,
    query_cameras: Tensor,
    gallery_ids: Tensor,
    gallery_cameras: Tensor,
    identities: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Figures of each query against the gallery images of other cameras, equal distances in gallery order.

    Args:
        distance: (queries, gallery), neither empty.
        query_ids, gallery_ids: identities as numbers 0 ... ``identities`` - 1, or -1 for a query of none of them.

    Returns:
        ``place``, how many identities rank before the query's own one, -1 without a match; ``length``, how many
        identities are ranked; average precision; inverse negative penalty; each (queries,).
    """
    parts = [
        _figures(distance[rows], query_ids[rows], query_cameras[rows], gallery_ids, gallery_cameras, identities)
        for rows in blocks(len(distance), AT_ONCE * distance.shape[1])
    ]
    place, length, precision, penalty = map(torch.cat, zip(*parts, strict=True))
    return place, length, precision, penalty


def _figures(
    distance: Tensor,
    query_ids: Tensor,
    query_cameras: Tensor,
    gallery_ids: Tensor,
    gallery_cameras: Tensor,
    identities: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    order = distance.sort(dim=1, stable=True).indices
    valid = gallery_cameras[order] != query_cameras[:, None]
    ranked_ids = gallery_ids[order]
    hit = valid & (ranked_ids == query_ids[:, None])
    rank, ordinal = valid.cumsum(dim=1), hit.cumsum(dim=1)
    matches = ordinal[:, -1]
    precision = (hit * ordinal.double() / rank.clamp(min=1)).sum(dim=1) / matches.clamp(min=1)
    penalty = matches.double() / (hit * rank).amax(dim=1).clamp(min=1)

    never = order.shape[1]
    position = torch.where(valid, torch.arange(never, device=order.device), never)
    first = torch.full((len(order), identities), never, device=order.device)  # place of each identity's first image
    first.scatter_reduce_(1, ranked_ids, position, "amin")
    own = first.gather(1, query_ids.clamp(min=0)[:, None])
    place = torch.where(matches > 0, (first < own).sum(dim=1), -1)
    return place, (first < never).sum(dim=1), precision, penalty
