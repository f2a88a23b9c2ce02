"""Retrieval metrics: cumulative matching characteristics (CMC) over identities, mean average precision (mAP) and mean
inverse negative penalty (mINP)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.kernels import kernels_for
from utils.tensors import as_tensor


class Metrics(NamedTuple):
    """Means over the queries that have a match; fractions, not percentages."""

    cmc: np.ndarray  # (gallery identities,) share of queries whose identity is among the first k
    mAP: float
    mINP: float


def retrieval_metrics(
    distance: np.ndarray | Tensor,
    query_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_ids: np.ndarray,
    gallery_cameras: np.ndarray,
) -> Metrics:
    """CMC, mAP and mINP of a ranking by distance.

    Gallery images from the query's own camera are ignored, and queries without a match left are skipped. To ignore
    images by location, pass locations instead of cameras. Equal distances are ranked in gallery order.

    Args:
        distance: (queries, gallery), smaller is more similar. A tensor is ranked on its device.
        query_ids, query_cameras: (queries,)
        gallery_ids, gallery_cameras: (gallery,)

    Raises:
        ValueError: the shapes do not fit, a distance is NaN, or no query has a match.
    """
    distance = as_tensor(distance if isinstance(distance, Tensor) else np.asarray(distance))
    if distance.dtype != torch.float32:
        distance = distance.double()
    labels = [np.asarray(values) for values in (query_ids, query_cameras, gallery_ids, gallery_cameras)]
    queries, images = len(labels[0]), len(labels[2])
    if [distance.shape, *(x.shape for x in labels)] != [(queries, images), *2 * [(queries,)], *2 * [(images,)]]:
        raise ValueError(f"distances of shape {tuple(distance.shape)} do not fit the given identities and cameras")
    if 0 in distance.shape:
        raise ValueError("no query has a match in the gallery")
    if distance.min().isnan():
        raise ValueError("a distance is NaN")

    labels[0], labels[2] = _numbered(labels[0], labels[2])
    ranks = kernels_for(distance.device).rank_matches(distance, *(as_tensor(x).to(distance.device) for x in labels))
    identity_rank, image_ranks = (values.cpu().numpy() for values in ranks)
    matched = identity_rank > 0
    if not matched.any():
        raise ValueError("no query has a match in the gallery")
    return Metrics(
        cmc=cmc(identity_rank[matched], len(np.unique(gallery_ids))),
        mAP=float(average_precision(image_ranks[matched]).mean()),
        mINP=float(inverse_negative_penalty(image_ranks[matched]).mean()),
    )


def _numbered(query_ids: np.ndarray, gallery_ids: np.ndarray) -> list[np.ndarray]:
    """Identities as numbers from 0 on, the same on both sides."""
    _, numbers = np.unique(np.concatenate([query_ids, gallery_ids]), return_inverse=True)
    return np.split(numbers, [len(query_ids)])


def cmc(identity_rank: np.ndarray, identities: int) -> np.ndarray:
    """Share of queries whose identity has at most rank k among the identities: (queries,) -> (identities,)."""
    return np.bincount(identity_rank - 1, minlength=identities).cumsum() / len(identity_rank)


def average_precision(ranks: np.ndarray) -> np.ndarray:
    """Mean over matches of ordinal / rank: (queries, most matches), zeros behind the last match -> (queries,)."""
    hits, ordinal = ranks > 0, np.arange(1, ranks.shape[1] + 1)
    return (hits * ordinal / ranks.clip(min=1)).sum(axis=1) / hits.sum(axis=1)


def inverse_negative_penalty(ranks: np.ndarray) -> np.ndarray:
    """Number of matches / rank of the last one: (queries, most matches), zeros behind the last match -> (queries,)."""
    return (ranks > 0).sum(axis=1) / ranks.max(axis=1)
