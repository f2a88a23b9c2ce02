"""Loaders of training batches and of images in order."""

import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader, Dataset

from data.datasets.base import Batch, ReIDDataset
from data.samplers import EpochSampler
from utils.run.errors import LoaderDied
from utils.run.interruption import ignore_signals_in_worker


class DirectLoader:
    """Batches taken in the process that iterates, as the part of a DataLoader's interface that is used here.

    For images that are in place already: a DataLoader would only add copies and, on a GPU, could not have workers.
    """

    def __init__(self, dataset: ReIDDataset, batch_sampler: Iterable[Sequence[int]]):
        self.dataset, self.batch_sampler = dataset, batch_sampler

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.dataset.__getitems__, self.batch_sampler)

    def close(self) -> None:
        """Nothing to end."""


class ProcessLoader(DataLoader):
    """A DataLoader whose processes leave signals to the main one, last until they are ended, and end when told to."""

    def __init__(self, dataset: Dataset, *, num_workers: int, **options):
        super().__init__(
            dataset,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=ignore_signals_in_worker,
            # its own, because iterating a loader draws a seed: from the global one it would change what comes after it
            generator=torch.Generator(),
            **options,
        )

    def __iter__(self) -> Iterator:
        with _deaths_reported():
            iterator = super().__iter__()
        if self.num_workers > 0 and threading.current_thread() is threading.main_thread():
            # torch's handler would raise in the middle of whatever the program does when a process dies; without it,
            # that shows when the next batch is asked for
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return self._batches(iterator)

    def _batches(self, iterator: Iterator) -> Iterator:
        with _deaths_reported():
            yield from iterator

    def close(self) -> None:
        """End the processes now; the garbage collector, or the end of the program, may take 5 s for each of them."""
        iterator, self._iterator = self._iterator, None
        if self.num_workers > 0 and iterator is not None:
            iterator._shutdown_workers()


@contextmanager
def _deaths_reported() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LoaderDied(
            "a loader process was killed, as systems do that run out of memory or of /dev/shm; lower num_workers,"
            " or use `cache device`"
        ) from None


Loader = ProcessLoader | DirectLoader


def train_loader(dataset: ReIDDataset, sampler: EpochSampler, *, num_workers: int, pin_memory: bool) -> Loader:
    """Batches as ``sampler`` lists them; ``loader.batch_sampler`` is the sampler."""
    return _loader(dataset, sampler, num_workers=num_workers, pin_memory=pin_memory)


def ordered_loader(
    dataset: ReIDDataset, positions: Sequence[int], *, batch_size: int, num_workers: int, pin_memory: bool
) -> Loader:
    """The images at ``positions``, in that order, once."""
    batches = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
    return _loader(dataset, batches, num_workers=num_workers, pin_memory=pin_memory)


def _loader(dataset: ReIDDataset, batches: Iterable[Sequence[int]], *, num_workers: int, pin_memory: bool) -> Loader:
    if not dataset.source.for_workers:
        return DirectLoader(dataset, batches)
    return ProcessLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        pin_memory=pin_memory,
    )


def _as_it_is(batch: Batch) -> Batch:
    """The data set gives whole batches; a function with a name, because spawned workers get it by its name."""
    return batch
