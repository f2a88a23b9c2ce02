"""Small helpers for tensors: conversion, copies to a device, blocks of rows."""

import numpy as np
import torch
from torch import Tensor

BLOCK_BYTES = 64 * 2**20  # size of the float32 numbers that a CPU computes at a time
GPU_BLOCK = 8  # a GPU computes blocks of this many times the size: it needs more work at a time, and has the memory


def as_tensor(values: np.ndarray | Tensor) -> Tensor:
    """A tensor without its graph, or an array as a CPU tensor, without a copy where torch can share its memory."""
    if isinstance(values, Tensor):
        return values.detach()
    values = np.require(values, dtype=values.dtype.newbyteorder("="), requirements=["C", "W"])
    return torch.from_numpy(values)


def block_factor(device: torch.device) -> int:
    """Size of a block on ``device``, relative to one on a CPU."""
    return 1 if device.type == "cpu" else GPU_BLOCK


def blocks(rows: int, width: int, device: torch.device) -> list[slice]:
    """Slices that cover ``rows`` rows, so that ``width`` float32 numbers per row of a slice fit into a block."""
    size = max(1, block_factor(device) * BLOCK_BYTES // (4 * max(1, width)))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def at_least_float32(tensor: Tensor) -> Tensor:
    """A float16 or bfloat16 tensor as float32, a float32 or float64 tensor as it is."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``, copied asynchronously to a GPU.

    Only copies from pinned memory are asynchronous, so a CPU tensor is pinned first.
    """
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
