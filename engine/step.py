"""The training step."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from data.augment import BatchAugment
from data.datasets.base import ReIDDataset
from data.loaders import Batch, Loader
from data.transfer import send
from engine.precision import ApexPrecision, TorchPrecision
from losses.criterion import Criterion
from utils.run.errors import UserError
from utils.tensors import at_least_float32

Step = Callable[[Batch], dict[str, Tensor]]


@dataclass
class Training:
    """Everything that a training step uses."""

    model: nn.Module
    criterion: Criterion
    optimizer: Optimizer
    augment: BatchAugment
    dataset: ReIDDataset
    loader: Loader  # of the data set's batches
    device: torch.device
    precision: TorchPrecision | ApexPrecision
    compile: bool = False  # model and losses become one graph of fixed shapes


def build_step(training: Training) -> Step:
    """The step as a function of a batch; returns accuracy and losses.

    It never waits for the device: the returned scalars stay there.
    """
    model, device, precision = training.model, training.device, training.precision

    def forward(images: Tensor, labels: Tensor, is_infrared: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with precision.autocast():
            embeddings = model(images)
        with precision.no_autocast():
            embeddings = at_least_float32(embeddings)
            logits = model.classifier(embeddings)
            return logits, training.criterion(embeddings, logits, labels, is_infrared)

    if training.compile:
        forward = compile_graph(forward)

    def step(batch: Batch) -> dict[str, Tensor]:
        model.train()
        images = training.augment(send(batch.images, device), batch.is_infrared)
        labels = send(batch.labels, device)
        logits, losses = forward(images, labels, send(batch.is_infrared, device))
        precision.step(sum(losses.values()), training.optimizer)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return {"cls_acc": accuracy, **{name: loss.detach() for name, loss in losses.items()}}

    return step


def compile_graph(function: Callable) -> Callable:
    """``function`` compiled to one graph of fixed shapes at its first call.

    Raises:
        UserError: torch could not compile it, most often because there is no C++ compiler.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    graph = torch.compile(function, fullgraph=True, dynamic=False)

    def call(*arguments):
        try:
            return graph(*arguments)
        except TorchDynamoException as error:
            why, _, _ = str(error).strip().partition("\n")
            raise UserError(f"compile: torch could not compile the step ({why}); set compile false") from None

    return call
