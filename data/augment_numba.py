"""Augmentation on the CPU: the same as in :mod:`data.augment`, image after image, compiled by numba.

An image stays in the cache while all that is drawn for it is done to it. The values are those of the batch, bit for
bit: the same operations in the same order.
"""

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from data.hue import Tables
from data.vimc import CUTMIX, GRAYSCALE, HUE, JITTER
from utils.kernels.compiled import compiled


def augment_each(
    images: Tensor,
    colour: Tensor,
    hue: Tensor,
    weights: Tensor,
    channels: Tensor,
    cutmix_box: Tensor,
    factor: Tensor,
    flip: Tensor,
    shift: Tensor,
    erase_box: Tensor,
    *,
    tables: Tables,
    levels: Tensor,
    padding: int,
) -> Tensor:
    """uint8 (B, 3, H, W) -> normalised float32 (B, 3, H, W).

    Args:
        colour ... erase_box: see :class:`data.augment.Parameters`; ``hue`` (B,) in PIL's 256 steps.
        tables: of the hue.
        levels: (3, 256) normalised value of each grey level, by channel.
        padding: grey level of what the crop has beyond the image.
    """
    drawn = (colour, hue, weights, channels, cutmix_box, factor, flip, shift, erase_box)
    arrays = (values.contiguous().numpy() for values in (images, *drawn, levels, *tables))
    return torch.from_numpy(_augment_each(*arrays, padding))


@compiled
def _augment_each(
    images, colour, turn, weights, channels, cutmix_box, factor, flip, shift, erase_box,
    levels, hues, saturations, smallest, shares, places, padding,
):  # fmt: skip
    result = np.empty(images.shape, dtype=np.float32)
    for i in prange(len(images)):
        image = images[i]
        if colour[i] == HUE:
            image = _turn_hue(image, turn[i], hues, saturations, smallest, shares, places)
        elif colour[i] == GRAYSCALE:
            image = _grey(image, weights[i])
        elif colour[i] == CUTMIX:
            image = _cut_and_mix(image, channels[i], cutmix_box[i])
        elif colour[i] == JITTER:
            image = _jitter(image, channels[i, 0], factor[i])
        _finish(image, flip[i], shift[i], erase_box[i], levels, padding, result[i])
    return result


@njit
def _turn_hue(image, turn, hues, saturations, smallest, shares, places):
    """See :func:`data.hue.adjust_hue`."""
    result = np.empty_like(image)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            red, green, blue = np.int32(image[0, y, x]), np.int32(image[1, y, x]), np.int32(image[2, y, x])
            largest, least = max(red, green, blue), min(red, green, blue)
            spread = largest - least
            order = np.int32(red >= green) + 2 * np.int32(green >= blue) + 4 * np.int32(red >= blue)
            between = largest - (red + green + blue - largest - least)
            hue = (np.int32(hues[(order * 256 + between) * 256 + spread]) + turn) & 255
            by_level = largest * 256 + spread
            low = np.int32(smallest[by_level])
            share = shares[hue * 256 + np.int32(saturations[by_level])]
            middle = np.int32(min(max(np.floor(share * largest + 0.5), 0.0), 255.0))
            place = places[hue]
            for channel in range(3):
                value = low
                if place >> channel & 1:
                    value += largest - low
                if place >> (3 + channel) & 1:
                    value += middle - low
                result[channel, y, x] = value
    return result


@njit
def _grey(image, weights):
    result = np.empty_like(image)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            grey = np.float32(image[0, y, x]) * weights[0]
            grey += np.float32(image[1, y, x]) * weights[1]
            grey += np.float32(image[2, y, x]) * weights[2]
            result[:, y, x] = np.uint8(min(max(grey, np.float32(0)), np.float32(255)))
    return result


@njit
def _cut_and_mix(image, channels, box):
    result = np.empty_like(image)
    result[:] = image[channels[0]]
    top, left, height, width = box
    result[:, top : top + height, left : left + width] = image[channels[1], top : top + height, left : left + width]
    return result


@njit
def _jitter(image, channel, factor):
    result = np.empty_like(image)
    for c in range(3):
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                spectrum = np.float32(image[channel, y, x])
                blended = spectrum + factor * (np.float32(image[c, y, x]) - spectrum)
                result[c, y, x] = np.uint8(min(max(blended, np.float32(0)), np.float32(255)))
    return result


@njit
def _finish(image, flip, shift, erase_box, levels, padding, result):
    """Flip, crop, normalise and erase."""
    height, width = image.shape[1:]
    down, right = shift
    low, high = min(max(-right, 0), width), max(min(width - right, width), 0)  # columns that the image has
    for channel in range(3):
        level = levels[channel]
        for y in range(height):
            row = result[channel, y]
            if not 0 <= y + down < height or low >= high:
                row[:] = level[padding]
                continue
            row[:low] = level[padding]
            row[high:] = level[padding]
            source = image[channel, y + down]
            if flip:
                source = source[::-1]
            source, target = source[low + right : high + right], row[low:high]
            for x in range(len(target)):
                target[x] = level[source[x]]
    top, left, rows, columns = erase_box
    result[:, top : top + rows, left : left + columns] = 0
