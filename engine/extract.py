"""Features of a test set: one forward pass per infrared image, one per spectrum of a visible image."""

from collections.abc import Sequence

import numpy as np
import torch
from ignite.engine import Engine
from ignite.handlers import ProgressBar
from torch import Tensor, nn

from data.augment import normalise
from data.datasets.base import Batch, ReIDDataset
from data.loaders import Loader, ordered_loader
from data.transfer import send
from utils.features import SPECTRA, Features

CHANNELS = {"red": 0, "green": 1, "blue": 2}


class Extractor:
    """Extracts a data set's features with any model; its loaders are made once.

    Args:
        dataset: its infrared images pass once, its visible ones once per spectrum.
        device: where ``model`` is.
        dtype: that convolutions and products are cast to; None computes in float32.
    """

    def __init__(
        self,
        dataset: ReIDDataset,
        device: torch.device,
        *,
        batch_size: int,
        num_workers: int,
        dtype: torch.dtype | None = None,
    ):
        self.dataset, self.device, self.dtype = dataset, device, dtype
        options = {"batch_size": batch_size, "num_workers": num_workers, "pin_memory": device.type == "cuda"}
        self.loaders: dict[str, Loader] = {
            side: ordered_loader(dataset, np.flatnonzero(chosen).tolist(), **options)
            for side, chosen in (("infrared", dataset.infrared), ("visible", ~dataset.infrared))
            if chosen.any()
        }

    def __call__(self, model: nn.Module, *, all_spectra: bool) -> Features:
        """Features in the order of the data set, float32; without ``all_spectra`` of the original images alone."""
        names = SPECTRA if all_spectra else SPECTRA[:1]
        features: np.ndarray | None = None
        was_training = model.training
        model.eval()
        for side, loader in self.loaders.items():
            positions, embeddings = self._pass(model, loader, names if side == "visible" else SPECTRA[:1], side)
            if features is None:
                features = np.empty((len(names), len(self.dataset), embeddings.shape[2]), dtype=np.float32)
            features[:, positions] = embeddings  # infrared images have one spectrum, which stands for all
        model.train(was_training)
        return Features(
            self.dataset.paths,
            self.dataset.identities,
            self.dataset.camera_ids,
            dict(zip(names, features, strict=True)),
        )

    def close(self) -> None:
        """End the loaders' processes."""
        for loader in self.loaders.values():
            loader.close()

    def _pass(self, model: nn.Module, loader: Loader, names: Sequence[str], side: str) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the loader's images (N,), and their embeddings (spectra, N, D)."""
        positions: list[Tensor] = []
        embeddings: list[Tensor] = []  # left on the device until all are there, so that no batch waits for it

        @torch.inference_mode()
        def step(engine: Engine, batch: Batch) -> None:
            images = send(batch.images, self.device)
            positions.append(batch.indices)
            embeddings.append(torch.stack([self._embed(model, spectrum(images, name)) for name in names]))

        engine = Engine(step)
        ProgressBar(desc=f"test ({side})", persist=False, disable=None).attach(engine)
        engine.run(loader)
        return torch.cat(positions).numpy(), torch.cat(embeddings, dim=1).cpu().numpy()

    def _embed(self, model: nn.Module, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return model(normalise(images)).float()


def spectrum(images: Tensor, name: str) -> Tensor:
    """The images themselves, or one of their channels replicated to three: (B, 3, H, W) -> (B, 3, H, W)."""
    if name == "original":
        return images
    channel = CHANNELS[name]
    return images[:, channel : channel + 1].expand_as(images)
