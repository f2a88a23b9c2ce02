"""Triplet losses: an anchor should be nearer to its identity than to the others. Modalities play no part.

Distances are Euclidean: d_ij = sqrt(max(|f_i|^2 + |f_j|^2 - 2 f_i f_j, 1e-12)). An anchor is one of its own positives.
Anchors without a negative are left out. If none is left, the loss is 0, with a zero gradient. Shapes depend on the
batch size only, so nothing synchronises with a GPU.
"""

import torch
from torch import Tensor
from torch.nn import functional

from utils.tensors import at_least_float32

TINY = 1e-6  # added to the sums of weights, as released


def batch_hard_triplet(embeddings: Tensor, identities: Tensor, *, margin: float = 0.3) -> Tensor:
    """Mean of max(0, distance to the farthest positive - distance to the nearest negative + margin).

    Source: Hermans et al., *In Defense of the Triplet Loss*, 2017, as in the baseline of AGW.

    Args:
        embeddings: (B, D), not normalised.
        identities: (B,) integers.

    Returns:
        A scalar in the dtype of ``embeddings``, at least float32.
    """
    return masked_batch_hard(embeddings, identities, torch.ones_like(identities, dtype=torch.bool), margin=margin)


def weighted_regularization_triplet(embeddings: Tensor, identities: Tensor, *, exact: bool = False) -> Tensor:
    """Mean of log(1 + exp(p - n)): p is the weighted mean distance to the positives, n to the negatives.

    The weights are a softmax of the distances over the positives, and of the negative distances over the negatives, so
    far positives and near negatives count most.

    Source: Ye et al., *Deep Learning for Person Re-identification*, TPAMI 2022 (AGW).

    Args:
        embeddings: (B, D), not normalised.
        identities: (B,) integers.
        exact: exact softmax weights, as in the paper. The released code adds 1e-6 to the sums of the weights. The
            weights of negatives farther than about 14 then vanish, so n is near 0.

    Returns:
        A scalar in the dtype of ``embeddings``, at least float32.
    """
    distance = euclidean_distances(embeddings)
    positive = identities[:, None] == identities[None, :]
    weights = _exact_weights if exact else _released_weights
    farthest = (weights(distance, positive) * distance).sum(dim=1)
    nearest = (weights(-distance, ~positive) * distance).sum(dim=1)
    return masked_mean(functional.softplus(farthest - nearest), (~positive).any(dim=1))


def masked_batch_hard(features: Tensor, identities: Tensor, valid: Tensor, *, margin: float) -> Tensor:
    """:func:`batch_hard_triplet` of the rows where ``valid`` (B,) is true."""
    distance = euclidean_distances(features)
    same = identities[:, None] == identities[None, :]
    negative = ~same & valid
    farthest = distance.masked_fill(~(same & valid), 0).amax(dim=1)
    nearest = distance.masked_fill(~negative, torch.inf).amin(dim=1)
    return masked_mean((farthest - nearest + margin).relu(), valid & negative.any(dim=1))


def euclidean_distances(features: Tensor) -> Tensor:
    """(B, D) -> (B, B), in at least float32."""
    features = at_least_float32(features)
    squares = features.square().sum(dim=1)
    with torch.autocast(features.device.type, enabled=False):
        products = features @ features.T
    return (squares[:, None] + squares[None, :] - 2 * products).clamp(min=1e-12).sqrt()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` (B,) where ``mask`` is true; 0 if it never is."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def _released_weights(scores: Tensor, mask: Tensor) -> Tensor:
    masked = scores * mask
    exponents = (scores - masked.amax(dim=1, keepdim=True)).masked_fill(~mask, 0)  # the others could overflow
    weights = torch.exp(exponents) * mask
    return weights / (weights.sum(dim=1, keepdim=True) + TINY)


def _exact_weights(scores: Tensor, mask: Tensor) -> Tensor:
    lowest = torch.finfo(scores.dtype).min  # not -inf, which gives NaN if the mask is empty
    return scores.masked_fill(~mask, lowest).softmax(dim=1) * mask
