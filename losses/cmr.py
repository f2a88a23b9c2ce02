"""Cross-Modality Retrieval (CMR) loss, MCJA: optimises the ranking of the other modality's images."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from losses.criterion import Outputs
from losses.soft_rank import soft_rank
from utils.tensors import at_least_float32

# name -> values of is_infrared whose images are queries
DIRECTIONS = {"both": (False, True), "visible_to_infrared": (False,), "infrared_to_visible": (True,)}


def cross_modality_retrieval_loss(
    embeddings: Tensor,
    identities: Tensor,
    is_infrared: Tensor,
    *,
    strength: float = 0.5,
    direction: str = "both",
    backend: str = "auto",
) -> Tensor:
    """Mean absolute difference between predicted and target ranks.

    Each image is a query; its gallery is all images of the other modality in the batch. Predicted ranks are the soft
    ranks of d = (1 - cos) / 2. The target rank is 1 for a match and the gallery size for a mismatch. Queries without a
    match, or with matches only, are left out. The mean over visible queries and the mean over infrared queries are
    averaged. A modality without a valid query is left out. If no modality has one, the loss is 0, with a zero gradient.

    Shapes depend on B only and no value is copied to the CPU, so the loss does not synchronise with the GPU.

    Args:
        embeddings: (B, D), not normalised.
        identities: (B,) integers.
        is_infrared: (B,) booleans.
        strength: regularisation strength of the soft rank, above 0; 0.5 as released.
        direction: which images are queries: ``both``, ``visible_to_infrared`` or ``infrared_to_visible``.
        backend: see :func:`losses.soft_rank.soft_rank`.

    Returns:
        A scalar in the dtype of ``embeddings``, at least float32, under autocast too.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"unknown direction {direction!r}; choose from {', '.join(DIRECTIONS)}")
    embeddings = at_least_float32(embeddings)
    is_infrared = is_infrared.bool()
    with torch.autocast(embeddings.device.type, enabled=False):
        normalised = functional.normalize(embeddings, dim=1)
        distance = (1 - normalised @ normalised.T) / 2

    in_gallery = is_infrared[:, None] != is_infrared[None, :]  # (query, image)
    match = in_gallery & (identities[:, None] == identities[None, :])
    gallery_size = in_gallery.sum(dim=1, keepdim=True)
    matches = match.sum(dim=1, keepdim=True)
    valid = (matches > 0) & (matches < gallery_size)

    # Images outside the gallery get a distance so large that the isotonic regression cannot pool them with gallery
    # images: they take the last ranks, and the ranks of the gallery images are the same as without them.
    # As distances are at most 1, 1 + strength * (B - 1) would be enough; B + 3 leaves a margin for rounding errors.
    outside_distance = 1 + strength * (len(embeddings) + 3)
    ranks = soft_rank(distance.masked_fill(~in_gallery, outside_distance), strength, backend=backend)
    target = torch.where(match, torch.ones_like(gallery_size), gallery_size)
    error = (ranks - target).abs()

    by_modality = [
        _masked_mean(error, in_gallery & valid & (is_infrared == modality)[:, None])
        for modality in DIRECTIONS[direction]
    ]
    means, present = zip(*by_modality, strict=True)
    return sum(means) / sum(present).clamp(min=1)


def _masked_mean(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the values in the mask (0 if it is empty), and 1 if the mask has any, else 0; two scalars."""
    count = mask.sum()
    # not a product, because a NaN outside the mask must not reach the gradient
    return torch.where(mask, values, 0).sum() / count.clamp(min=1), (count > 0).to(values.dtype)


class CrossModalityRetrievalLoss(nn.Module):
    """:func:`cross_modality_retrieval_loss` with fixed options."""

    def __init__(self, *, strength: float = 0.5, direction: str = "both", backend: str = "auto"):
        super().__init__()
        self.strength, self.direction, self.backend = strength, direction, backend

    def forward(self, outputs: Outputs, labels: Tensor, is_infrared: Tensor) -> Tensor:
        return cross_modality_retrieval_loss(
            outputs.embeddings,
            labels,
            is_infrared,
            strength=self.strength,
            direction=self.direction,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return f"{self.direction}, strength {self.strength:g}, soft rank: {self.backend}"
