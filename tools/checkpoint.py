"""Open a checkpoint together with the configuration that it was trained with."""

from collections.abc import Sequence
from pathlib import Path

import torch
from yacs.config import CfgNode

from configs import get_config
from engine.device import place
from models import Network, build_initial_model
from utils.run.errors import UserError
from utils.run.folder import CONFIG


def open_checkpoint(
    checkpoint: Path, cfg_file: Path | None, device: torch.device, overrides: Sequence[str] = ()
) -> tuple[CfgNode, Network]:
    """The configuration, and the network in evaluation mode on ``device``.

    Args:
        cfg_file: by default the ``config.yml`` beside the checkpoint.
        overrides: ``KEY VALUE KEY VALUE ...``; they replace the values of the file.

    Raises:
        UserError: there is no checkpoint or no configuration, or the checkpoint is not of the configured network.
    """
    if not checkpoint.is_file():
        problem = f"a folder; name the checkpoint in it, such as {checkpoint / 'best.pth'}"
        raise UserError(f"{checkpoint}: {problem if checkpoint.is_dir() else 'no such checkpoint'}")
    cfg_file = cfg_file or checkpoint.parent / CONFIG
    if not cfg_file.is_file():
        raise UserError(f"{cfg_file}: no such file; give the configuration of the checkpoint with --cfg")
    cfg = get_config(cfg_file, [*overrides, "resume", str(checkpoint), "test_only", "true"])
    model, _ = build_initial_model(cfg)
    return cfg, place(model, device).eval()
