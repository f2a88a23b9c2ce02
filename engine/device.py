"""The device that a run computes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from utils.run.errors import UserError

Model = TypeVar("Model", bound=nn.Module)


def select_device(gpu: str = "auto") -> torch.device:
    """``auto`` (the first CUDA GPU, else the CPU), ``cpu``, or the index of a GPU.

    Also turns TF32 off: float32 is computed with full precision on every device.

    Raises:
        UserError: the GPU does not exist. There is no silent fallback to the CPU.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if gpu == "cpu":
        return torch.device("cpu")
    if gpu == "auto":
        return _current(0) if torch.cuda.is_available() else torch.device("cpu")
    if not (gpu.isascii() and gpu.isdigit() and len(gpu) < 6):
        raise UserError(f"--gpu: {gpu!r} should be auto, cpu, or the index of a GPU")
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(gpu) >= present:
        have = f"GPUs 0 to {present - 1} exist" if present else "torch sees no CUDA GPU on this machine"
        raise UserError(f"--gpu: there is no GPU {gpu}: {have}; use --gpu auto or --gpu cpu")
    return _current(int(gpu))


def _current(index: int) -> torch.device:
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)  # CUDA calls that name no device use it
    return device


def place(model: Model, device: torch.device) -> Model:
    """Move ``model`` to ``device``, in the memory format that is fast there."""
    model.to(device)
    if device.type == "cuda":  # tensor cores need channels-last
        model.to(memory_format=torch.channels_last)
    return model


@contextmanager
def no_autotuning() -> Iterator[None]:
    """Inside this context, cuDNN chooses algorithms without trying them out, which takes seconds for each new shape."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"the CPU ({torch.get_num_threads()} threads)"
