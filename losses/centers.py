"""Losses on the centres of identities: the mean of its visible images, and the mean of its infrared images.

Identities that are seen in one modality only are left out. If nothing is left, the loss is 0, with a zero gradient.
Images of a batch may stand in any order. Shapes depend on the batch size only, so nothing synchronises with a GPU.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from losses.triplet import masked_batch_hard
from utils.tensors import at_least_float32

DISTANCES = ("sqeuclidean", "cosine")


class Centers(NamedTuple):
    """The centres of each image's identity. Rows of the same identity are equal."""

    visible: Tensor  # (B, D)
    infrared: Tensor  # (B, D)
    counted: Tensor  # (B,) true in one row of each identity that is seen in both modalities


def hetero_center(
    embeddings: Tensor, identities: Tensor, is_infrared: Tensor, *, margin: float = 0.0, distance: str = "sqeuclidean"
) -> Tensor:
    """Sum over the identities of max(0, distance between the two centres - margin). It is not a mean.

    Source: Zhu et al., *Hetero-Center Loss for Cross-Modality Person Re-identification*, Neurocomputing 2020.

    Args:
        embeddings: (B, D), not normalised.
        identities: (B,) integers.
        is_infrared: (B,) booleans.
        distance: ``sqeuclidean``, the squared Euclidean distance, or ``cosine``, 1 - cosine.

    Returns:
        A scalar in the dtype of ``embeddings``, at least float32.
    """
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}; choose from {', '.join(DISTANCES)}")
    visible, infrared, counted = _centers(embeddings, identities, is_infrared)
    if distance == "cosine":
        gap = 1 - functional.cosine_similarity(visible, infrared)
    else:
        gap = (visible - infrared).square().sum(dim=1)
    return torch.where(counted, (gap - margin).relu(), 0).sum()


def hetero_center_triplet(
    embeddings: Tensor, identities: Tensor, is_infrared: Tensor, *, margin: float = 0.3
) -> Tensor:
    """:func:`losses.triplet.batch_hard_triplet` of the centres of both modalities.

    Source: Liu et al., *Parameter Sharing Exploration and Hetero-Center Triplet Loss*, TMM 2021.

    Args:
        embeddings: (B, D), not normalised.
        identities: (B,) integers.
        is_infrared: (B,) booleans.

    Returns:
        A scalar in the dtype of ``embeddings``, at least float32.
    """
    visible, infrared, counted = _centers(embeddings, identities, is_infrared)
    return masked_batch_hard(torch.cat([visible, infrared]), identities.repeat(2), counted.repeat(2), margin=margin)


def _centers(embeddings: Tensor, identities: Tensor, is_infrared: Tensor) -> Centers:
    embeddings, is_infrared = at_least_float32(embeddings), is_infrared.bool()
    same = identities[:, None] == identities[None, :]
    sides = [same & ~is_infrared, same & is_infrared]  # (image, images of its identity in one modality)
    counts = [side.sum(dim=1, keepdim=True) for side in sides]
    with torch.autocast(embeddings.device.type, enabled=False):
        visible, infrared = (
            side.to(embeddings.dtype) @ embeddings / count.clamp(min=1)
            for side, count in zip(sides, counts, strict=True)
        )
    first = ~same.tril(-1).any(dim=1)  # the first image of each identity
    both = (counts[0] > 0) & (counts[1] > 0)
    return Centers(visible, infrared, first & both[:, 0])
