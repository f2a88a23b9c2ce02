"""Plain NumPy loops for scoring, query by query and row by row: reference of the tests, baseline of the benchmarks.

They compute in the precision of their arguments.
"""

import numpy as np


def loop_mser(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, lam: float, neighbours: str) -> np.ndarray:
    """MSER, see :mod:`utils.rerank`: (Sq, Nq, D), (Sg, Ng, D) -> (Nq, Ng)."""
    rows = np.concatenate([*query, *gallery])
    queries = len(query) * query.shape[1]
    candidates = queries if neighbours == "queries" else len(rows)
    distance = 2 - 2 * rows @ rows.T
    relative = distance / distance.max(axis=1, keepdims=True)
    ranked = np.argsort(distance[:, :candidates], axis=1, kind="stable")

    weights = np.zeros((len(rows), candidates), dtype=rows.dtype)
    for i in range(candidates):
        reciprocal = [j for j in ranked[i, : k1 + 1] if i in ranked[j, : k1 + 1]]
        if reciprocal:
            weights[i, reciprocal] = np.exp(-relative[i, reciprocal])
            weights[i] /= weights[i].sum()
    if k2 != 1:
        weights = np.stack([weights[nearest[:k2]].mean(axis=0) for nearest in ranked])

    final = np.empty((queries, len(rows) - queries), dtype=rows.dtype)
    for i in range(queries):
        shared = np.flatnonzero(weights[i])  # the minimum with 0 is 0
        sigma = np.minimum(weights[i, shared], weights[queries:, shared]).sum(axis=1)
        final[i] = (1 - lam) * (1 - sigma / (2 - sigma)) + lam * relative[i, queries:]
    return final.reshape(*query.shape[:2], *gallery.shape[:2]).mean(axis=(0, 2))


def loop_metrics(
    distance: np.ndarray,
    query_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_ids: np.ndarray,
    gallery_cameras: np.ndarray,
    *,
    exclude: str = "camera",
) -> tuple[np.ndarray, float, float]:
    """CMC over identities, mAP and mINP, see :func:`utils.metrics.retrieval_metrics`."""
    curves, precisions, inverse_penalties = [], [], []
    for row, identity, camera in zip(distance, query_ids, query_cameras, strict=True):
        excluded = gallery_cameras == camera
        if exclude == "identity_and_camera":
            excluded = excluded & (gallery_ids == identity)
        ranked = np.argsort(row, kind="stable")
        ranked = gallery_ids[ranked[~excluded[ranked]]]
        if identity not in ranked:
            continue
        identities = list(dict.fromkeys(ranked.tolist()))  # each identity is ranked at its first image
        curves.append(np.arange(len(np.unique(gallery_ids))) >= identities.index(identity))
        ranks = np.flatnonzero(ranked == identity) + 1
        precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
        inverse_penalties.append(len(ranks) / ranks[-1])
    return np.mean(curves, axis=0), float(np.mean(precisions)), float(np.mean(inverse_penalties))
