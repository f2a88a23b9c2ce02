"""Modality Distribution Adapter (MDA), MCJA: aligns the channel distributions of the modalities."""

from torch import Tensor, nn


class MDA(nn.Module):
    """Channel attention from m spatial attention maps, with a residual; (B, C, H, W) -> (B, C, H, W).

    Each attention map gives one context vector, the weighted mean of x: contexts are (B, C, m). With
    g = sigmoid(BN(conv(contexts))), (B, C, 1), the output is BN(g x) + x. Parameter names are the released ones.

    Args:
        channels: C.
        modalities: m, the number of attention maps: 2 on SYSU-MM01, 12 on RegDB. The name is the released one; m need
            not be the number of modalities.
    """

    def __init__(self, channels: int, modalities: int = 2):
        super().__init__()
        self.sc_conv = nn.Conv2d(channels, modalities, kernel_size=1)
        self.ca_conv = nn.Conv1d(channels, channels, kernel_size=modalities, groups=channels, bias=False)
        self.ca_bn = nn.BatchNorm1d(channels)
        self.norm_bn = nn.BatchNorm2d(channels)
        # starts as the identity, so a pre-trained backbone is not disturbed
        nn.init.zeros_(self.norm_bn.weight)
        nn.init.zeros_(self.norm_bn.bias)

    def forward(self, x: Tensor) -> Tensor:
        attention = self.sc_conv(x).flatten(2).softmax(dim=2)  # (B, m, HW)
        # in this order the gradient of a channels-last x stays channels-last
        contexts = (attention @ x.flatten(2).transpose(1, 2)).transpose(1, 2)  # (B, C, m)
        gate = self.ca_bn(self.ca_conv(contexts)).sigmoid()  # (B, C, 1)
        return self.norm_bn(x * gate[..., None]) + x
