"""Non-local block of AGW: every position of the feature maps is mixed with every other one."""

import torch
from torch import Tensor, nn

from utils.tensors import at_least_float32


class NonLocal(nn.Module):
    """Non-local attention with a residual; (B, C, H, W) -> (B, C, H, W).

    With N = H W positions and theta, phi, g of shape (B, c, N), the attention is theta^T phi / N, a dot product without
    softmax, and the output is BN(conv(attention g)) + x. Parameter names are the released ones.

    Source: Wang et al., *Non-local Neural Networks*, CVPR 2018, as in the released code of AGW.

    Args:
        channels: C.
        inner_channels: c. 1 as released, where the number of channels is divided by itself; C / 2 was probably meant.
    """

    def __init__(self, channels: int, inner_channels: int = 1):
        super().__init__()
        self.g = nn.Sequential(nn.Conv2d(channels, inner_channels, kernel_size=1))
        norm = nn.BatchNorm2d(channels)
        self.W = nn.Sequential(nn.Conv2d(inner_channels, channels, kernel_size=1), norm)
        self.theta = nn.Conv2d(channels, inner_channels, kernel_size=1)
        self.phi = nn.Conv2d(channels, inner_channels, kernel_size=1)
        # starts as the identity, so a pre-trained backbone is not disturbed
        nn.init.zeros_(norm.weight)
        nn.init.zeros_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = (at_least_float32(layer(x)).flatten(2) for layer in (self.theta, self.phi, self.g))
        with torch.autocast(x.device.type, enabled=False):  # products of three features overflow in half precision
            # without a softmax the products may be taken in this order: (c, c) numbers per image instead of (N, N)
            mixed = (g @ phi.transpose(1, 2) / phi.shape[2]) @ theta  # (B, c, N)
            change = self.W(mixed.unflatten(2, x.shape[2:]))
        return change.to(x.dtype) + x
