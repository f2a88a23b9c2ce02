"""One seed for all random generators."""

import os
import random

import numpy as np
import torch


def seed_everything(seed: int | None = None, *, deterministic: bool = False) -> int:
    """Seed Python, NumPy and torch, and return the seed. Call it before the GPU computes anything.

    Args:
        seed: 0 to 2^32 - 1; drawn at random if None.
        deterministic: use deterministic algorithms where they exist, and warn where they do not.
    """
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if deterministic:  # cuBLAS reads it when it is first used; torch warns at each matrix product without it
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = not deterministic  # input shapes are fixed, so cuDNN's autotuning is worth it
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    return seed
