"""Retrieval metrics: cumulative matching characteristics (CMC) over identities, mean average precision (mAP) and mean
inverse negative penalty (mINP)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.kernels import kernels_for
from utils.tensors import as_tensor

# Which gallery images of the query's camera are ignored: all, or those of the query's identity.
EXCLUDE = ("camera", "identity_and_camera")


class Metrics(NamedTuple):
    """Means over the queries that have a match; fractions, not percentages."""

    cmc: np.ndarray  # (gallery identities,) share of queries whose identity is among the first k
    mAP: float
    mINP: float


class MatchRanks(NamedTuple):
    """Ranks of the matches of each query, from 1; zeros for queries without a match."""

    identity: np.ndarray  # (queries,) rank of the query's identity among the identities
    images: np.ndarray  # (queries, max matches) ranks of the matching images, ascending, zeros after the last match


def retrieval_metrics(
    distance: np.ndarray | Tensor,
    query_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_ids: np.ndarray,
    gallery_cameras: np.ndarray,
    *,
    exclude: str = "camera",
) -> Metrics:
    """CMC, mAP and mINP of a ranking by distance.

    Gallery images from the query's own camera are ignored; with ``identity_and_camera``, only those of the query's
    identity. Queries without a remaining match are skipped. To ignore images from the query's own location instead,
    pass locations as cameras. Equal distances are ranked in gallery order.

    Args:
        distance: (queries, gallery), smaller is more similar. A tensor is ranked on its device.
        query_ids, query_cameras: (queries,) identities, and cameras or locations.
        gallery_ids, gallery_cameras: (gallery,)
        exclude: a name in ``EXCLUDE``.

    Raises:
        ValueError: the shapes do not fit, a distance is NaN, no query has a match, or ``exclude`` is unknown.
    """
    ranks = match_ranks(distance, query_ids, query_cameras, gallery_ids, gallery_cameras, exclude=exclude)
    matched = ranks.identity > 0
    if not matched.any():
        raise ValueError("no query has a match in the gallery")
    return Metrics(
        cmc=cmc(ranks.identity[matched], len(np.unique(gallery_ids))),
        mAP=float(average_precision(ranks.images[matched]).mean()),
        mINP=float(inverse_negative_penalty(ranks.images[matched]).mean()),
    )


def match_ranks(
    distance: np.ndarray | Tensor,
    query_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_ids: np.ndarray,
    gallery_cameras: np.ndarray,
    *,
    exclude: str = "camera",
) -> MatchRanks:
    """Ranks of the matches of each query; the arguments and errors are those of :func:`retrieval_metrics`."""
    distance = as_tensor(distance if isinstance(distance, Tensor) else np.asarray(distance))
    if distance.dtype != torch.float32:
        distance = distance.double()
    query_ids, query_cameras, gallery_ids, gallery_cameras = (
        np.asarray(values) for values in (query_ids, query_cameras, gallery_ids, gallery_cameras)
    )
    query_shape, gallery_shape = (len(query_ids),), (len(gallery_ids),)
    queries_fit = query_ids.shape == query_cameras.shape == query_shape
    gallery_fits = gallery_ids.shape == gallery_cameras.shape == gallery_shape
    if not (queries_fit and gallery_fits and distance.shape == query_shape + gallery_shape):
        raise ValueError(f"distances of shape {tuple(distance.shape)} do not fit the given identities and cameras")
    if 0 in distance.shape:
        raise ValueError("no query has a match in the gallery")
    if distance.min().isnan():
        raise ValueError("a distance is NaN")

    query_numbers, gallery_numbers = _numbered(query_ids, gallery_ids)
    query_keys, gallery_keys = exclusion_keys(query_ids, query_cameras, gallery_ids, gallery_cameras, exclude)
    labels = (query_numbers, query_keys, gallery_numbers, gallery_keys)
    ranks = kernels_for(distance.device).rank_matches(distance, *(as_tensor(x).to(distance.device) for x in labels))
    return MatchRanks(*(values.cpu().numpy() for values in ranks))


def exclusion_keys(
    query_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_ids: np.ndarray,
    gallery_cameras: np.ndarray,
    exclude: str,
) -> tuple[np.ndarray, np.ndarray]:
    """A key of each query and gallery image: a query ignores the gallery images with its own key.

    Returns:
        (queries,) and (gallery,): the cameras, or a number for each pair of identity and camera.

    Raises:
        ValueError: ``exclude`` is unknown.
    """
    if exclude not in EXCLUDE:
        raise ValueError(f"unknown exclude {exclude!r}; choose from {', '.join(EXCLUDE)}")
    if exclude == "camera":
        return query_cameras, gallery_cameras
    ids, cameras = _numbered(query_ids, gallery_ids), _numbered(query_cameras, gallery_cameras)
    count = 1 + max(int(side.max(initial=0)) for side in cameras)
    query_keys, gallery_keys = (side_ids * count + side for side_ids, side in zip(ids, cameras, strict=True))
    return query_keys, gallery_keys


def _numbered(query_labels: np.ndarray, gallery_labels: np.ndarray) -> list[np.ndarray]:
    """Identities or cameras numbered 0, 1, ..., with the same numbers on both sides."""
    _, numbers = np.unique(np.concatenate([query_labels, gallery_labels]), return_inverse=True)
    return np.split(numbers, [len(query_labels)])


def cmc(identity_rank: np.ndarray, identities: int) -> np.ndarray:
    """Share of queries whose identity has at most rank k among the identities: (queries,) -> (identities,)."""
    return np.bincount(identity_rank - 1, minlength=identities).cumsum() / len(identity_rank)


def average_precision(ranks: np.ndarray) -> np.ndarray:
    """Mean over the matches of ordinal / rank.

    Args:
        ranks: (queries, max matches), see :class:`MatchRanks`; each query has a match.

    Returns:
        (queries,)
    """
    hits, ordinal = ranks > 0, np.arange(1, ranks.shape[1] + 1)
    return (hits * ordinal / ranks.clip(min=1)).sum(axis=1) / hits.sum(axis=1)


def inverse_negative_penalty(ranks: np.ndarray) -> np.ndarray:
    """INP, number of matches / rank of the last match: (queries, max matches) as above -> (queries,)."""
    return (ranks > 0).sum(axis=1) / ranks.max(axis=1)
