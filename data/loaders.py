"""Data loaders: training batches, and images in a given order."""

import multiprocessing
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from data.datasets.images import ImageList, ImageSource
from data.samplers import EpochSampler
from utils.run.errors import LoaderDied
from utils.run.interruption import ignore_signals_in_worker

# parts of torch's messages about dead workers; the thread that pins memory ends if its worker dies while it reads
DEAD_WORKER = ("DataLoader worker", "Pin memory thread exited")


class Batch(NamedTuple):
    """A batch of images. ``images`` may be on another device; the other tensors are on the CPU."""

    images: Tensor  # (B, 3, H, W) uint8
    labels: Tensor  # (B,) int64
    is_infrared: Tensor  # (B,) bool
    indices: Tensor  # (B,) int64, positions in the data set


class ImageBatches(Dataset):
    """Whole batches for a ``DataLoader``, which calls ``__getitems__`` with all positions of a batch.

    Labels and modalities come from ``dataset``, images from ``source``.
    """

    def __init__(self, dataset: ImageList, source: ImageSource):
        self.source = source
        self.labels = torch.from_numpy(dataset.labels)
        self.is_infrared = torch.from_numpy(dataset.infrared)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        indices = torch.from_numpy(np.array(positions, dtype=np.int64))
        return Batch(self.source.take(positions), self.labels[indices], self.is_infrared[indices], indices)


class DirectLoader:
    """Batches made in the main process, with the methods of ``ProcessLoader`` that the project uses.

    For images that are already in memory: a DataLoader would only add copies, and its workers cannot use a GPU.
    """

    def __init__(self, batches: ImageBatches, batch_sampler: EpochSampler | Sequence[Sequence[int]]):
        self.dataset, self.batch_sampler = batches, batch_sampler

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.dataset.__getitems__, self.batch_sampler)

    def close(self) -> None:
        """Nothing to close."""


class ProcessLoader(DataLoader):
    """A DataLoader with persistent workers that ignore SIGINT and delay SIGTERM.

    See :func:`utils.run.interruption.ignore_signals_in_worker`.
    """

    def __init__(self, dataset: Dataset, *, num_workers: int, **options):
        super().__init__(
            dataset,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=ignore_signals_in_worker,
            # a generator of its own, because otherwise each iteration advances the global one
            generator=torch.Generator(),
            **options,
        )

    def __iter__(self) -> Iterator:  # type: ignore[override]  # the hint names a private class
        with _report_dead_workers():
            iterator = super().__iter__()
        if self.num_workers > 0 and threading.current_thread() is threading.main_thread():
            # torch's handler raises at an arbitrary point of the code when a worker dies; without it, fetching the next
            # batch raises
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return self._batches(iterator)

    def _batches(self, iterator: Iterator) -> Iterator:
        with _report_dead_workers():
            yield from iterator

    def close(self) -> None:
        """End the workers now; if the garbage collector ends them, it may take 5 s for each."""
        iterator, self._iterator = self._iterator, None
        if not isinstance(iterator, _MultiProcessingDataLoaderIter):
            return
        if any(worker.exitcode is not None for worker in iterator._workers):
            # one was killed, perhaps while it held a lock of this event; to set the event would then wait for ever
            iterator._workers_done_event = multiprocessing.Event()
            for worker in iterator._workers:
                worker.kill()
        iterator._shutdown_workers()


@contextmanager
def _report_dead_workers() -> Iterator[None]:
    """Raise ``LoaderDied`` instead of torch's error when a worker has died."""
    try:
        yield
    except RuntimeError as error:
        if not any(part in str(error) for part in DEAD_WORKER):
            raise
        raise LoaderDied(
            "a loader process was killed, which happens when memory or /dev/shm is full; lower num_workers, or use"
            " cache device"
        ) from None


Loader = ProcessLoader | DirectLoader


def train_loader(
    dataset: ImageList, source: ImageSource, sampler: EpochSampler, *, num_workers: int, pin_memory: bool
) -> Loader:
    """The batches that ``sampler`` lists."""
    return _loader(ImageBatches(dataset, source), sampler, num_workers=num_workers, pin_memory=pin_memory)


def ordered_loader(
    dataset: ImageList,
    source: ImageSource,
    positions: Sequence[int],
    *,
    batch_size: int,
    num_workers: int,
    pin_memory: bool,
) -> Loader:
    """The images at ``positions``, in that order, once."""
    batches = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
    return _loader(ImageBatches(dataset, source), batches, num_workers=num_workers, pin_memory=pin_memory)


def _loader(
    images: ImageBatches, batches: EpochSampler | Sequence[Sequence[int]], *, num_workers: int, pin_memory: bool
) -> Loader:
    if not images.source.use_workers:
        return DirectLoader(images, batches)
    return ProcessLoader(
        images, batch_sampler=batches, collate_fn=_identity, num_workers=num_workers, pin_memory=pin_memory
    )


def _identity(batch: Batch) -> Batch:
    """Collate nothing, because ``ImageBatches`` returns whole batches.

    It is a named function because spawned workers import it by name.
    """
    return batch
