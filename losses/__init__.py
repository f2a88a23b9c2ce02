"""Losses of MCJA."""

from yacs.config import CfgNode

from losses.criterion import Criterion

__all__ = ["build_criterion"]


def build_criterion(cfg: CfgNode) -> Criterion:
    # a compiled graph cannot hold torchsort's kernels
    soft_rank = "builtin" if cfg.compile else cfg.soft_rank
    return Criterion(loss_id=cfg.loss_id, loss_cmr=cfg.loss_cmr, soft_rank=soft_rank)
