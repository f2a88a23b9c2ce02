"""Hue shift of 8-bit images in batches, equal bit for bit to torchvision's on PIL images (the released one).

PIL quantises hue, saturation and value to 8 bits each; the steps below are its conversions, one after the other.
"""

import torch
from torch import Tensor


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of each image by ``shift`` (B,), a fraction of the full circle in [-0.5, 0.5].

    ``images`` is uint8 (B, 3, H, W), and so is the result.
    """
    hue, saturation, value = _rgb_to_hsv(images)
    steps = (shift.double() * 255).to(torch.int32).to(images.device)  # towards zero, like int()
    return _hsv_to_rgb((hue + steps[:, None, None]) % 256, saturation, value)


# PIL mixes float and double; which step is which decides the last bit, hence the conversions below.
def _rgb_to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    red, green, blue = images.float().unbind(dim=1)
    largest = images.amax(dim=1).float()
    spread = largest - images.amin(dim=1).float()
    grey = spread == 0
    safe = spread.masked_fill(grey, 1)
    rc, gc, bc = ((largest - channel) / safe for channel in (red, green, blue))
    in_green, in_blue = 2 + rc.double() - bc, 4 + gc.double() - rc
    sector = torch.where(red == largest, (bc - gc).double(), torch.where(green == largest, in_green, in_blue))
    turn = torch.fmod(sector.float().double() / 6 + 1, 1).float()
    hue = (turn.double() * 255).int().masked_fill(grey, 0)
    saturation = ((spread / largest.clamp(min=1)).double() * 255).int()
    return hue, saturation, largest.int()


def _hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    turn = hue.double() * 6 / 255
    sector = turn.floor()
    fraction = (turn - sector).float()
    saturation = (saturation.double() / 255).float()
    value = value.double()
    p = _round(value * (1 - saturation.double()))
    q = _round(value * (1 - (saturation * fraction).double()))
    t = _round(value * (1 - saturation * (1 - fraction.double())))
    by_sector = ((value, t, p), (q, value, p), (p, value, t), (p, q, value), (t, p, value), (value, p, q))
    sector = (sector.long() % 6)[:, None]
    rgb = [torch.stack([choice[channel] for choice in by_sector], dim=1).gather(1, sector) for channel in range(3)]
    return torch.cat(rgb, dim=1).to(torch.uint8)


def _round(values: Tensor) -> Tensor:
    """Half away from zero, as C rounds; torch would round half to even."""
    return (values + 0.5).floor().clamp(0, 255)
