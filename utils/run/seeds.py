"""One seed for everything random."""

import random

import numpy as np
import torch


def seed_everything(seed: int | None = None, *, deterministic: bool = False) -> int:
    """Seed Python, NumPy and torch, and return the seed; without one, one is drawn, so that every run can be repeated.

    Args:
        seed: 0 to 2^32 - 1.
        deterministic: only use torch algorithms that give the same result each time, where there are any.
    """
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = not deterministic  # shapes are fixed: trying algorithms once pays
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    return seed
