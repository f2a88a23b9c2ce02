"""Networks and loading of checkpoints."""

from yacs.config import CfgNode

from models.loading import LoadReport, load_weights
from models.mcja import MCJA

__all__ = ["MCJA", "LoadReport", "build_model", "load_weights"]


def build_model(cfg: CfgNode, *, pretrained: str | None = None) -> MCJA:
    """The configured network; ``pretrained`` replaces ``cfg.pretrained``, for weights that are loaded later anyway."""
    return MCJA(
        cfg.num_id,
        mda_m=cfg.mda_m,
        drop_last_stride=cfg.drop_last_stride,
        backbone=cfg.backbone,
        pretrained=cfg.pretrained if pretrained is None else pretrained,
    )
