"""The network and the weights that it starts from."""

import torch
from torch import nn
from torch.optim import SGD
from yacs.config import CfgNode

from configs import check_resume
from engine.device import place
from engine.precision import build_precision
from main import build_loaded_model
from models import build_model
from tools.doctor.report import Report


def check_model(report: Report, cfg: CfgNode, device: torch.device) -> nn.Module:
    """The network; without its weights where those cannot be had. ImageNet weights are fetched, as a run would."""
    model = None
    with report.errors():
        origin = check_resume(cfg)
        if origin:
            report.warning(origin)
        model, loaded = build_loaded_model(cfg)
        source = f"resume {cfg.resume}: {loaded}" if loaded else f"pretrained {cfg.pretrained}"
        report.ok(f"{cfg.backbone}: {source}")
    model = place(model or build_model(cfg, pretrained="none"), device)
    keys = ("fp16", "amp_dtype", "amp_backend")
    with report.errors():
        precision = build_precision(model, SGD(model.parameters()), device, **{key: cfg[key] for key in keys})
        report.ok(f"precision: {precision}")
    return model
