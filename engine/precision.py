"""Mixed precision: how the forward pass is cast and how the optimiser steps."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from utils.run.errors import UserError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class TorchPrecision:
    """``torch.amp``: autocast and, for float16, loss scaling; with ``dtype`` None plain float32."""

    def __init__(self, device: torch.device, dtype: torch.dtype | None = None):
        self.device_type, self.dtype = device.type, dtype
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.dtype is not None)

    def step(self, loss: Tensor, optimizer: Optimizer) -> None:
        """One step down the gradient of ``loss``."""
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(optimizer)
        self.scaler.update()

    def state_dict(self) -> dict:
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict) -> None:
        if state and self.scaler.is_enabled():  # empty where the run was without scaling until now
            self.scaler.load_state_dict(state)

    def __str__(self) -> str:
        return "float32" if self.dtype is None else f"mixed precision (torch.amp, {str(self.dtype).split('.')[1]})"


class ApexPrecision:
    """``apex.amp`` O1, which the released code used."""

    def __init__(self, model: nn.Module, optimizer: Optimizer):
        self.amp = _import_apex_amp()
        self.amp.initialize(model, optimizer, opt_level="O1", verbosity=0)

    def autocast(self) -> AbstractContextManager:
        return nullcontext()  # apex has patched torch's functions

    def step(self, loss: Tensor, optimizer: Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        with self.amp.scale_loss(loss, optimizer) as scaled:
            scaled.backward()
        optimizer.step()

    def state_dict(self) -> dict:
        return self.amp.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.amp.load_state_dict(state)

    def __str__(self) -> str:
        return "mixed precision (apex.amp O1)"


def build_precision(
    model: nn.Module, optimizer: Optimizer, device: torch.device, *, fp16: bool, amp_dtype: str, amp_backend: str
) -> TorchPrecision | ApexPrecision:
    """Mixed precision where ``fp16`` is on and the device is a CUDA GPU, else float32.

    Raises:
        UserError: apex is asked for and cannot be had.
    """
    if amp_backend == "apex" and fp16:
        _import_apex_amp()
        if device.type != "cuda":
            raise UserError("amp_backend: apex needs a CUDA GPU; use `amp_backend torch`")
        return ApexPrecision(model, optimizer)
    return TorchPrecision(device, DTYPES[amp_dtype] if fp16 and device.type == "cuda" else None)


def inference_dtype(device: torch.device, *, fp16: bool) -> torch.dtype | None:
    """What extraction is cast to: float16 whatever ``amp_dtype`` is, whose embeddings stay within 1e-2 of float32.

    bfloat16, of three digits less, strays further; its range serves gradients, of which there are none.
    """
    return torch.float16 if fp16 and device.type == "cuda" else None


def _import_apex_amp():
    try:
        from apex import amp
    except ImportError:
        raise UserError(
            "amp_backend: apex.amp cannot be imported; NVIDIA removed it from apex in 2025 (`apex` on the package index"
            " is another project). Use `amp_backend torch`, its successor, or an NVIDIA apex from before"
        ) from None
    return amp
