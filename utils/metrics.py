"""Retrieval metrics: CMC over identities, mean average precision, mean inverse negative penalty."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.kernels import kernels_for
from utils.tensors import as_tensor


class Metrics(NamedTuple):
    """Means over the queries that have a match; fractions, not percentages."""

    cmc: np.ndarray  # (gallery identities,) share of queries whose match is among the first k identities
    mAP: float
    mINP: float


def retrieval_metrics(
    distance: np.ndarray | Tensor,
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
        distance: (queries, gallery), smaller is more alike; ranked where it is, on the CPU or a GPU.
        query_ids, gallery_ids: identities, (queries,) and (gallery,).
        query_cameras, gallery_cameras: cameras, likewise.

    Raises:
        ValueError: shapes that do not belong together, a distance that is not a number, or no query with a match.
    """
    distance = as_tensor(distance if isinstance(distance, Tensor) else np.asarray(distance))
    if distance.dtype != torch.float32:
        distance = distance.double()
    query_ids, query_cameras = np.asarray(query_ids), np.asarray(query_cameras)
    gallery_ids, gallery_cameras = np.asarray(gallery_ids), np.asarray(gallery_cameras)
    shape = tuple(distance.shape)
    if not (
        shape == (len(query_ids), len(gallery_ids))
        and query_ids.shape == query_cameras.shape
        and gallery_ids.shape == gallery_cameras.shape
    ):
        raise ValueError(f"a distance of shape {shape} does not fit the given identities and cameras")
    if 0 in shape:
        raise ValueError("no query has a match in the gallery")
    if distance.min().isnan():
        raise ValueError("a distance is not a number")

    identities, gallery_numbers = np.unique(gallery_ids, return_inverse=True)
    query_numbers = np.searchsorted(identities, query_ids).clip(max=len(identities) - 1)
    query_numbers = np.where(identities[query_numbers] == query_ids, query_numbers, -1)
    labels = (query_numbers, query_cameras, gallery_numbers, gallery_cameras)
    figures = kernels_for(distance.device).query_figures(
        distance, *(as_tensor(values).to(distance.device) for values in labels), len(identities)
    )
    place, length, precision, penalty = (values.cpu().numpy() for values in figures)
    scored = place >= 0
    if not scored.any():
        raise ValueError("no query has a match in the gallery")
    # a query's curve is 1 from its place up to the last identity that it ranks
    begun, ended = (np.bincount(at[scored], minlength=len(identities) + 1).cumsum() for at in (place, length))
    return Metrics(
        cmc=(begun - ended)[: len(identities)] / scored.sum(),
        mAP=float(precision[scored].mean()),
        mINP=float(penalty[scored].mean()),
    )
