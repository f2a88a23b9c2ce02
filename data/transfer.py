"""Copy tensors to a device."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``. The program does not wait for a GPU to finish its work before the copy.

    Only copies from pinned memory are asynchronous; so a tensor that is copied to a GPU is pinned first.
    """
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
