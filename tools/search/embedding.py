"""Embed images of any folder with the network of a checkpoint."""

import hashlib
import json
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from configs.continuing import MAY_CHANGE
from data.datasets.images import ImageFiles
from data.folder import FolderImages
from engine import build_mser
from engine.extract import Extractor
from engine.precision import inference_dtype
from tools.checkpoint import open_checkpoint

# keys that do not change embeddings; all others count, so that a key added later is not forgotten
NO_EFFECT = (*MAY_CHANGE, "output_dir", "prefix", "resume", "test_batch_size", "test_only")


class Embedder:
    """The network of a checkpoint, as a function from images to normalised embeddings.

    Attributes:
        digest: hash of all that decides the embeddings: checkpoint, configuration and dtype.
        mser: the configured hyper-parameters of MSER.
    """

    def __init__(self, checkpoint: Path, cfg_file: Path | None, device: torch.device):
        self.cfg, self.model = open_checkpoint(checkpoint, cfg_file, device)
        self.device = device
        self.dtype = inference_dtype(device, fp16=self.cfg.fp16, amp_dtype=self.cfg.amp_dtype)
        keys = {key: value for key, value in self.cfg.items() if key not in NO_EFFECT}
        digest = hashlib.sha256(json.dumps([keys, str(self.dtype)], sort_keys=True).encode())
        digest.update(hashlib.sha256(checkpoint.read_bytes()).digest())
        self.digest = digest.hexdigest()
        self.mser = build_mser(self.cfg)

    def __call__(self, images: FolderImages, spectra: Collection[str] = ("original",)) -> dict[str, np.ndarray]:
        """Normalised embeddings of each spectrum, (N, D) float32. Infrared images have the same in all spectra.

        Raises:
            UserError: an image cannot be read, or an embedding is not finite.
        """
        extractor = Extractor(
            images,
            ImageFiles(images, self.cfg.image_size, resize=self.cfg.resize),
            self.device,
            batch_size=self.cfg.test_batch_size,
            num_workers=self.workers(len(images)),
            dtype=self.dtype,
        )
        with closing(extractor):
            features = extractor(self.model, spectra)
        names = list(features.spectra)
        features.require_finite(names)
        return dict(zip(names, features.normalised(names, np.arange(len(images))).numpy(), strict=True))

    def workers(self, images: int) -> int:
        """Processes that decode. A single batch is not worth starting them."""
        return self.cfg.num_workers if images > self.cfg.test_batch_size else 0
