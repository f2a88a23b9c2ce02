"""The inner loops of scoring: compiled by numba on the CPU; in torch on other devices, and where numba is missing."""

import logging
from types import ModuleType

from torch import device as Device

from utils.kernels import torch as kernels_torch

try:
    from utils.kernels import numba as on_cpu
except ImportError:  # not installed for this Python
    on_cpu = kernels_torch
    logging.getLogger(__name__).warning("numba cannot be imported: scoring will take some twenty times as long")


def kernels_for(device: Device) -> ModuleType:
    """The module whose functions take tensors of this device; :mod:`utils.kernels.torch` documents them."""
    return on_cpu if device.type == "cpu" else kernels_torch
