"""The straightforward versions of scoring that the fast one is measured against: query by query, row by row."""

import numpy as np


def loop_mser(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, lam: float) -> np.ndarray:
    """MSER with queries as neighbours: (Nq, D), (Sg, Ng, D) -> (Nq, Ng); dense weights and an inverted index."""
    rows = np.concatenate([query, *gallery])
    count = len(query)
    distance = 2 - 2 * rows @ rows.T
    relative = distance / distance.max(axis=1, keepdims=True)
    ranked = np.argsort(distance[:, :count], axis=1)
    weights = np.zeros((len(rows), count), dtype=np.float32)
    for i in range(count):
        forward = ranked[i, : k1 + 1]
        backward = ranked[forward, : k1 + 1]
        mutual = forward[(backward == i).any(axis=1)]
        weight = np.exp(-relative[i, mutual])
        weights[i, mutual] = weight / weight.sum()
    weights = np.stack([weights[ranked[i, :k2]].mean(axis=0) for i in range(len(rows))])
    holders = [np.flatnonzero(weights[count:, c]) for c in range(count)]
    jaccard = np.empty((count, len(rows) - count), dtype=np.float32)
    for i in range(count):
        shared = np.zeros(len(rows) - count, dtype=np.float32)
        for c in np.flatnonzero(weights[i]):
            shared[holders[c]] += np.minimum(weights[i, c], weights[count + holders[c], c])
        jaccard[i] = 1 - shared / (2 - shared)
    final = (1 - lam) * jaccard + lam * relative[:count, count:]
    return final.reshape(count, len(gallery), -1).mean(axis=1)


def loop_metrics(distance, query_ids, query_places, gallery_ids, gallery_places) -> tuple[np.ndarray, float, float]:
    """CMC over identities, mAP and mINP, one query after the other."""
    identities = len(np.unique(gallery_ids))
    curves, precisions, penalties = [], [], []
    for row, identity, place in zip(distance, query_ids, query_places, strict=True):
        order = np.argsort(row, kind="stable")
        order = order[gallery_places[order] != place]
        hits = gallery_ids[order] == identity
        if not hits.any():
            continue
        _, first = np.unique(gallery_ids[order], return_index=True)
        once = gallery_ids[order][np.sort(first)]
        curve = np.zeros(identities)
        curve[: len(once)] = (once == identity).cumsum()
        ranks = np.flatnonzero(hits) + 1
        curves.append(curve)
        precisions.append((np.arange(1, len(ranks) + 1) / ranks).mean())
        penalties.append(len(ranks) / ranks[-1])
    return np.mean(curves, axis=0), float(np.mean(precisions)), float(np.mean(penalties))
