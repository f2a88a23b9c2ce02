"""Visible-Infrared Modality Coordinator: augmentations that bring visible images closer to infrared ones (MCJA).

Pure functions on uint8 batches with one set of parameters per image; (B, 3, H, W) -> (B, 3, H, W).
"""

import torch
from torch import Tensor

NOTHING, HUE, GRAYSCALE, CUTMIX, JITTER = range(5)  # what is done to a visible image's colours


def weighted_grayscale(images: Tensor, weights: Tensor) -> Tensor:
    """Grey image as the weighted sum of the channels, truncated to 8 bits; ``weights`` (B, 3) sum to 1 per image."""
    weights = torch.as_tensor(weights, dtype=torch.float32, device=images.device)
    grey = (images * weights[:, :, None, None]).sum(dim=1, keepdim=True)
    return grey.clamp(0, 255).to(torch.uint8).repeat(1, 3, 1, 1)


def channel_cutmix(images: Tensor, background: Tensor, foreground: Tensor, box: Tensor) -> Tensor:
    """One channel with a rectangle of another one, replicated to three channels.

    Args:
        background, foreground: (B,) channel numbers 0, 1, 2.
        box: (B, 4) top, left, height, width in pixels; what lies outside the image is cut off.
    """
    inside = box_mask(box, images.shape[-2:], images.device)[:, None]
    return torch.where(inside, take_channel(images, foreground), take_channel(images, background)).repeat(1, 3, 1, 1)


def spectrum_jitter(images: Tensor, channel: Tensor, factor: Tensor) -> Tensor:
    """Blend with one channel, factor x original + (1 - factor) x channel; ``channel`` and ``factor`` are (B,)."""
    spectrum = take_channel(images, channel).float()
    factor = torch.as_tensor(factor, dtype=torch.float32, device=images.device)
    blended = spectrum + factor[:, None, None, None] * (images.float() - spectrum)
    return blended.clamp(0, 255).to(torch.uint8)  # truncated, as released


def take_channel(images: Tensor, channel: Tensor) -> Tensor:
    """The channel numbered per image: (B, C, H, W), (B,) -> (B, 1, H, W)."""
    rows = torch.arange(len(images), device=images.device)
    return images[rows, torch.as_tensor(channel, dtype=torch.long, device=images.device)][:, None]


def box_mask(box: Tensor, size: tuple[int, int], device: torch.device) -> Tensor:
    """(B, 4) top, left, height, width -> (B, H, W), true inside the box."""
    top, left, height, width = torch.as_tensor(box, dtype=torch.long, device=device)[:, :, None].unbind(dim=1)
    rows = torch.arange(size[0], device=device)
    columns = torch.arange(size[1], device=device)
    in_rows = (rows >= top) & (rows < top + height)
    in_columns = (columns >= left) & (columns < left + width)
    return in_rows[:, :, None] & in_columns[:, None, :]
