"""The inner loops of scoring: compiled by numba for the CPU; in torch for other devices, or where numba is missing.

Both modules have the same functions; :mod:`utils.kernels.torch_kernels` documents them.
"""

import logging
from types import ModuleType

from torch import device as Device

from utils.kernels import torch_kernels

on_cpu: ModuleType
try:
    from utils.kernels import numba_kernels as on_cpu
except ImportError:  # numba is not installed
    on_cpu = torch_kernels
    logging.getLogger(__name__).warning(
        "numba cannot be imported: scoring will be much slower, see docs/performance.md"
    )


def kernels_for(device: Device) -> ModuleType:
    """The module whose functions take tensors on this device."""
    return on_cpu if device.type == "cpu" else torch_kernels
