"""Networks and loading of checkpoints."""

from collections.abc import Callable
from typing import Any

from yacs.config import CfgNode

from models.agw import AGW
from models.loading import LoadReport, load_weights
from models.mcja import MCJA
from models.network import Network
from utils.run.errors import UserError

__all__ = ["AGW", "MCJA", "MODELS", "LoadReport", "Network", "build_initial_model", "build_model", "load_weights"]

# keys that every network takes: its backbone and pooling
SHARED = ("backbone", "drop_last_stride", "pooling", "gem_power")

# value of the key `model` -> (configuration, pretrained) -> network; each takes its own keys
MODELS: dict[str, Callable[[CfgNode, str], Network]] = {
    "mcja": lambda cfg, pretrained: MCJA(
        cfg.num_id, mda_m=cfg.mda_m, mda_layers=cfg.mda_layers, pretrained=pretrained, **_shared(cfg)
    ),
    "agw": lambda cfg, pretrained: AGW(
        cfg.num_id, non_local_channels=cfg.non_local_channels, pretrained=pretrained, **_shared(cfg)
    ),
}


def build_initial_model(cfg: CfgNode) -> tuple[Network, LoadReport | None]:
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


def build_model(cfg: CfgNode, *, pretrained: str | None = None) -> Network:
    """The configured network.

    Args:
        pretrained: replaces ``cfg.pretrained``; ``none`` if other weights are loaded afterwards.
    """
    return MODELS[cfg.model](cfg, cfg.pretrained if pretrained is None else pretrained)


def _shared(cfg: CfgNode) -> dict[str, Any]:
    return {key: cfg[key] for key in SHARED}
