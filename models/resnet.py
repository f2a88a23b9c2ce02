"""torchvision's ResNets as backbones, with the last-stride switch and ImageNet weights."""

from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn
from torchvision.models import ResNet, ResNet18_Weights, ResNet34_Weights, ResNet50_Weights
from torchvision.models.resnet import BasicBlock, Bottleneck

from models.loading import read_state_dict
from utils.run.errors import UserError
from utils.run.messages import reason

# name -> block, blocks per stage, ImageNet weights
BACKBONES = {
    "resnet50": (Bottleneck, (3, 4, 6, 3), ResNet50_Weights.IMAGENET1K_V1),
    "resnet34": (BasicBlock, (3, 4, 6, 3), ResNet34_Weights.IMAGENET1K_V1),
    "resnet18": (BasicBlock, (2, 2, 2, 2), ResNet18_Weights.IMAGENET1K_V1),
    "resnet10": (BasicBlock, (1, 1, 1, 1), None),
}


def build_resnet(name: str = "resnet50", *, drop_last_stride: bool = False, pretrained: str | None = None) -> ResNet:
    """A ResNet without its classification head.

    Args:
        name: one of ``BACKBONES``.
        drop_last_stride: stride 1 instead of 2 in the last stage.
        pretrained: ``imagenet`` (through torchvision's weights API), a file with a torchvision state dict, or None or
            ``none`` for random weights.

    Raises:
        UserError: the weights cannot be had; says which file to put where.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; choose from {', '.join(BACKBONES)}")
    block, blocks, _ = BACKBONES[name]
    network = ResNet(block, list(blocks))
    del network.fc  # the head of 1000 classes is never used
    if drop_last_stride:
        for module in network.layer4[0].modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (1, 1)
    if pretrained not in (None, "none"):
        state = _imagenet_state(name) if pretrained == "imagenet" else read_state_dict(pretrained)
        _load(network, state, source=pretrained)
    return network


def _imagenet_state(name: str) -> dict[str, torch.Tensor]:
    weights = BACKBONES[name][2]
    if weights is None:
        raise UserError(f"pretrained: there are no ImageNet weights of {name}; set `pretrained none`")
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[1]
    if file.is_file():
        return read_state_dict(file)  # it may be only a part of what was to be copied there
    try:
        return weights.get_state_dict(check_hash=True, progress=False, map_location="cpu", weights_only=True)
    except (URLError, OSError, RuntimeError, EOFError) as error:
        raise UserError(
            f"pretrained: the ImageNet weights cannot be had ({reason(error)}); put {weights.url} to"
            f" {file}, or set `pretrained` to a file or to none"
        ) from None


def _load(network: ResNet, state: dict[str, torch.Tensor], *, source: str) -> None:
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"pretrained: {source} does not hold the weights of this backbone ({reason(error)})") from None
