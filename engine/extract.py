"""Extract the features of a test set.

A visible image has four spectra: the image itself, and its red, green and blue channel, each replicated to three
channels. It takes four forward passes, an infrared image takes one.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from ignite.engine import Engine
from ignite.handlers import ProgressBar
from torch import Tensor, nn

from data.augment import normalise
from data.datasets.images import ImageList, ImageSource
from data.loaders import Batch, Loader, ordered_loader
from engine.device import no_autotuning
from utils.features import SPECTRA, Features
from utils.tensors import send

CHANNELS = {"red": 0, "green": 1, "blue": 2}


class Extractor:
    """Extracts the features of one list of images with any model. The loaders are kept between calls.

    Args:
        source: the source of the images of ``dataset``.
        device: the device of the models.
        dtype: the dtype of the forward pass (autocast); None for float32.
    """

    def __init__(
        self,
        dataset: ImageList,
        source: ImageSource,
        device: torch.device,
        *,
        batch_size: int,
        num_workers: int,
        dtype: torch.dtype | None = None,
    ):
        self.dataset, self.source, self.device, self.dtype = dataset, source, device, dtype
        self.loaders: dict[str, Loader] = {
            modality: ordered_loader(
                dataset,
                source,
                np.flatnonzero(chosen).tolist(),
                batch_size=batch_size,
                num_workers=num_workers,
                pin_memory=device.type == "cuda",
            )
            for modality, chosen in (("infrared", dataset.infrared), ("visible", ~dataset.infrared))
            if chosen.any()
        }

    def __call__(self, model: nn.Module, spectra: Collection[str] = ("original",)) -> Features:
        """Float32 features in the order of the data set.

        Args:
            spectra: names in ``SPECTRA``; ``original`` is always extracted.
        """
        spectra = [name for name in SPECTRA if name in {"original", *spectra}]
        was_training = model.training
        model.eval()
        with no_autotuning():  # the last batch of each loader has a shape of its own
            parts = [
                self._forward_all(model, loader, spectra if modality == "visible" else SPECTRA[:1], modality)
                for modality, loader in self.loaders.items()
            ]
        model.train(was_training)
        dataset, dimensions = self.dataset, parts[0][1].shape[2]
        features = np.empty((len(spectra), len(dataset), dimensions), dtype=np.float32)
        for positions, embeddings in parts:
            features[:, positions] = embeddings  # infrared images have one spectrum, which is copied to all
        return Features(dataset.paths, dataset.identities, dataset.cameras, dict(zip(spectra, features, strict=True)))

    def close(self) -> None:
        """End the loaders' workers."""
        for loader in self.loaders.values():
            loader.close()

    def _forward_all(
        self, model: nn.Module, loader: Loader, spectra: Sequence[str], modality: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the loader's images (N,), and their embeddings (spectra, N, D)."""
        positions: list[Tensor] = []
        embeddings: list[Tensor] = []  # stay on the device until the end, so that no batch synchronises

        @torch.inference_mode()
        def step(engine: Engine, batch: Batch) -> None:
            images, is_infrared = send(batch.images, self.device), send(batch.is_infrared, self.device)
            positions.append(batch.indices)
            parts = [self.embed(model, spectrum(images, name), is_infrared) for name in spectra]
            embeddings.append(torch.stack(parts))

        engine = Engine(step)
        ProgressBar(desc=f"test ({modality})", persist=False, disable=None).attach(engine)
        engine.run(loader)
        return torch.cat(positions).numpy(), torch.cat(embeddings, dim=1).cpu().numpy()

    def embed(self, model: nn.Module, images: Tensor, is_infrared: Tensor) -> Tensor:
        """(B, D) float32 embeddings, in the mode of the model.

        Args:
            images: (B, 3, H, W) uint8, on the device of the extractor.
            is_infrared: (B,) booleans there.
        """
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return model(normalise(images), is_infrared).float()


def spectrum(images: Tensor, name: str) -> Tensor:
    """The images themselves, or one channel replicated to three: (B, 3, H, W) -> (B, 3, H, W)."""
    if name == "original":
        return images
    channel = CHANNELS[name]
    return images[:, channel : channel + 1].expand_as(images)
