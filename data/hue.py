"""Hue jitter of 8-bit images, equal bit for bit to torchvision's on PIL images, which the released code uses.

PIL stores hue, saturation and value in 8 bits each, so its rounding is part of the result.
"""

import torch
from torch import Tensor


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of each image.

    Args:
        images: uint8 RGB, (B, 3, H, W).
        shift: (B,) fractions of the hue circle, in [-0.5, 0.5].

    Returns:
        uint8 RGB, (B, 3, H, W).
    """
    hue, saturation, value = rgb_to_hsv(images)
    steps = (shift.double() * 255).to(torch.int32)  # rounds towards zero, as int() does
    hue += steps.to(hue)[:, None, None]  # uint8 overflows; so the hue stays on its circle of 256 steps
    return hsv_to_rgb(hue, saturation, value)


def rgb_to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value as PIL computes them: uint8 (B, 3, H, W) -> three times uint8 (B, H, W)."""
    red, green, blue = images.float().unbind(dim=1)
    value, lowest = images.amax(dim=1), images.amin(dim=1)
    largest = value.float()
    spread = largest - lowest
    saturation = spread * 255 / largest.clamp(min=1)

    divisor = spread.clamp(min=1)
    from_red, from_green, from_blue = ((largest - channel) / divisor for channel in (red, green, blue))
    # float64 as in PIL; the rounding to float32 decides the last bit
    sixths = torch.where(
        red == largest,
        from_blue - from_green,
        torch.where(
            green == largest, 2 + from_red.double() - from_blue, 4 + from_green.double() - from_red
        ).float(),
    )
    turn = sixths / 6
    hue = (turn - turn.floor()) * 255
    return hue.to(torch.uint8), saturation.to(torch.uint8), value


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The inverse of :func:`rgb_to_hsv`, as PIL computes it: three times uint8 (B, H, W) -> uint8 (B, 3, H, W).

    A channel is value * (1 - saturation * loss). The loss depends on the hue: it is 1 around the hue opposite to the
    channel and 0 around the channel's own, and linear in between. All numbers are whole multiples of 1/255 or 1/255^2
    and below 2^24, so float32 is exact until the division.
    """
    angle = hue.short() * 6  # the circle has 6 * 255 units
    saturation, value = saturation.float(), value.float()
    channels = []
    for opposite in (3 * 255, 5 * 255, 1 * 255):  # cyan, magenta, yellow
        loss = ((angle - opposite).abs() - 3 * 255).abs().sub(255).clamp(0, 255)
        channels.append((value * (255 * 255 - saturation * loss) + 255 * 255 // 2) / (255 * 255))
    return torch.stack(channels, dim=1).to(torch.uint8)
