"""One seed for all random generators."""

import random

import numpy as np
import torch


def seed_everything(seed: int | None = None, *, deterministic: bool = False) -> int:
    """Seed Python, NumPy and torch, and return the seed.

    Args:
        seed: 0 to 2^32 - 1; drawn at random if None.
        deterministic: use deterministic algorithms where they exist, and warn where they do not.
    """
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = not deterministic  # input shapes are fixed, so cuDNN's autotuning is worth it
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    return seed
