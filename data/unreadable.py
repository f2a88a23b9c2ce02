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


class _DecodingErrors(Dataset):
    """Dataset of error messages: one per image, None if it can be decoded."""

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
    """Decode every image; return position -> error message of the images that cannot be decoded.

    Args:
        image_size: (height, width) in pixels.
        num_workers: processes that decode; 0 decodes in the main process.
    """
    paths = [dataset.root / path for path in dataset.paths]
    loader = ProcessLoader(
        _DecodingErrors(paths, image_size), batch_size=BATCH, num_workers=num_workers, collate_fn=list
    )
    errors: list[str | None] = []
    bar = tqdm(total=len(paths), desc=f"decode ({dataset.split})", unit=" images", leave=False, disable=None)
    with closing(loader), bar:
        for batch in loader:
            errors += batch
            bar.update(len(batch))
    return {position: message for position, message in enumerate(errors) if message is not None}
