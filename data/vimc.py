"""Visible-Infrared Modality Coordinator (VIMC), MCJA: augmentations that make visible images more like infrared ones.

Pure functions on uint8 batches (B, 3, H, W) -> (B, 3, H, W), with parameters for each image.
"""

import torch
from torch import Tensor


def weighted_grayscale(images: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of the channels, truncated to 8 bits as released, and replicated to three channels.

    Args:
        weights: (B, 3) weights of the channels; their sum is 1 for each image.
    """
    weights = torch.as_tensor(weights, dtype=torch.float32, device=images.device)
    grey = (images * weights[:, :, None, None]).sum(dim=1, keepdim=True)
    return _three_channels(grey.clamp(0, 255).to(torch.uint8))


def channel_cutmix(images: Tensor, background: Tensor, foreground: Tensor, box: Tensor) -> Tensor:
    """Take one channel, replace a rectangle by another channel, and replicate to three channels.

    Args:
        background: (B,) number of the channel to start from: 0, 1 or 2.
        foreground: (B,) number of the channel that fills the rectangle.
        box: (B, 4) top, left, height, width in pixels; parts outside the image are ignored.
    """
    inside = _inside(box, images)
    return _three_channels(torch.where(inside, _channel(images, foreground), _channel(images, background)))


def spectrum_jitter(images: Tensor, channel: Tensor, factor: Tensor) -> Tensor:
    """factor * image + (1 - factor) * channel, truncated to 8 bits as released.

    Args:
        channel: (B,) number of the channel: 0, 1 or 2.
        factor: (B,) in [0, 1]; 1 leaves the image as it is.
    """
    spectrum = _channel(images, channel).float()
    factor = torch.as_tensor(factor, dtype=torch.float32, device=images.device)
    blended = images.float().sub_(spectrum).mul_(factor[:, None, None, None]).add_(spectrum)
    return blended.clamp_(0, 255).to(torch.uint8)


def _channel(images: Tensor, channel: Tensor) -> Tensor:
    """(B, C, H, W), (B,) channel numbers -> (B, 1, H, W)."""
    rows = torch.arange(len(images), device=images.device)
    return images[rows, torch.as_tensor(channel, dtype=torch.long, device=images.device)][:, None]


def _three_channels(grey: Tensor) -> Tensor:
    """(B, 1, H, W) -> (B, 3, H, W)."""
    return grey.repeat(1, 3, 1, 1)


def _inside(box: Tensor, images: Tensor) -> Tensor:
    """(B, 4) top, left, height, width -> (B, 1, H, W), true inside the box."""
    height, width = images.shape[-2:]
    box = torch.as_tensor(box, dtype=torch.long, device=images.device)
    top, left, rows, columns = box[:, :, None, None, None].unbind(dim=1)
    y = torch.arange(height, device=images.device)[:, None]
    x = torch.arange(width, device=images.device)
    return (y >= top) & (y < top + rows) & (x >= left) & (x < left + columns)
