"""Features of a test set: one forward pass per infrared image, one per spectrum of a visible image."""

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from torch import Tensor, nn

from data.augment import normalise
from data.base import Batch, ReIDDataset
from data.loaders import Loader, ordered_loader
from utils.features import SPECTRA, Features

CHANNELS = {"red": 0, "green": 1, "blue": 2}


class Extractor:
    """Extracts a data set's features with any model; its loaders are made once.

    Computes in float32, whatever training used.
    """

    def __init__(self, dataset: ReIDDataset, device: torch.device, *, batch_size: int, num_workers: int):
        self.dataset, self.device = dataset, device
        options = {"batch_size": batch_size, "num_workers": num_workers, "pin_memory": device.type == "cuda"}
        self.loaders: dict[str, Loader] = {
            side: ordered_loader(dataset, np.flatnonzero(chosen).tolist(), **options)
            for side, chosen in (("infrared", dataset.infrared), ("visible", ~dataset.infrared))
            if chosen.any()
        }

    def __call__(self, model: nn.Module, *, all_spectra: bool) -> Features:
        """Features in the order of the data set; without ``all_spectra`` of the original images alone."""
        names = SPECTRA if all_spectra else SPECTRA[:1]
        features: dict[str, np.ndarray] = {}

        def store(engine: Engine) -> None:
            positions, embeddings = engine.state.output
            for name in names:
                # infrared images have one spectrum, which stands for all
                values = embeddings.get(name, embeddings["original"])
                if name not in features:
                    features[name] = np.zeros((len(self.dataset), values.shape[1]), dtype=np.float32)
                features[name][positions] = values

        was_training = model.training
        model.eval()
        for side, loader in self.loaders.items():
            engine = Engine(self._step(model, names if side == "visible" else SPECTRA[:1]))
            engine.add_event_handler(Events.ITERATION_COMPLETED, store)
            ProgressBar(desc=f"test ({side})", persist=False, disable=None).attach(engine)
            engine.run(loader)
        model.train(was_training)
        return Features(self.dataset.paths, self.dataset.identities, self.dataset.camera_ids, features)

    def _step(self, model: nn.Module, names: tuple[str, ...]):
        @torch.inference_mode()
        def step(engine: Engine, batch: Batch) -> tuple[np.ndarray, dict[str, np.ndarray]]:
            images = batch.images.to(self.device, non_blocking=True)
            embeddings = {name: model(normalise(spectrum(images, name))).float().cpu().numpy() for name in names}
            return batch.indices.numpy(), embeddings

        return step


def spectrum(images: Tensor, name: str) -> Tensor:
    """The images themselves, or one of their channels replicated to three: (B, 3, H, W) -> (B, 3, H, W)."""
    if name == "original":
        return images
    channel = CHANNELS[name]
    return images[:, channel : channel + 1].expand_as(images)
