"""Training and testing."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.optim import SGD, Adam, Optimizer
from yacs.config import CfgNode

from data import build_augment, build_sampler, build_source, variants_of
from data.datasets.base import ReIDDataset
from data.datasets.images import ImageList, ImageSource
from data.loaders import train_loader
from engine.evaluator import Evaluator
from engine.extract import Extractor
from engine.precision import build_precision, inference_dtype
from engine.step import Training
from engine.trainer import Schedule
from losses import build_criterion
from models import Network
from utils.rerank import MSER


def _build_sgd(groups: list[dict], lr: float, wd: float) -> SGD:
    """SGD with momentum 0.9 and Nesterov, as AGW uses it."""
    optimizer = SGD(groups, lr=lr, weight_decay=wd, momentum=0.9, nesterov=True, fused=True)
    # Fused SGD makes its buffers in the first step and leaves them uninitialised if loss scaling skips it. A first step
    # from zeros is the same.
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


# name -> function of (parameter groups, learning rate, weight decay)
OPTIMIZERS: dict[str, Callable[[list[dict], float, float], Optimizer]] = {
    "adam": lambda groups, lr, wd: Adam(groups, lr=lr, weight_decay=wd, fused=True),
    "sgd": _build_sgd,
}


def build_optimizer(cfg: CfgNode, model: Network) -> Optimizer:
    """The configured optimiser of all parameters of the model.

    With ``backbone_lr_factor``, neck and classifier are a group of their own, and ``lr_factor`` of the other group is
    the factor of its learning rate.
    """
    groups: list[dict] = [{"params": list(model.parameters())}]
    if cfg.backbone_lr_factor != 1:
        head = [*model.neck.parameters(), *model.classifier.parameters()]
        own = set(head)
        rest = [parameter for parameter in model.parameters() if parameter not in own]
        groups = [{"params": head}, {"params": rest, "lr_factor": cfg.backbone_lr_factor}]
    return OPTIMIZERS[cfg.optimizer](groups, cfg.lr, cfg.wd)


def build_training(cfg: CfgNode, model: Network, dataset: ReIDDataset, device: torch.device, *, seed: int) -> Training:
    """Everything that the configured training uses. Fills the cache, if there is one and it is new."""
    optimizer = build_optimizer(cfg, model)
    criterion = build_criterion(cfg, device)
    sampler = build_sampler(cfg, dataset, seed=seed)  # before the cache is filled, which may take minutes
    source = build_source(cfg, dataset, device)
    return Training(
        model=model,
        criterion=criterion,
        optimizer=optimizer,
        augment=build_augment(cfg, seed=seed),
        dataset=dataset,
        sampler=sampler,
        source=source,
        loader=train_loader(dataset, source, sampler, num_workers=cfg.num_workers, pin_memory=device.type == "cuda"),
        device=device,
        precision=build_precision(
            model, optimizer, device, fp16=cfg.fp16, amp_dtype=cfg.amp_dtype, amp_backend=cfg.amp_backend
        ),
        compile=cfg.compile,
    )


def build_schedule(cfg: CfgNode, evaluator: Evaluator) -> Schedule:
    """When the configured training does what."""
    rates = ("lr", "lr_step", "lr_decay", "warmup_epochs")
    others = ("num_epoch", "log_period", "start_eval", "eval_interval", "select_by", "checkpoint_minutes")
    return Schedule(**{key: cfg[key] for key in rates + others}, evaluate=evaluator.select)


def build_evaluator(
    cfg: CfgNode,
    dataset: ReIDDataset,
    device: torch.device,
    *,
    no_casts: Callable[[], AbstractContextManager] = nullcontext,
) -> Evaluator:
    """Evaluation on the test set ``dataset``, as configured."""
    extractor = build_extractor(cfg, dataset, build_source(cfg, dataset, device), device)
    mser = build_mser(cfg) if cfg.mser else None
    return Evaluator(dataset, extractor, mser=mser, variants=variants_of(cfg), no_casts=no_casts)


def build_mser(cfg: CfgNode) -> MSER:
    """The configured hyper-parameters of MSER."""
    return MSER(cfg.mser_k1, cfg.mser_k2, cfg.mser_lambda, tuple(cfg.mser_spectra))


def build_extractor(cfg: CfgNode, images: ImageList, source: ImageSource, device: torch.device) -> Extractor:
    """Extraction of the features of any list of images, in the configured batches and precision."""
    return Extractor(
        images,
        source,
        device,
        batch_size=cfg.test_batch_size,
        num_workers=cfg.num_workers,
        dtype=inference_dtype(device, fp16=cfg.fp16, amp_dtype=cfg.amp_dtype),
    )
