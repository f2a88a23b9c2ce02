"""Losses of MCJA."""

from yacs.config import CfgNode

from losses.criterion import Criterion

__all__ = ["build_criterion"]


def build_criterion(cfg: CfgNode) -> Criterion:
    return Criterion(loss_id=cfg.loss_id, loss_cmr=cfg.loss_cmr, soft_rank=cfg.soft_rank)
