"""RegDB: 412 identities seen by one visible and one thermal camera, ten published splits."""

from pathlib import Path

import numpy as np

from data.datasets.base import Counts, ReIDDataset, Sample
from data.datasets.lists import file_problem, folder_problem, inside_root, is_file, parse_number, read_lines, require
from utils.protocols import ImageTable, Search
from utils.run.errors import UserError

FOLDERS = {"visible": "Visible", "thermal": "Thermal"}
CAMERAS = {"visible": 2, "thermal": 3}  # as released


class RegDB(ReIDDataset):
    """The identity is the name of the folder; the training label is its index in the sorted identities."""

    name = "RegDB"
    visible_cameras = (CAMERAS["visible"],)
    infrared_cameras = (CAMERAS["thermal"],)
    defaults = {
        "num_id": 206,
        "num_cam": 2,
        "data_root": "../../Datasets/RegDB",
        "mser_k1": 50,
        "mser_k2": 10,
        "mser_lambda": 0.2,
    }
    published = {"train": Counts(206, 2060, 2060), "test": Counts(206, 2060, 2060)}
    num_splits = 10
    selection = ("infrared_to_visible", "visible_to_infrared")

    def list_samples(self) -> list[Sample]:
        """Visible images in the order of their list, then thermal ones."""
        require([
            *(folder_problem(self.root / folder, "RegDB has Visible and Thermal") for folder in FOLDERS.values()),
            *(file_problem(self._index(self.split, modality), self._content(modality)) for modality in FOLDERS),
        ])  # fmt: skip
        listed = {modality: self._read_index(self.split, modality) for modality in FOLDERS}
        identities = {identity for entries in listed.values() for identity in entries.values()}
        self._check_disjoint(identities)
        require([
            f"{self._index(self.split, modality)}: lists no image of identity {identity}, which the other modality has"
            for modality, entries in listed.items()
            for identity in sorted(identities - set(entries.values()))
        ])  # fmt: skip
        require([
            f"{self.root / path}: no such image, but {self._index(self.split, modality)} lists it"
            for modality, entries in listed.items()
            for path in entries
            if not is_file(self.root / path)
        ])  # fmt: skip
        labels = {identity: label for label, identity in enumerate(sorted(identities))}
        return [
            Sample(path, identity, CAMERAS[modality], labels[identity] if self.split == "train" else identity)
            for modality, entries in listed.items()
            for path, identity in entries.items()
        ]

    def _index(self, split: str, modality: str) -> Path:
        return self.root / "idx" / f"{split}_{modality}_{self.trial}.txt"

    def _content(self, modality: str) -> str:
        return f"the {modality} images of split {self.trial}, one 'relative/path label' per line (part of RegDB)"

    def _read_index(self, split: str, modality: str) -> dict[str, int]:
        """Path -> identity, in the order of the list."""
        index = self._index(split, modality)
        entries: dict[str, int] = {}
        for line in read_lines(index, self._content(modality)):
            path, identity = _parse_line(line, index, FOLDERS[modality])
            if path in entries:
                raise UserError(f"{index}: {path} is listed twice")
            entries[path] = identity
        if not entries:
            raise UserError(f"{index}: lists no image")
        return entries

    def _check_disjoint(self, identities: set[int]) -> None:
        """No identity may be both trained on and tested. A missing list is skipped."""
        other = "test" if self.split == "train" else "train"
        for modality in FOLDERS:
            if self._index(other, modality).is_file():
                both = identities & set(self._read_index(other, modality).values())
                if both:
                    raise UserError(
                        f"{self.root / 'idx'}: identity {min(both)} is listed for both training and testing in split"
                        f" {self.trial}"
                    )

    @classmethod
    def protocol(cls, images: ImageTable, root: Path) -> tuple[Search, ...]:
        """Infrared to visible and visible to infrared.

        All images of one modality are queries, all images of the other one are the gallery: ten per identity and
        modality. One gallery per split.
        """
        query, pool = (np.flatnonzero(images.cameras == CAMERAS[modality]) for modality in ("thermal", "visible"))
        for modality, positions in (("thermal", query), ("visible", pool)):
            if not len(positions):
                raise UserError(f"there is no {modality} image (camera {CAMERAS[modality]})")
        locations = cls.locations_of(images.cameras)
        search = Search(
            query=query,
            pool=pool,
            query_locations=locations[query],
            pool_locations=locations[pool],
            galleries={"infrared_to_visible": (np.arange(len(pool)),)},
            neighbours="all",
            reverse="visible_to_infrared",
        )
        return (search,)


def _parse_line(line: str, index: Path, top: str) -> tuple[str, int]:
    """``relative/path label`` -> the path, and the identity, which is the name of the image's folder."""
    words = line.rsplit(maxsplit=1)
    if len(words) != 2 or not words[1].isdecimal():
        raise UserError(f"{index}: expected 'relative/path label', found {line[:80]!r}")
    path = inside_root(words[0], index)
    if path.split("/")[0] != top:
        raise UserError(f"{index}: {words[0][:80]!r} is not below {top}/")
    identity = parse_number(path.split("/")[-2]) if path.count("/") > 1 else None
    if identity is None:
        raise UserError(f"{index}: {words[0][:80]!r} is not in a folder named by its identity")
    return path, identity
