"""Loaders of training batches and of images in order."""

from collections.abc import Sequence

import torch
from torch.utils.data import DataLoader, Subset

from data.base import ReIDDataset
from data.samplers import EpochSampler


def train_loader(dataset: ReIDDataset, sampler: EpochSampler, *, num_workers: int, pin_memory: bool) -> DataLoader:
    """Batches as ``sampler`` lists them; ``loader.batch_sampler`` is the sampler."""
    return DataLoader(dataset, batch_sampler=sampler, **_common(num_workers, pin_memory))


def ordered_loader(
    dataset: ReIDDataset, positions: Sequence[int], *, batch_size: int, num_workers: int, pin_memory: bool
) -> DataLoader:
    """The images at ``positions``, in that order, once."""
    return DataLoader(Subset(dataset, positions), batch_size=batch_size, **_common(num_workers, pin_memory))


def _common(num_workers: int, pin_memory: bool) -> dict[str, object]:
    return {
        "num_workers": num_workers,
        "pin_memory": pin_memory,
        "persistent_workers": num_workers > 0,
        # its own, because iterating a loader draws a seed: from the global one it would change what comes after it
        "generator": torch.Generator(),
    }
