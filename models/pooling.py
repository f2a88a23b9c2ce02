"""Pooling of feature maps, (B, C, H, W) -> (B, C)."""

from collections.abc import Callable

from torch import Tensor

from utils.tensors import at_least_float32


def average_pool(x: Tensor) -> Tensor:
    """Mean over height and width, (B, C, H, W) -> (B, C), in at least float32."""
    return at_least_float32(x).mean(dim=(2, 3))


def generalised_mean_pool(x: Tensor, power: float = 3) -> Tensor:
    """Generalised mean (GeM) pooling, (B, C, H, W) -> (B, C), in at least float32.

    The result is (mean of x^p over height and width + 1e-12)^(1/p). Half precision would lose the 1e-12 and overflow on
    large activations. Negative activations count as 0; only an adapter after the last block gives such.
    """
    return (at_least_float32(x).clamp(min=0).flatten(2).pow(power).mean(dim=2) + 1e-12).pow(1 / power)


# name -> function of (feature maps, power of gem)
POOLINGS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "gem": generalised_mean_pool,
    "avg": lambda x, power: average_pool(x),
}


def require_pooling(name: str) -> None:
    """Raise ``ValueError`` unless ``name`` is in ``POOLINGS``."""
    if name not in POOLINGS:
        raise ValueError(f"unknown pooling {name!r}; choose from {', '.join(POOLINGS)}")
