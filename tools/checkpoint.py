"""Open a checkpoint together with the configuration that it was trained with."""

from pathlib import Path

import torch
from yacs.config import CfgNode

from configs import get_config
from engine.device import place
from models import MCJA, build_initial_model
from utils.run.errors import UserError
from utils.run.folder import CONFIG


def open_checkpoint(checkpoint: Path, cfg_file: Path | None, device: torch.device) -> tuple[CfgNode, MCJA]:
    """The configuration, and the network in evaluation mode on ``device``.

    Args:
        cfg_file: by default the ``config.yml`` beside the checkpoint.

    Raises:
        UserError: there is no configuration, or the checkpoint is not of the configured network.
    """
    cfg_file = cfg_file or checkpoint.parent / CONFIG
    if not cfg_file.is_file():
        raise UserError(f"{cfg_file}: no such file; give the configuration of the checkpoint with --cfg")
    cfg = get_config(cfg_file, ["resume", str(checkpoint), "test_only", "true"])
    model, _ = build_initial_model(cfg)
    return cfg, place(model, device).eval()
