"""The Cross-Modality Retrieval loss: the ranking list itself as the objective (MCJA)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from losses.soft_rank import soft_rank

STRENGTH = 0.5  # regularisation of the soft rank, as released


def cross_modality_retrieval_loss(
    embeddings: Tensor, identities: Tensor, is_infrared: Tensor, *, backend: str = "auto"
) -> Tensor:
    """Mean distance between predicted and ideal ranks of the other modality's images.

    Every sample is a query against all samples of the other modality. The ideal rank is 1 for a match and the size of
    the gallery for a mismatch. Queries without a match, or with nothing but matches, are left out. Visible and infrared
    queries are averaged separately, then over the modalities that have a query left; without any the loss is 0 and
    still differentiable. The graph has one shape whatever the mix of modalities, and never waits for the device.

    Args:
        embeddings: (B, D); need not be normalised.
        identities: (B,) integers.
        is_infrared: (B,) booleans.
        backend: see :func:`losses.soft_rank.soft_rank`.

    Returns:
        A scalar in the dtype of ``embeddings``, at least float32.
    """
    embeddings = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
    is_infrared = is_infrared.bool()
    with torch.autocast(embeddings.device.type, enabled=False):
        normalised = functional.normalize(embeddings, dim=1)
        distance = (1 - normalised @ normalised.T) / 2

    in_gallery = is_infrared[:, None] != is_infrared[None, :]  # (query, sample)
    match = in_gallery & (identities[:, None] == identities[None, :])
    gallery_size = in_gallery.sum(dim=1, keepdim=True)
    matches = match.sum(dim=1, keepdim=True)
    kept = (matches > 0) & (matches < gallery_size)

    # Samples outside the gallery are set so far beyond the largest distance, 1, that the regression cannot pool them
    # with the gallery: they take the last ranks and leave those of the gallery as they would be alone.
    beyond = 1 + STRENGTH * (len(embeddings) + 3)
    ranks = soft_rank(distance.masked_fill(~in_gallery, beyond), STRENGTH, backend=backend)
    target = torch.where(match, torch.ones_like(gallery_size), gallery_size)
    error = (ranks - target).abs()

    losses, valid = zip(
        *(_masked_mean(error, in_gallery & kept & (is_infrared == side)[:, None]) for side in (False, True)),
        strict=True,
    )
    return sum(losses) / sum(valid).clamp(min=1)


def _masked_mean(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over ``mask`` (0 where it is empty) and whether it is not empty, as a number."""
    count = mask.sum()
    # where, not a product: what is masked must not turn a gradient into NaN
    return torch.where(mask, values, 0).sum() / count.clamp(min=1), (count > 0).to(values.dtype)


class CrossModalityRetrievalLoss(nn.Module):
    """:func:`cross_modality_retrieval_loss` with a fixed soft-rank backend."""

    def __init__(self, *, backend: str = "auto"):
        super().__init__()
        self.backend = backend

    def forward(self, embeddings: Tensor, identities: Tensor, is_infrared: Tensor) -> Tensor:
        return cross_modality_retrieval_loss(embeddings, identities, is_infrared, backend=self.backend)
