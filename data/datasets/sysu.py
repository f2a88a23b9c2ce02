"""SYSU-MM01: six cameras, 491 identities, fixed gallery permutations."""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from data.datasets.base import ReIDDataset, Sample
from data.datasets.lists import is_file, list_files, parse_identities, parse_number, read_lines, require_folder
from data.datasets.permutations import Permutations, read_permutation_file
from utils.run.errors import Checks, UserError

PERMUTATION_FILE = "exp/rand_perm_cam.mat"
ID_LISTS = {"train": ("exp/train_id.txt", "exp/val_id.txt"), "test": ("exp/test_id.txt",)}  # relative to the root


class SYSU(ReIDDataset):
    """Training uses the train and val lists; the label is the identity's position in them, one after the other."""

    name = "SYSU-MM01"
    cameras = (1, 2, 3, 4, 5, 6)
    defaults = {
        "num_id": 395,
        "num_cam": 6,
        "data_root": "../../Datasets/SYSU-MM01",
        "mser_k1": 40,
        "mser_k2": 20,
        "mser_lambda": 0.3,
    }

    def list_samples(self) -> list[Sample]:
        identities: list[int] = []
        lists = Checks()
        with lists.check():
            identities = self._read_identities(ID_LISTS[self.split])
            self._check_disjoint(identities)
        with lists.check():
            self.permutations = read_permutations(self.root)
        for camera in self.cameras:
            with lists.check():
                require_folder(self.root / f"cam{camera}", "SYSU-MM01 has cam1 ... cam6")
        lists.finish()

        samples, images = [], Checks()
        for camera, (label, identity) in product(self.cameras, enumerate(identities)):
            with images.check():
                samples += [
                    Sample(path, identity, camera, label if self.split == "train" else identity)
                    for path in self._list_images(camera, identity)
                ]
        images.finish()
        self._check_identities(samples, identities)
        return sorted(samples)

    def _read_identities(self, names: Sequence[str]) -> list[int]:
        identities, lists = [], Checks()
        for name in names:
            with lists.check():
                lines = read_lines(self.root / name, "identities in one line, 1,2,4, and comes with SYSU-MM01")
                words = [word.strip() for line in lines for word in line.split(",")]
                identities += parse_identities([word for word in words if word], self.root / name)
        lists.finish()
        twice = [identity for identity, count in Counter(identities).items() if count > 1]
        if twice:
            raise UserError(f"{self.root / 'exp'}: identity {twice[0]} is in both {' and '.join(names)}")
        if not identities:
            raise UserError(f"{self.root / names[0]}: lists no identity")
        return identities

    def _check_disjoint(self, identities: list[int]) -> None:
        """No identity may be both trained on and tested; a list of the other split that is not there needs no check."""
        other = "test" if self.split == "train" else "train"
        names = [name for name in ID_LISTS[other] if is_file(self.root / name)]
        both = set(identities) & set(self._read_identities(names)) if names else set()
        if both:
            raise UserError(f"{self.root / 'exp'}: identity {min(both)} is listed for both training and testing")

    def _list_images(self, camera: int, identity: int) -> list[str]:
        folder = f"cam{camera}/{identity:04d}"
        # only numbers are instances: copies and what file managers leave behind are no images of the data set
        images: dict[int, str] = {}
        for name in list_files(self.root / folder):
            instance = parse_number(name.removesuffix(".jpg")) if name.endswith(".jpg") else None
            if instance in images:
                raise UserError(f"{self.root / folder}: {images[instance]} and {name} are one instance; remove one")
            if instance is not None:
                images[instance] = name
        expected = self.permutations.get((camera, identity))
        if expected is not None and not images:
            raise UserError(
                f"{self.root / folder}: holds no image, though {PERMUTATION_FILE} counts {expected.shape[1]};"
                " unpack it again"
            )
        missing = set() if expected is None else set(expected[0].tolist()) - images.keys()
        if missing:
            raise UserError(
                f"{self.root / folder / f'{min(missing):04d}.jpg'}: no such image, though {PERMUTATION_FILE} lists it"
            )
        return [f"{folder}/{name}" for name in images.values()]

    def _check_identities(self, samples: list[Sample], identities: list[int]) -> None:
        empty, seen = Checks(), {sample.identity for sample in samples}
        for identity in identities:
            with empty.check():
                if identity not in seen:
                    raise UserError(
                        f"{self.root}/cam*/{identity:04d}: no image of identity {identity} in any camera,"
                        f" though {' or '.join(ID_LISTS[self.split])} lists it"
                    )
        empty.finish()


def read_permutations(root: str | Path) -> Permutations:
    """The fixed gallery permutations of ``exp/rand_perm_cam.mat``.

    Raises:
        UserError: missing file, or one that does not have the published structure.
    """
    return read_permutation_file(Path(root) / PERMUTATION_FILE, SYSU.cameras)
