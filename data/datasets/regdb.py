"""RegDB: 412 identities seen by a pair of a visible and a thermal camera, ten published splits."""

from pathlib import Path

from data.datasets.base import ReIDDataset, Sample
from data.datasets.lists import inside_root, is_file, parse_number, read_lines, require_folder
from utils.run.errors import Checks, UserError

VISIBLE_CAMERA, THERMAL_CAMERA = 2, 3  # so that camera 3 is infrared in both data sets
MODALITIES = {"visible": ("Visible", VISIBLE_CAMERA), "thermal": ("Thermal", THERMAL_CAMERA)}  # folder, camera


class RegDB(ReIDDataset):
    """The identity is the folder's name; the training label is its rank among the split's identities."""

    name = "RegDB"
    cameras = (VISIBLE_CAMERA, THERMAL_CAMERA)
    defaults = {
        "num_id": 206,
        "num_cam": 2,
        "data_root": "../../Datasets/RegDB",
        "mser_k1": 50,
        "mser_k2": 10,
        "mser_lambda": 0.2,
    }

    def list_samples(self) -> list[Sample]:
        lists = Checks()
        listed: dict[str, dict[str, int]] = {}
        for modality, (folder, _) in MODALITIES.items():
            with lists.check():
                require_folder(self.root / folder, "RegDB has Visible and Thermal")
            with lists.check():
                listed[modality] = self._read_index(self.split, modality)
        lists.finish()
        identities = {identity for entries in listed.values() for identity in entries.values()}
        self._check_modalities(listed, identities)
        self._check_disjoint(identities)

        rank = {identity: label for label, identity in enumerate(sorted(identities))}
        samples, images = [], Checks()
        for modality, (_, camera) in MODALITIES.items():
            for path, identity in listed[modality].items():
                with images.check():
                    if not is_file(self.root / path):
                        index = self._index(self.split, modality)
                        raise UserError(f"{self.root / path}: no such image, though {index} lists it")
                label = rank[identity] if self.split == "train" else identity
                samples.append(Sample(path, identity, camera, label))
        images.finish()
        return samples

    def _check_modalities(self, listed: dict[str, dict[str, int]], identities: set[int]) -> None:
        lone = Checks()
        for modality, entries in listed.items():
            for identity in sorted(identities - set(entries.values())):
                with lone.check():
                    raise UserError(
                        f"{self._index(self.split, modality)}: lists no image of identity {identity}, which the other"
                        " modality has"
                    )
        lone.finish()

    def _index(self, split: str, modality: str) -> Path:
        return self.root / "idx" / f"{split}_{modality}_{self.trial}.txt"

    def _read_index(self, split: str, modality: str) -> dict[str, int]:
        """Paths in the order of the list, and their identities."""
        index = self._index(split, modality)
        entries: dict[str, int] = {}
        purpose = f"the {modality} images of trial {self.trial}, one 'relative/path label' a line, and comes with RegDB"
        for line in read_lines(index, purpose):
            path, identity = _parse_line(line, index, MODALITIES[modality][0])
            if path in entries:
                raise UserError(f"{index}: {path} is listed twice")
            entries[path] = identity
        if not entries:
            raise UserError(f"{index}: lists no image")
        return entries

    def _check_disjoint(self, identities: set[int]) -> None:
        """No identity may be both trained on and tested; a list of the other split that is not there needs no check."""
        other = "test" if self.split == "train" else "train"
        for modality in MODALITIES:
            if is_file(self._index(other, modality)):
                both = identities & set(self._read_index(other, modality).values())
                if both:
                    raise UserError(
                        f"{self.root / 'idx'}: identity {min(both)} is listed for both training and testing in trial"
                        f" {self.trial}"
                    )


def _parse_line(line: str, index: Path, top: str) -> tuple[str, int]:
    """``relative/path label`` -> the path and the identity, which is the name of the image's folder."""
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
