"""Retrieval metrics: CMC over identities, mean average precision, mean inverse negative penalty."""

from typing import NamedTuple

import numpy as np


class Metrics(NamedTuple):
    """Means over the queries that have a match; fractions, not percentages."""

    cmc: np.ndarray  # (gallery identities,) share of queries whose match is among the first k identities
    mAP: float
    mINP: float


def retrieval_metrics(
    distance: np.ndarray,
    query_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_ids: np.ndarray,
    gallery_cameras: np.ndarray,
) -> Metrics:
    """Score a ranking by distance.

    Gallery images of the query's own camera are ignored; a query without a match left is skipped. CMC counts
    identities: the ranked list is reduced to each identity's first appearance, and a curve that ends before the number
    of gallery identities is padded with zeros. AP is the mean over matches of ordinal / rank, INP is matches / rank of
    the last match. Equal distances rank in gallery order. Where cameras share a place, or share nothing although
    their numbers are equal, pass the numbers of their locations instead.

    Args:
        distance: (queries, gallery), smaller is more alike.
        query_ids, gallery_ids: identities, (queries,) and (gallery,).
        query_cameras, gallery_cameras: cameras, likewise.

    Raises:
        ValueError: shapes that do not belong together, or no query with a match.
    """
    distance = np.asarray(distance)
    query_ids, query_cameras = np.asarray(query_ids), np.asarray(query_cameras)
    gallery_ids, gallery_cameras = np.asarray(gallery_ids), np.asarray(gallery_cameras)
    if not (
        distance.shape == (len(query_ids), len(gallery_ids))
        and query_ids.shape == query_cameras.shape
        and gallery_ids.shape == gallery_cameras.shape
    ):
        raise ValueError(f"a distance of shape {distance.shape} does not fit the given identities and cameras")

    valid = gallery_cameras[None, :] != query_cameras[:, None]
    scored = (valid & (gallery_ids[None, :] == query_ids[:, None])).any(axis=1)
    if not scored.any():
        raise ValueError("no query has a match in the gallery")
    distance, query_ids, valid = distance[scored], query_ids[scored], valid[scored]

    order = np.argsort(distance, axis=1, kind="stable")
    valid = np.take_along_axis(valid, order, axis=1)
    hit = valid & (gallery_ids[order] == query_ids[:, None])
    rank = valid.cumsum(axis=1)
    ordinal = hit.cumsum(axis=1)
    matches = ordinal[:, -1]
    precision = np.divide(ordinal, rank, where=hit, out=np.zeros(hit.shape))
    last_rank = np.where(hit, rank, 0).max(axis=1)
    return Metrics(
        cmc=_identity_cmc(order, valid, query_ids, gallery_ids),
        mAP=float((precision.sum(axis=1) / matches).mean()),
        mINP=float((matches / last_rank).mean()),
    )


def _identity_cmc(order: np.ndarray, valid: np.ndarray, query_ids: np.ndarray, gallery_ids: np.ndarray) -> np.ndarray:
    identities, first_of_identity = np.unique(np.sort(gallery_ids), return_index=True)
    never = order.shape[1]
    position = np.empty_like(order)  # (queries, gallery): place of each gallery image in the ranked list
    np.put_along_axis(position, order, np.where(valid, np.arange(never), never), axis=1)
    by_identity = position[:, np.argsort(gallery_ids, kind="stable")]
    first = np.minimum.reduceat(by_identity, first_of_identity, axis=1)  # (queries, identities)
    own = np.take_along_axis(first, np.searchsorted(identities, query_ids)[:, None], axis=1)
    place = (first < own).sum(axis=1)  # identities ranked before the match
    length = (first < never).sum(axis=1)
    k = np.arange(len(identities))
    return ((k >= place[:, None]) & (k < length[:, None])).mean(axis=0)
