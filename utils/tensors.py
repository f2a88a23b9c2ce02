"""Arrays as tensors, and blocks of rows."""

import numpy as np
import torch
from torch import Tensor

BLOCK_BYTES = 64 * 2**20  # of float32 numbers computed at a time


def as_tensor(values: np.ndarray | Tensor) -> Tensor:
    """A tensor without its graph, or an array as a CPU tensor, without a copy where torch can share its memory."""
    if isinstance(values, Tensor):
        return values.detach()
    values = np.require(values, dtype=values.dtype.newbyteorder("="), requirements=["C", "W"])
    return torch.from_numpy(values)


def blocks(rows: int, width: int) -> list[slice]:
    """Slices that cover ``rows`` rows, so that ``width`` float32 numbers per row of a slice fit into a block."""
    size = max(1, BLOCK_BYTES // (4 * max(1, width)))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def at_least_float32(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; other dtypes as they are."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor
