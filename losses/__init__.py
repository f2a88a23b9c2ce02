"""Losses. The configuration switches each one on or off by its name in ``LOSSES``."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from losses.centers import hetero_center, hetero_center_triplet
from losses.cmr import CrossModalityRetrievalLoss
from losses.criterion import Criterion, Outputs
from losses.identity import IdentityLoss
from losses.soft_rank import resolve_backend
from losses.triplet import batch_hard_triplet, weighted_regularization_triplet

__all__ = ["LOSSES", "TRIPLETS", "Criterion", "Outputs", "build_criterion", "is_on"]

# value of loss_triplet -> function of (embeddings, identities, is_infrared, margin)
TRIPLETS: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "batch_hard": lambda f, ids, infrared, margin: batch_hard_triplet(f, ids, margin=margin),
    "weighted": lambda f, ids, infrared, margin: weighted_regularization_triplet(f, ids),
    "weighted_exact": lambda f, ids, infrared, margin: weighted_regularization_triplet(f, ids, exact=True),
    "hetero_center": lambda f, ids, infrared, margin: hetero_center(f, ids, infrared, margin=margin),
    "hetero_center_triplet": lambda f, ids, infrared, margin: hetero_center_triplet(f, ids, infrared, margin=margin),
}


class TripletLoss(nn.Module):
    """A function of ``TRIPLETS`` on the features before the neck."""

    def __init__(self, name: str, *, margin: float):
        super().__init__()
        self.name, self.margin = name, margin

    def forward(self, outputs: Outputs, labels: Tensor, is_infrared: Tensor) -> Tensor:
        return TRIPLETS[self.name](outputs.pooled, labels, is_infrared, self.margin)

    def extra_repr(self) -> str:
        return self.name if self.name.startswith("weighted") else f"{self.name}, margin {self.margin:g}"


def _build_cmr(cfg: CfgNode, device: torch.device) -> nn.Module:
    # a compiled graph cannot contain torchsort's kernels
    backend = "builtin" if cfg.compile else resolve_backend(cfg.soft_rank, device)
    return CrossModalityRetrievalLoss(strength=cfg.cmr_strength, direction=cfg.cmr_direction, backend=backend)


# name, which is also the configuration key -> builder; the key of its weight is weight_id, weight_cmr, ...
LOSSES: dict[str, Callable[[CfgNode, torch.device], nn.Module]] = {
    "loss_id": lambda cfg, device: IdentityLoss(label_smoothing=cfg.label_smoothing),
    "loss_cmr": _build_cmr,
    "loss_triplet": lambda cfg, device: TripletLoss(cfg.loss_triplet, margin=cfg.margin),
}


def is_on(cfg: CfgNode, name: str) -> bool:
    """Whether the configuration switches a loss on."""
    return cfg[name] not in (False, "none")


def build_criterion(cfg: CfgNode, device: torch.device) -> Criterion:
    """The losses that are switched on, with their weights."""
    names = [name for name in LOSSES if is_on(cfg, name)]
    weights = {name: cfg[name.replace("loss_", "weight_")] for name in names}
    return Criterion({name: LOSSES[name](cfg, device) for name in names}, weights)
