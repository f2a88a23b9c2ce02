"""Mixed precision: how the forward pass is cast and how the optimiser steps."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from utils.run.errors import UserError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class TorchPrecision:
    """``torch.amp``: autocast and, for float16, loss scaling. Plain float32 if ``dtype`` is None."""

    def __init__(self, device: torch.device, dtype: torch.dtype | None = None):
        self.device_type, self.dtype = device.type, dtype
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def autocast(self) -> AbstractContextManager:
        """Context with casts, for the network up to the embeddings."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.dtype is not None)

    def no_autocast(self) -> AbstractContextManager:
        """Context without casts, for the classifier and the losses."""
        return torch.autocast(self.device_type, enabled=False)

    def step(self, loss: Tensor, optimizer: Optimizer) -> None:
        """Backward pass and one optimiser step."""
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(optimizer)
        self.scaler.update()

    def state_dict(self) -> dict:
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict) -> None:
        if state:  # empty if the run had no loss scaling so far
            self.scaler.load_state_dict(state)

    def __str__(self) -> str:
        return "float32" if self.dtype is None else f"mixed precision (torch.amp, {str(self.dtype).split('.')[1]})"


class ApexPrecision:
    """``apex.amp`` O1, which the released code uses.

    apex patches torch's functions, so they cast everywhere outside ``no_autocast``. It also caches half-precision
    copies of the weights until the next step, so other weights that are loaded into the model have no effect before.
    To test other weights, build a new model.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer):
        self.amp = _import_apex_amp()
        self.amp.initialize(model, optimizer, opt_level="O1", verbosity=0)

    def autocast(self) -> AbstractContextManager:
        return nullcontext()  # apex has patched torch's functions

    def no_autocast(self) -> AbstractContextManager:
        return self.amp.disable_casts()

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
    """Mixed precision if ``fp16`` is on and the device is a CUDA GPU, else float32.

    Raises:
        UserError: apex is asked for and not available.
    """
    if amp_backend == "apex" and fp16:
        _import_apex_amp()
        if device.type != "cuda":
            raise UserError("amp_backend: apex needs a CUDA GPU; use `amp_backend torch`")
        return ApexPrecision(model, optimizer)
    return TorchPrecision(device, DTYPES[amp_dtype] if fp16 and device.type == "cuda" else None)


def inference_dtype(device: torch.device, *, fp16: bool, amp_dtype: str) -> torch.dtype | None:
    """The dtype of extraction: float16 where training uses float16, else None, for float32.

    float16 embeddings stay within 1e-2 of float32 ones. bfloat16 is used for training only: with three bits of
    precision less it changes ranks.
    """
    return torch.float16 if fp16 and amp_dtype == "float16" and device.type == "cuda" else None


def _import_apex_amp():
    try:
        from apex import amp
    except ImportError:
        raise UserError(
            "amp_backend: apex.amp cannot be imported; NVIDIA removed it from apex in 2025 (`apex` on the package index"
            " is another project). Use its successor, `amp_backend torch`, or an older NVIDIA apex"
        ) from None
    return amp
