"""Check the values of the configuration keys, each alone and together."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from yacs.config import CfgNode

from data.datasets import DATASETS
from data.datasets.images import RESIZES
from data.samplers import SAMPLERS
from losses import LOSSES, TRIPLETS, is_on
from losses.cmr import DIRECTIONS
from losses.soft_rank import BACKENDS
from models import MODELS
from models.pooling import POOLINGS
from models.resnet import BACKBONES
from utils.features import SPECTRA
from utils.run.errors import UserError, shown

CHOICES: dict[str, Collection[str]] = {
    "sample_method": SAMPLERS,
    "model": MODELS,
    "backbone": BACKBONES,
    "soft_rank": BACKENDS,
    "cache": ("none", "disk", "device"),
    "resize": RESIZES,
    "optimizer": ("adam", "sgd"),
    "cutmix_region": ("released", "full"),
    "amp_dtype": ("float16", "bfloat16"),
    "amp_backend": ("torch", "apex"),
    "pooling": POOLINGS,
    "cmr_direction": DIRECTIONS,
    "loss_triplet": ("none", *TRIPLETS),
    "select_by": ("rank1", "mAP", "last"),
    **{key: values for dataset in DATASETS.values() for key, values in dataset.variants.items()},
}


class Rule(NamedTuple):
    """A condition on a value, and its text in error messages."""

    holds: Callable[[Any], bool]
    meaning: str


def _at_least(low: int) -> Rule:
    return Rule(lambda value: value >= low, f"at least {low}")


RULES: dict[str, Rule] = {
    **dict.fromkeys(("p_size", "k_size", "batch_size", "test_batch_size", "mda_m", "num_id", "num_cam"), _at_least(1)),
    **dict.fromkeys(("mser_k1", "mser_k2", "log_period"), _at_least(1)),
    **dict.fromkeys(("num_epoch", "start_eval", "eval_interval", "padding", "warmup_epochs"), _at_least(0)),
    **dict.fromkeys(
        ("wd", "margin", "checkpoint_minutes"), Rule(lambda value: 0 <= value < math.inf, "a finite number >= 0")
    ),
    **dict.fromkeys(("output_dir", "data_root"), Rule(bool, "a folder")),
    **dict.fromkeys(
        ("lr", "lr_decay", "gem_power", "cmr_strength", "weight_id", "weight_cmr", "weight_triplet"),
        Rule(lambda value: 0 < value < math.inf, "a finite number > 0"),
    ),
    **dict.fromkeys(
        ("mser_lambda", "vimc_p", "erase_p", "label_smoothing"), Rule(lambda value: 0 <= value <= 1, "between 0 and 1")
    ),
    "non_local_channels": _at_least(0),
    "backbone_lr_factor": Rule(lambda value: 0 < value < math.inf, "a finite number > 0"),
    "padding_value": Rule(lambda value: 0 <= value <= 255, "between 0 and 255"),
    "hue_range": Rule(lambda value: 0 <= value <= 0.5, "between 0 and 0.5"),
    **dict.fromkeys(
        ("cutmix_area", "erase_area"),
        Rule(lambda area: len(area) == 2 and 0 <= area[0] <= area[1] <= 1, "[smallest, largest], both between 0 and 1"),
    ),
    "mda_layers": Rule(lambda counts: len(counts) == 4 and min(counts) >= 0, "four numbers, each at least 0"),
    "mser_spectra": Rule(
        lambda names: 0 < len(names) == len(set(names)) and set(names) <= set(SPECTRA),
        f"a list of some of {', '.join(SPECTRA)}",
    ),
    "num_workers": Rule(lambda value: 0 <= value <= 1024, "between 0 and 1024"),  # more could hang the machine
    "trial": Rule(lambda value: 1 <= value <= 10, "between 1 and 10"),
    # the backbone halves an image five times
    "image_size": Rule(lambda size: len(size) == 2 and min(size) >= 32, "(height, width), both at least 32"),
    "lr_step": Rule(
        lambda steps: list(steps) == sorted(set(steps)) and min(steps, default=1) >= 1,
        "ascending epochs, each at least 1",
    ),
    "prefix": Rule(
        lambda name: name.isprintable() and name[:1] not in ("", ".", "-") and not set(name) & set('/\\:*?"<>|'),
        "a plain file name without a dot or dash in front",
    ),
    "pretrained": Rule(bool, "imagenet, none, or a file"),
}


def check_values(cfg: CfgNode, sources: Mapping[str, str]) -> None:
    """Raise ``UserError`` for the first value that cannot work; ``sources`` says where each key was given."""
    for key, choices in CHOICES.items():
        check_choice(cfg, key, choices, sources)
    for key, rule in RULES.items():
        if not rule.holds(cfg[key]):
            raise UserError(f"{_given(cfg, key, sources)} should be {rule.meaning}")
    conflict = next(_conflicts(cfg), None)
    if conflict:
        key, advice = conflict
        raise UserError(f"{_given(cfg, key, sources)}: {advice}")


def check_choice(cfg: CfgNode, key: str, choices: Collection[str], sources: Mapping[str, str]) -> None:
    if cfg[key] not in choices:
        valid = f"choose from {', '.join(choices)}{nearest(cfg[key], choices)}"
        raise UserError(f"{_given(cfg, key, sources)} is unknown; {valid}")


def nearest(name: object, valid: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` with the most similar valid name, or an empty string."""
    matches = get_close_matches(str(name).lower(), list(valid), n=1, cutoff=0.4)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _conflicts(cfg: CfgNode) -> Iterator[tuple[str, str]]:
    """Values that exclude each other, as (key, error message)."""
    if not any(is_on(cfg, name) for name in LOSSES):
        yield next(iter(LOSSES)), f"{', '.join(LOSSES)} are all off: nothing to learn from"
    sampler = SAMPLERS[cfg.sample_method]
    size = "k_size" if sampler.draws_identities else "batch_size"
    if sampler.halves and cfg[size] % 2:
        yield size, "must be even: sample_method takes half of it from each modality"
    if (cfg.p_size * cfg.k_size if sampler.draws_identities else cfg.batch_size) == 1:
        yield size, "a batch of one image cannot be trained on (BatchNorm)"
    if cfg.compile and (cfg.soft_rank == "torchsort" or cfg.amp_backend == "apex"):
        yield "compile", "works with neither `soft_rank torchsort` nor `amp_backend apex`"
    if cfg.test_only and not cfg.resume:
        yield "test_only", "needs `resume`, the checkpoint to test"


def _given(cfg: CfgNode, key: str, sources: Mapping[str, str]) -> str:
    """Key, value and source, which begin each message."""
    return f"{key}: {shown(cfg[key])} ({sources.get(key, 'default')})"
