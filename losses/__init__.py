"""Losses. The configuration switches each one on or off by its name in ``LOSSES``."""

from collections.abc import Callable

import torch
from torch import nn
from yacs.config import CfgNode

from losses.cmr import CrossModalityRetrievalLoss
from losses.criterion import Criterion
from losses.identity import IdentityLoss
from losses.soft_rank import resolve_backend

__all__ = ["LOSSES", "Criterion", "build_criterion"]


def _build_cmr(cfg: CfgNode, device: torch.device) -> nn.Module:
    # a compiled graph cannot contain torchsort's kernels
    return CrossModalityRetrievalLoss(backend="builtin" if cfg.compile else resolve_backend(cfg.soft_rank, device))


# name, which is also the configuration key -> builder
LOSSES: dict[str, Callable[[CfgNode, torch.device], nn.Module]] = {
    "loss_id": lambda cfg, device: IdentityLoss(),
    "loss_cmr": _build_cmr,
}


def build_criterion(cfg: CfgNode, device: torch.device) -> Criterion:
    """The losses that are switched on."""
    return Criterion({name: build(cfg, device) for name, build in LOSSES.items() if cfg[name]})
