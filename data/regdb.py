"""RegDB: 412 identities seen by a pair of a visible and a thermal camera, ten published splits."""

from pathlib import Path

from data.base import ReIDDataset, Sample, inside_root, read_lines
from utils.errors import UserError

VISIBLE_CAMERA, THERMAL_CAMERA = 2, 3  # so that camera 3 is infrared in both data sets


class RegDB(ReIDDataset):
    """The identity is the folder's name; the training label is its rank among the split's identities."""

    name = "RegDB"
    cameras = (VISIBLE_CAMERA, THERMAL_CAMERA)

    def list_samples(self) -> list[Sample]:
        listed = [
            (path, identity, camera)
            for modality, camera in (("visible", VISIBLE_CAMERA), ("thermal", THERMAL_CAMERA))
            for path, identity in self._read_index(modality)
        ]
        rank = {identity: label for label, identity in enumerate(sorted({identity for _, identity, _ in listed}))}
        return [
            Sample(path, identity, camera, rank[identity] if self.split == "train" else identity)
            for path, identity, camera in listed
        ]

    def _read_index(self, modality: str) -> list[tuple[str, int]]:
        index = self.root / "idx" / f"{self.split}_{modality}_{self.trial}.txt"
        entries = {}
        for line in read_lines(index, f"the {modality} images of trial {self.trial}, one 'path label' a line"):
            path, identity = _parse_line(line, index)
            if not (self.root / path).is_file():
                raise UserError(f"{self.root / path}: no such image, though {index} lists it")
            if path in entries:
                raise UserError(f"{index}: {path} is listed twice")
            entries[path] = identity
        if not entries:
            raise UserError(f"{index}: lists no image")
        return list(entries.items())


def _parse_line(line: str, index: Path) -> tuple[str, int]:
    """``relative/path label`` -> the path and the identity, which is the name of the image's folder."""
    words = line.rsplit(maxsplit=1)
    if len(words) != 2 or not words[1].isdecimal():
        raise UserError(f"{index}: expected 'relative/path label', found {line[:80]!r}")
    path = inside_root(words[0], index)
    folder = path.split("/")[-2:-1]
    if not folder or not (folder[0].isascii() and folder[0].isdigit()):
        raise UserError(f"{index}: {words[0]!r} is not in a folder named by its identity")
    return path, int(folder[0])
