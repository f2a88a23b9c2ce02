"""Hue shift of 8-bit images in batches, equal bit for bit to torchvision's on PIL images (the released one).

PIL quantises hue, saturation and value to 8 bits each. Its conversions, one after the other, stand in ``_rgb_to_hs``,
``_grey_share`` and ``_mixed_share``; because little goes into each of them, they are tabulated once and then looked up.
"""

from functools import cache
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = 256
LARGEST, MIDDLE = (0, 1, 1, 2, 2, 0), (1, 0, 2, 1, 0, 2)  # channel, by sixth of the circle


class Tables(NamedTuple):
    """One value for each of what PIL's conversions can meet; flat, so that looking up is one index."""

    hue: Tensor  # uint8, by order of the channels (see ``_order``), largest - middle, largest - smallest
    saturation: Tensor  # uint8, by largest, largest - smallest
    smallest: Tensor  # uint8, smallest channel of the result, by largest, largest - smallest
    share: Tensor  # float64, the middle channel of the result as a share of the largest, by hue, saturation
    places: Tensor  # uint8, by hue: bit c is set where channel c is the largest, bit 3 + c where it is the middle one


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of each image by ``shift`` (B,), a fraction of the full circle in [-0.5, 0.5].

    ``images`` is uint8 (B, 3, H, W), and so is the result.
    """
    tables = hue_tables(images.device)
    red, green, blue = images.unbind(dim=1)
    largest, smallest = (pick(pick(red, green), blue) for pick in (torch.maximum, torch.minimum))
    middle = red + green + blue - largest - smallest  # 8 bits overflow and come back
    spread = largest - smallest

    hue = _look_up(tables.hue, _index(largest - middle, spread).add_(_order(red, green, blue), alpha=LEVELS**2))
    hue += whole_steps(shift).to(images.device, torch.uint8)[:, None, None]  # 8 bits go round like the circle

    by_level = _index(largest, spread)
    smallest = _look_up(tables.smallest, by_level)
    share = _look_up(tables.share, _index(hue, _look_up(tables.saturation, by_level)))
    middle = _round(share.mul_(largest)).to(torch.uint8)

    # sums in 8 bits, which come back, too, and are much faster than choosing
    places = _look_up(tables.places, hue.int())
    above = torch.stack([largest - smallest, middle - smallest], dim=1)
    bits = torch.arange(6, device=images.device, dtype=torch.uint8)[:, None, None]
    chosen = (places[:, None] >> bits).bitwise_and_(1).view(-1, 2, 3, *places.shape[1:])
    return chosen.mul_(above[:, :, None]).sum(dim=1, dtype=torch.uint8).add_(smallest[:, None])


def whole_steps(shift: Tensor) -> Tensor:
    """Turns of the hue as PIL's steps, 0 to 255: fractions of the circle (B,) -> int32 (B,)."""
    return (shift.double() * 255).to(torch.int32) % LEVELS  # towards zero, like int()


def _order(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """Which channels are larger than which, as three bits."""
    bits = (greater.to(torch.uint8) for greater in (red >= green, green >= blue, red >= blue))
    return sum(bit * value for bit, value in zip(bits, (1, 2, 4), strict=True))


@cache
def hue_tables(device: torch.device) -> Tables:
    """Made once for each device."""
    level = torch.arange(LEVELS)
    rows, columns = level[:, None].expand(LEVELS, LEVELS), level.expand(LEVELS, LEVELS)

    hue = torch.zeros(8, LEVELS, LEVELS, dtype=torch.uint8)
    for ranks in permutations(range(3)):  # of red, green and blue; 0 is the largest
        # the middle channel is less by the row, the smallest by the column
        values = [LEVELS - 1 - (0 * rows, torch.minimum(rows, columns), columns)[rank] for rank in ranks]
        order = _order(*(torch.tensor(-rank) for rank in ranks))
        hue[int(order)] = _rgb_to_hs(torch.stack(values)[None])[0][0]

    smallest = (rows - columns).clamp(min=0)
    saturation = _rgb_to_hs(torch.stack([rows, smallest, smallest])[None])[1][0]
    sector, share = _mixed_share(rows, columns)
    # by sector: the channels that are the largest and the middle one
    places = torch.tensor([1 << first | 8 << second for first, second in zip(LARGEST, MIDDLE, strict=True)])
    tables = Tables(
        hue,
        saturation.to(torch.uint8),
        _round(rows.double() * _grey_share(saturation)).to(torch.uint8),
        share,
        places[sector[:, 0]].to(torch.uint8),
    )
    return Tables(*(table.flatten().to(device) for table in tables))


# PIL mixes float and double; which step is which decides the last bit, hence the conversions below.
def _rgb_to_hs(images: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) -> hue and saturation, (B, H, W)."""
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
    return hue, ((spread / largest.clamp(min=1)).double() * 255).int()


def _grey_share(saturation: Tensor) -> Tensor:
    """The smallest channel as a share of the largest."""
    return 1 - (saturation.double() / 255).float().double()


def _mixed_share(hue: Tensor, saturation: Tensor) -> tuple[Tensor, Tensor]:
    """The sixth of the circle that ``hue`` is in, and the middle channel there as a share of the largest."""
    turn = hue.double() * 6 / 255
    sector = turn.floor()
    fraction = (turn - sector).float()
    saturation = (saturation.double() / 255).float()
    rising = 1 - saturation * (1 - fraction.double())
    falling = 1 - (saturation * fraction).double()
    return sector.long() % 6, torch.where(sector.long() % 2 == 0, rising, falling)


def _round(values: Tensor) -> Tensor:
    """Half away from zero, as C rounds; torch would round half to even."""
    return (values + 0.5).floor_().clamp_(0, 255)


def _index(high: Tensor, low: Tensor) -> Tensor:
    return high.int() * LEVELS + low


def _look_up(table: Tensor, index: Tensor) -> Tensor:
    return table.index_select(0, index.flatten()).view(index.shape)
