"""Find the images of a split that cannot be decoded."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from torch.utils.data import Dataset
from tqdm import tqdm

from data.datasets.base import ReIDDataset
from data.datasets.images import read_image
from data.loaders import ProcessLoader
from utils.run.errors import UserError

BATCH = 64  # images per task of a worker


class _Attempts(Dataset):
    """Why each image cannot be decoded, or None."""

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


def find_unreadable(dataset: ReIDDataset, image_size: tuple[int, int], *, num_workers: int) -> dict[int, str]:
    """Decode every image. Position -> error message, for those that cannot be decoded.

    Args:
        num_workers: processes that decode; 0 decodes in the main process.
    """
    paths = [dataset.root / path for path in dataset.paths]
    loader = ProcessLoader(_Attempts(paths, image_size), batch_size=BATCH, num_workers=num_workers, collate_fn=list)
    outcomes: list[str | None] = []
    progress = tqdm(total=len(paths), desc=f"decode ({dataset.split})", unit=" images", leave=False, disable=None)
    with closing(loader), progress as bar:
        for batch in loader:
            outcomes += batch
            bar.update(len(batch))
    return {position: message for position, message in enumerate(outcomes) if message is not None}
