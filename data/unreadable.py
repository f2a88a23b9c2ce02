"""Trying every image of a split, and leaving out of training those that cannot be read."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset
from tqdm import tqdm

from data.datasets.base import ReIDDataset
from data.datasets.images import read_image
from data.loaders import ProcessLoader
from utils.run.errors import Checks, UserError

BATCH = 64  # images per task of a process


class _Attempts(Dataset):
    """For each image why it cannot be read, or None."""

    def __init__(self, paths: Sequence[Path], image_size: tuple[int, int]):
        self.paths, self.image_size = paths, image_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> str | None:
        try:
            read_image(self.paths[position], self.image_size)
        except UserError as error:
            return str(error)
        return None


def find_unreadable(dataset: ReIDDataset, *, num_workers: int) -> dict[int, str]:
    """Tries every image file: position -> why it cannot be read, for those that cannot.

    Args:
        num_workers: processes that decode; 0 decodes in this one.
    """
    paths = [dataset.root / path for path in dataset.paths]
    attempts = ProcessLoader(
        _Attempts(paths, dataset.image_size), batch_size=BATCH, num_workers=num_workers, collate_fn=list
    )
    outcomes: list[str | None] = []
    progress = tqdm(total=len(paths), desc=f"try ({dataset.split})", unit=" images", leave=False, disable=None)
    with closing(attempts), progress as bar:
        for batch in attempts:
            outcomes += batch
            bar.update(len(batch))
    return {position: reason for position, reason in enumerate(outcomes) if reason is not None}


def leave_out(dataset: ReIDDataset, reasons: Mapping[int, str]) -> None:
    """Take the images at these positions out of the samples; the summary then names each.

    Raises:
        UserError: an identity would lose all its images, or those of one modality.
    """
    kept = np.ones(len(dataset), dtype=bool)
    kept[list(reasons)] = False
    _require_kept(dataset, kept)
    dataset.leave_out(reasons)


def _require_kept(dataset: ReIDDataset, kept: np.ndarray) -> None:
    lost = Checks()
    for identity in np.unique(dataset.identities[~kept]).tolist():
        images = dataset.identities == identity
        visible, infrared = (images & (dataset.infrared == side) for side in (False, True))
        for kind, which in (("", images), ("visible ", visible), ("infrared ", infrared)):
            if which.any() and not (which & kept).any():
                with lost.check():
                    raise UserError(
                        f"{dataset.root / dataset.paths[which][0]}: skip_unreadable would leave no {kind}image of"
                        f" identity {identity} ({which.sum()} cannot be read); repair them, or take the identity out"
                        " of the lists"
                    )
                break
    lost.finish()
