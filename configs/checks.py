"""What values configuration keys may take, alone and together."""

import math
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from unicodedata import category

from yacs.config import CfgNode

from utils.run.errors import UserError
from utils.run.messages import shown

IDENTITY_SAMPLERS = ("norm_triplet", "cross_modality_identity", "identity_cross_modality")  # draw P x K

CHOICES = {
    "sample_method": (*IDENTITY_SAMPLERS, "none", "cross_modality_random"),
    "backbone": ("resnet50", "resnet34", "resnet18", "resnet10"),
    "cache": ("none", "disk", "memory", "device"),
    "cutmix_region": ("released", "full"),
    "soft_rank": ("auto", "torchsort", "builtin"),
    "amp_dtype": ("float16", "bfloat16"),
    "amp_backend": ("torch", "apex"),
}

NOT_IN_NAMES = set('/\\:*?"<>|')  # separators, and what other systems do not allow

Rule = tuple[Callable[[object], bool], str]


def _within(low: float, high: float) -> Rule:
    return lambda value: low <= value <= high, f"at least {low} and at most {high}"


def _above(low: float) -> Rule:
    return lambda value: low < value < math.inf, f"a finite number above {low}"


# the upper bounds are far beyond any use: they keep slips of the keyboard from exhausting memory or processes
RULES: dict[str, Rule] = {
    **dict.fromkeys(("p_size", "k_size", "mda_m", "mda_ratio", "num_cam"), _within(1, 4096)),
    **dict.fromkeys(("batch_size", "test_batch_size"), _within(1, 65536)),
    **dict.fromkeys(("num_id", "mser_k1", "mser_k2", "log_period"), _within(1, 10**6)),
    **dict.fromkeys(("num_epoch", "start_eval", "eval_interval"), _within(0, 10**6)),
    **dict.fromkeys(("padding", "num_workers"), _within(0, 1024)),
    **dict.fromkeys(("wd", "checkpoint_minutes"), (lambda value: 0 <= value < math.inf, "a finite number, at least 0")),
    "lr": _above(0),
    "mser_lambda": (lambda value: 0 <= value <= 1, "between 0 and 1"),
    "trial": (lambda value: 1 <= value <= 10, "between 1 and 10"),
    # five halvings: a smaller image would leave nothing of the last stage
    "image_size": (
        lambda size: len(size) == 2 and min(size) >= 32 and max(size) <= 4096,
        "(height, width), both at least 32 and at most 4096",
    ),
    "lr_step": (
        lambda steps: list(steps) == sorted(set(steps)) and all(1 <= step <= 10**6 for step in steps),
        "ascending epochs, each at least 1 and at most 1000000",
    ),
    # room for the time and the description in a name of at most 255 bytes
    "prefix": (
        lambda name: (
            name.isprintable()
            and name[:1] not in ("", ".", "-")
            and not set(name) & NOT_IN_NAMES
            and len(name.encode()) <= 100
        ),
        "a plain file name of at most 100 bytes, without a dot or dash in front",
    ),
    "output_dir": (lambda name: bool(name), "a folder"),
    "data_root": (lambda name: bool(name), "a folder"),
    "pretrained": (lambda name: bool(name), "imagenet, none, or a file"),
}

# (does it hold, key to name, what to do)
TOGETHER: tuple[tuple[Callable[[CfgNode], bool], str, str], ...] = (
    (lambda cfg: cfg.loss_id or cfg.loss_cmr, "loss_cmr", "loss_id and loss_cmr are both off: nothing to learn from"),
    (
        lambda cfg: cfg.k_size % 2 == 0 or cfg.sample_method not in IDENTITY_SAMPLERS[1:],
        "k_size",
        "must be even: sample_method takes half of it from each modality",
    ),
    (
        lambda cfg: cfg.batch_size % 2 == 0 or cfg.sample_method != "cross_modality_random",
        "batch_size",
        "must be even: sample_method takes half of it from each modality",
    ),
    (
        lambda cfg: not cfg.compile or (cfg.soft_rank != "torchsort" and cfg.amp_backend != "apex"),
        "compile",
        "goes with neither `soft_rank torchsort` nor `amp_backend apex`, which a compiled graph cannot hold",
    ),
    (lambda cfg: cfg.resume or not cfg.test_only, "test_only", "needs `resume`, the checkpoint to test"),
    (
        # a BatchNorm cannot be trained on a single image
        lambda cfg: (cfg.p_size * cfg.k_size if cfg.sample_method in IDENTITY_SAMPLERS else cfg.batch_size) > 1,
        "sample_method",
        "a batch of one image cannot be trained on",
    ),
)


def nearest(name: object, valid: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the valid name most like ``name``, or an empty string."""
    matches = get_close_matches(str(name)[:100].lower(), list(valid), n=1, cutoff=0.4)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def check_values(cfg: CfgNode, sources: Mapping[str, str]) -> None:
    """Raise ``UserError`` for the first value that cannot work; ``sources`` says where each given key came from."""
    for key, value in cfg.items():
        if isinstance(value, str) and any(category(character) in ("Cc", "Cs") for character in value):
            raise UserError(f"{_given(cfg, key, sources)} should be text without control characters")
    for key, choices in CHOICES.items():
        if cfg[key] not in choices:
            raise UserError(
                f"{_given(cfg, key, sources)} is unknown; choose from {', '.join(choices)}{nearest(cfg[key], choices)}"
            )
    for key, (holds, meaning) in RULES.items():
        if not holds(cfg[key]):
            raise UserError(f"{_given(cfg, key, sources)} should be {meaning}")
    for holds, key, advice in TOGETHER:
        if not holds(cfg):
            raise UserError(f"{_given(cfg, key, sources)}: {advice}")


def _given(cfg: CfgNode, key: str, sources: Mapping[str, str]) -> str:
    return f"{key}: {shown(cfg[key])} ({sources.get(key, 'default')})"
