"""Where the network looks: attention maps of the adapters, and Grad-CAM of the match of two embeddings."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from data.augment import normalise
from data.datasets.images import read_image
from models import Network
from models.mda import MDA

MAPS = 2  # shown per adapter
AVERAGED = 32  # images per modality whose maps are averaged


class Map(NamedTuple):
    """An image, and a map over it."""

    title: str
    image: np.ndarray  # (H, W, 3) uint8
    heat: np.ndarray | None = None  # (h, w) 0 to 1, stretched over the image


def load(paths: Sequence[Path], image_size: tuple[int, int], resize: str) -> Tensor:
    """(B, 3, H, W) uint8."""
    return torch.stack([torch.from_numpy(read_image(path, image_size, resize)) for path in paths])


def adapter_maps(model: nn.Module, images: Tensor, infrared: Tensor) -> dict[str, Tensor]:
    """Attention maps of the last adapter of each stage that has adapters: name -> (B, m, h, w), uniform attention is 1.

    Empty if the network has no adapter.

    Args:
        images: (B, 3, H, W) uint8.
        infrared: (B,) bool.
    """
    last = {name.split(".")[0]: module for name, module in model.named_modules() if isinstance(module, MDA)}
    with torch.no_grad(), _outputs({name: adapter.sc_conv for name, adapter in last.items()}) as logits:
        model(normalise(images), infrared)
    return {
        name: values.flatten(2).softmax(dim=2).view_as(values) * values[0, 0].numel() for name, values in logits.items()
    }


def match_maps(model: Network, images: Tensor, infrared: Tensor) -> Tensor:
    """Grad-CAM of the product of two embeddings, at the last stage of the backbone: (2, h, w), maximum 1.

    Bright places raise the product (Selvaraju et al., ICCV 2017). The embeddings are not normalised: the gradient of a
    cosine similarity vanishes where two embeddings agree.

    Args:
        images: (2, 3, H, W) uint8.
        infrared: (2,) bool.
    """
    with torch.enable_grad(), _outputs({"last": model.last_stage}) as found:
        embeddings = model(normalise(images), infrared).float()
        (gradient,) = torch.autograd.grad((embeddings[0] * embeddings[1]).sum(), found["last"])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = (weights * found["last"]).sum(dim=1).relu().detach()
    return maps / maps.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-12)


def shown_maps(
    model: Network,
    paths: Mapping[str, Path],
    infrared: Sequence[bool],
    size: tuple[int, int],
    resize: str,
    device: torch.device,
) -> list[list[Map]]:
    """Per image: itself, its adapters' maps, and Grad-CAMs. The first image is the query.

    The other images have the Grad-CAM of their product with the query; the query has that with the second image.

    Args:
        paths: title -> image.
        size: (height, width) of the network's images in pixels.
        resize: the filter of the resize, a name in ``RESIZES``.
    """
    images, sides = load(list(paths.values()), size, resize).to(device), torch.tensor(infrared, device=device)
    adapters = adapter_maps(model, images, sides)
    rows = []
    for number, title in enumerate(paths):
        image = images[number].permute(1, 2, 0).cpu().numpy()
        pair = [0, max(number, 1)]
        match = match_maps(model, images[pair], sides[pair])[min(number, 1)]
        of_image = {name: maps[number] for name, maps in adapters.items()}
        grad_cam = Map("Grad-CAM", image, match.float().cpu().numpy())
        rows.append([Map(title, image), *_shown_adapters(image, of_image), grad_cam])
    return rows


def average_maps(
    model: nn.Module, paths: Mapping[str, Sequence[Path]], size: tuple[int, int], resize: str, device: torch.device
) -> list[list[Map]]:
    """Per modality: the mean image, and the means of the adapters' maps; empty without adapters.

    Args:
        paths: modality -> images.
    """
    rows = []
    for modality, chosen in paths.items():
        images = load(chosen, size, resize).to(device)
        sides = torch.full((len(images),), modality == "infrared", device=device)
        image = images.float().mean(dim=0).permute(1, 2, 0).to(torch.uint8).cpu().numpy()
        means = {name: maps.mean(dim=0) for name, maps in adapter_maps(model, images, sides).items()}
        rows.append([Map(f"{modality}\nmean of {len(images)}", image), *_shown_adapters(image, means)])
    return rows if len(rows[0]) > 1 else []


def _shown_adapters(image: np.ndarray, adapters: Mapping[str, Tensor]) -> list[Map]:
    """The first maps of each adapter, each relative to its own maximum; the title has its range.

    Args:
        adapters: name -> (m, h, w), uniform attention is 1.
    """
    shown = []
    for name, maps in adapters.items():
        for number, values in enumerate(maps[:MAPS].float().cpu().numpy(), start=1):
            title = f"{name}\nmap {number} of {len(maps)}\n{values.min():.2g}–{values.max():.2g} ×"
            shown.append(Map(title, image, values / values.max()))
    return shown


@contextmanager
def _outputs(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """The outputs of modules in the forward passes of the block, by name."""
    found: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: found.__setitem__(name, output))
        for name, module in modules.items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
