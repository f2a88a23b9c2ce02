"""The Modality Distribution Adapter (MCJA): aligns the channel distributions of the modalities in feature space."""

import torch
from torch import Tensor, nn


class MDA(nn.Module):
    """Channel gate computed from several spatial attention maps, with a residual; (B, C, H, W) -> (B, C, H, W).

    Starts as the identity, so that a pre-trained backbone is not disturbed. Parameter names are the released ones.

    Args:
        channels: C.
        modalities: attention maps m.
    """

    def __init__(self, channels: int, modalities: int = 2):
        super().__init__()
        self.sc_conv = nn.Conv2d(channels, modalities, kernel_size=1)
        self.ca_conv = nn.Conv1d(channels, channels, kernel_size=modalities, groups=channels, bias=False)
        self.ca_bn = nn.BatchNorm1d(channels)
        self.norm_bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm_bn.weight)
        nn.init.zeros_(self.norm_bn.bias)

    def forward(self, x: Tensor) -> Tensor:
        attention = self.sc_conv(x).flatten(2).softmax(dim=2)  # (B, m, HW)
        context = torch.einsum("bcp,bmp->bcm", x.flatten(2), attention)
        gate = self.ca_bn(self.ca_conv(context)).sigmoid()  # (B, C, 1)
        return self.norm_bn(x * gate[..., None]) + x
