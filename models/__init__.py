"""Networks and loading of checkpoints."""

from yacs.config import CfgNode

from models.loading import LoadReport, load_weights
from models.mcja import MCJA
from utils.run.errors import UserError

__all__ = ["MCJA", "LoadReport", "build_initial_model", "build_model", "load_weights"]


def build_initial_model(cfg: CfgNode) -> tuple[MCJA, LoadReport | None]:
    """The configured network with the weights of ``resume``, or else of ``pretrained``.

    Returns:
        The network, and a report of which weights of ``resume`` were loaded (None without ``resume``).

    Raises:
        UserError: ``resume`` is a checkpoint of another network or, for a test, of another number of classes.
    """
    if not cfg.resume:
        return build_model(cfg), None
    model = build_model(cfg, pretrained="none")
    report = load_weights(model, cfg.resume)
    report.require_same_network(cfg.resume)
    if cfg.test_only and "classifier.weight" in report.mismatched:
        raise UserError(
            f"{cfg.resume}: was trained with another number of classes than num_id {cfg.num_id}; set num_id to its own"
        )
    return model, report


def build_model(cfg: CfgNode, *, pretrained: str | None = None) -> MCJA:
    """The configured network.

    Args:
        pretrained: replaces ``cfg.pretrained``; ``none`` if other weights are loaded afterwards.
    """
    return MCJA(
        cfg.num_id,
        mda_m=cfg.mda_m,
        mda_layers=cfg.mda_layers,
        pooling=cfg.pooling,
        gem_power=cfg.gem_power,
        drop_last_stride=cfg.drop_last_stride,
        backbone=cfg.backbone,
        pretrained=cfg.pretrained if pretrained is None else pretrained,
    )
