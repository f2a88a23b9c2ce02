"""Losses of MCJA."""

import torch
from yacs.config import CfgNode

from losses.criterion import LOSSES, Criterion
from losses.soft_rank import resolve_backend

__all__ = ["LOSSES", "build_criterion"]


def build_criterion(cfg: CfgNode, device: torch.device) -> Criterion:
    """The configured losses, with the soft rank that can be used on ``device``."""
    # a compiled graph cannot hold torchsort's kernels
    soft_rank = "builtin" if cfg.compile else resolve_backend(cfg.soft_rank, device)
    return Criterion(loss_id=cfg.loss_id, loss_cmr=cfg.loss_cmr, soft_rank=soft_rank)
