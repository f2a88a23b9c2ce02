"""Hue jitter of 8-bit images, equal bit for bit to torchvision's on PIL images, which the released code uses.

PIL stores hue, saturation and value in 8 bits each, so its rounding is part of the result. Two facts about torch
explain the code. On a CPU, ``where`` and ``remainder`` take as long as twenty other operations. On a GPU, division by a
constant is computed as multiplication by its inverse, which is exact enough in float64 only.
"""

import torch
from torch import Tensor

FULL = 255  # largest 8-bit value


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of each image: uint8 RGB (B, 3, H, W) -> uint8 RGB (B, 3, H, W).

    Args:
        shift: (B,) fractions of the hue circle, in [-0.5, 0.5].
    """
    hue, saturation, value = rgb_to_hsv(images)
    steps = (shift.double() * 255).to(torch.int32)  # towards zero, like int()
    hue = hue + steps.to(torch.uint8)[:, None, None]  # uint8 overflow wraps around the hue circle
    return hsv_to_rgb(hue, saturation, value)


def rgb_to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value as in PIL: uint8 (B, 3, H, W) -> three times uint8 (B, H, W).

    For grey pixels the hue differs from PIL's; it has no effect because the saturation is 0.
    """
    red, green, blue = images.float().unbind(dim=1)
    value = images.amax(dim=1)
    largest, smallest = value.float(), images.amin(dim=1).float()
    spread = largest - smallest
    saturation = spread * 255 / largest.clamp(min=1)

    # PIL divides in float32, adds in float64 (exactly, here) and rounds to float32, which decides the last bit
    # gap: difference to the largest channel, 0 to 1
    red_gap, green_gap, blue_gap = ((largest - c).div_(spread.clamp(min=1)).double() for c in (red, green, blue))
    distance = 2 + red_gap - green_gap - blue_gap  # from red, in sixths of the hue circle, 0 to 3
    hue_in_sixths = torch.copysign(distance, (green - blue).double())
    hue_in_sixths += 6 * (hue_in_sixths < -1)  # -1 to 5
    fraction = hue_in_sixths.float().double() / 6  # of the hue circle
    fraction -= fraction.floor()  # 0 to 1
    hue = fraction.float() * 255
    return hue.to(torch.uint8), saturation.to(torch.uint8), value


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """RGB as in PIL: three times uint8 (B, H, W) -> uint8 (B, 3, H, W).

    A channel is value * (1 - saturation * reduction). The reduction is 1 around the opposite hue, 0 around the
    channel's own hue, and linear in between. Scaled by 255, each factor is a whole number, and the product is below
    2^24, so float32 holds it exactly.
    """
    angle = hue.short() * 6  # the whole circle is 6 * FULL
    value, saturation = value.float(), saturation.float()
    channels = []
    for opposite in (3 * FULL, 5 * FULL, FULL):  # cyan, magenta, yellow
        reduction = ((angle - opposite).abs() - 3 * FULL).abs().sub(FULL).clamp(0, FULL)
        channel = value * (FULL**2 - saturation * reduction)
        # there are no ties, because 255^2 is odd, so the rounding mode does not matter
        channels.append((channel.double() / FULL**2).round().to(torch.uint8))
    return torch.stack(channels, dim=1)
