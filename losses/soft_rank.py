"""Differentiable ranks by L2-regularised projection on the permutahedron.

Source: Blondel et al., *Fast Differentiable Sorting and Ranking*, ICML 2020. Two backends give the same ranks:
torchsort (pool-adjacent-violators kernels) and plain tensor operations, which need no compiler.
"""

from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional

from utils.run.errors import UserError
from utils.tensors import at_least_float32

try:
    import torchsort
except ImportError:
    torchsort = None

BACKENDS = ("auto", "torchsort", "builtin")
SAME_BLOCK = 1e-9  # pooled values are at most this far apart: equal but for rounding


def soft_rank(values: Tensor, strength: float = 0.5, *, backend: str = "auto") -> Tensor:
    """Soft ranks along the last dimension, (..., n) -> (..., n), ascending and 1-based.

    The smaller ``strength`` is compared to the gaps between values, the closer the soft ranks are to the true ranks.

    Args:
        values: any floating dtype; computed in at least float32.
        strength: regularisation strength, above 0.
        backend: ``torchsort``, ``builtin``, or ``auto``: torchsort on the CPU if it is installed, else builtin
            (torchsort synchronises with the GPU in each call).

    Raises:
        ValueError: unknown backend, or ``strength`` not above 0.
        UserError: ``backend`` is ``torchsort``, which is not available on this device.
    """
    if strength <= 0:
        raise ValueError(f"strength must be above 0, not {strength}")
    backend = resolve_backend(backend, values.device)
    values = at_least_float32(values)
    if values.numel() == 0:
        return values
    rank = _torchsort_rank if backend == "torchsort" else _builtin_rank
    return rank(values.reshape(-1, values.shape[-1]), strength).reshape(values.shape)


def resolve_backend(backend: str, device: torch.device) -> str:
    """``torchsort`` or ``builtin``: the one that ``backend`` chooses on ``device``. Errors: see :func:`soft_rank`."""
    if backend not in BACKENDS:
        raise ValueError(f"unknown soft rank backend {backend!r}; choose from {', '.join(BACKENDS)}")
    if backend == "builtin":
        return backend
    available = _torchsort_runs_on(device.type)
    if backend == "auto":
        return "torchsort" if available and device.type == "cpu" else "builtin"
    if not available:
        reason = "is not installed" if torchsort is None else f"was built without its {device.type} kernel"
        raise UserError(f"soft_rank: torchsort {reason}; run `make setup`, which builds it, or use `soft_rank builtin`")
    return backend


def _torchsort_runs_on(device_type: str) -> bool:
    if torchsort is None:
        return False
    # torchsort is built without its CUDA kernel if no CUDA compiler is found
    return device_type == "cpu" or find_spec(f"torchsort.isotonic_{device_type}") is not None


def _torchsort_rank(rows: Tensor, strength: float) -> Tensor:
    return torchsort.soft_rank(rows, regularization="l2", regularization_strength=strength)


def _builtin_rank(rows: Tensor, strength: float) -> Tensor:
    return _sort_and_pool(rows, strength)[0]


def sort_and_pool(rows: Tensor, strength: float) -> tuple[Tensor, Tensor, Tensor]:
    """Soft ranks, and what their gradient needs.

    Returns:
        Three (rows, n) tensors: the soft ranks; the positions of the values in descending order; for each of these, the
        number of its block. Values of one block are pooled: their soft ranks depend on their mean.
    """
    n = rows.shape[-1]
    # float64, because differences of cumulative sums lose precision; ranks are then exact to 1e-6
    theta, order = (rows.contiguous().double() / strength).sort(dim=-1, descending=True)
    weights = torch.arange(n, 0, -1, device=rows.device, dtype=theta.dtype)
    pooled = isotonic_regression(theta - weights)
    ranks = (theta - pooled).gather(-1, order.argsort(dim=-1))
    block = functional.pad((pooled.diff(dim=-1).abs() > SAME_BLOCK).long(), (1, 0)).cumsum(dim=-1)
    return ranks.to(rows.dtype), order, block


# An operator, which torch.compile leaves as it is: it cannot compile a float64 sort and cummax for every device.
_sort_and_pool = torch.library.custom_op("mcja::sort_and_pool", sort_and_pool, mutates_args=())


@_sort_and_pool.register_fake
def _shapes(rows: Tensor, strength: float) -> tuple[Tensor, Tensor, Tensor]:
    order = rows.new_empty(rows.shape, dtype=torch.long)
    return rows.new_empty(rows.shape), order, torch.empty_like(order)


def _save_for_gradient(ctx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.strength = inputs[1]
    ctx.save_for_backward(*output[1:])


def _gradient(ctx, gradient: Tensor, *_) -> tuple[Tensor, None]:
    """In each block, the gradient minus its mean, divided by the strength. Source: Proposition 4 of the paper."""
    order, block = ctx.saved_tensors
    descending = gradient.double().gather(-1, order)
    same = block[:, :, None] == block[:, None, :]
    # not a matrix product, which apex would cast: its casts are on during the backward pass
    mean = torch.where(same, descending[:, None, :], 0).sum(dim=-1) / same.sum(dim=-1)
    result = torch.zeros_like(descending).scatter(-1, order, (descending - mean) / ctx.strength)
    return result.to(gradient.dtype), None


_sort_and_pool.register_autograd(_gradient, setup_context=_save_for_gradient)


def isotonic_regression(values: Tensor) -> Tensor:
    """Non-increasing least-squares fit of each row, (rows, n) -> (rows, n), in O(rows n^2) memory.

    Min-max formula: v_i = min over starts j <= i of max over ends k >= i of mean(values_j ... values_k).
    """
    n = values.shape[-1]
    total = functional.pad(values.cumsum(dim=-1), (1, 0))
    index = torch.arange(n, device=values.device)
    length = index[None, :] - index[:, None] + 1  # (start, end)
    mean = (total[:, None, 1:] - total[:, :-1, None]) / length.clamp(min=1)
    mean = mean.masked_fill(length < 1, -torch.inf)
    largest = mean.flip(-1).cummax(dim=-1).values.flip(-1)  # (rows, start, i): maximum over ends >= i
    return largest.masked_fill(length < 1, torch.inf).amin(dim=1)
