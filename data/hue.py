"""Hue jitter of 8-bit images, equal bit for bit to torchvision's on PIL images, which the released code uses.

PIL stores hue, saturation and value in 8 bits each, so its rounding is part of the result. Two habits of torch matter:
on a CPU, ``where`` and ``remainder`` take as long as twenty other operations; on a GPU, division by a number is
multiplication by its inverse, which is exact enough in float64 only.
"""

import torch
from torch import Tensor


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of each image: uint8 RGB (B, 3, H, W) -> uint8 RGB (B, 3, H, W).

    Args:
        shift: (B,) fractions of the hue circle, in [-0.5, 0.5].
    """
    hue, saturation, value = rgb_to_hsv(images)
    steps = (shift.double() * 255).to(torch.int32)  # towards zero, like int()
    hue = hue + steps.to(torch.uint8)[:, None, None]  # overflows to stay on the circle of 256 steps
    return hsv_to_rgb(hue, saturation, value)


def rgb_to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value as in PIL: uint8 (B, 3, H, W) -> three times uint8 (B, H, W).

    The hue of a grey pixel, which has no meaning, is not PIL's.
    """
    red, green, blue = images.float().unbind(dim=1)
    value = images.amax(dim=1)
    largest, smallest = value.float(), images.amin(dim=1).float()
    spread = largest - smallest
    saturation = spread * 255 / largest.clamp(min=1)

    # PIL divides in float32, adds in float64 (exactly, here) and rounds to float32, which decides the last bit
    lack_red, lack_green, lack_blue = ((largest - c).div_(spread.clamp(min=1)).double() for c in (red, green, blue))
    distance = 2 + lack_red - lack_green - lack_blue  # from red, in sixths of the circle, 0 to 3
    sixths = torch.copysign(distance, (green - blue).double())
    sixths -= 6 * ((sixths + 1) / 6).floor()  # -1 to 5
    turn = sixths.float().double() / 6
    turn -= turn.floor()
    hue = turn.float() * 255
    return hue.to(torch.uint8), saturation.to(torch.uint8), value


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """RGB as in PIL: three times uint8 (B, H, W) -> uint8 (B, 3, H, W).

    A channel is value * (1 - saturation * loss). Its loss is 1 around the opposite hue, 0 around its own hue, and
    linear in between. In units of 1/255 all are whole numbers below 2^24, which float32 holds exactly.
    """
    one = 255
    angle = hue.short() * 6  # 6 * one is the circle
    value, saturation = value.float(), saturation.float()
    channels = []
    for opposite in (3 * one, 5 * one, one):  # cyan, magenta, yellow
        loss = ((angle - opposite).abs() - 3 * one).abs().sub(one).clamp(0, one)
        channel = value * (one**2 - saturation * loss)
        channels.append((channel.double() / one**2).round().to(torch.uint8))  # never half-way between two numbers
    return torch.stack(channels, dim=1)
