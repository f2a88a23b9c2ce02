"""The inner loops of scoring: compiled by numba for the CPU; in torch for other devices, or where numba is missing.

Both modules have the same functions; :mod:`utils.kernels.torch` documents them.
"""

import logging
from types import ModuleType

from torch import device as Device

from utils.kernels import torch as torch_kernels  # from here on `utils.kernels.torch` is this module, not the library

try:
    from utils.kernels import numba as on_cpu
except ImportError:  # numba is not installed
    on_cpu = torch_kernels
    logging.getLogger(__name__).warning("numba cannot be imported: scoring will take about twenty times as long")


def kernels_for(device: Device) -> ModuleType:
    """The module whose functions take tensors on this device."""
    return on_cpu if device.type == "cpu" else torch_kernels
