"""Features of test images, extracted once and scored many times."""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import write_atomically
from utils.messages import reason

MOST_RATIO, MOST_SMALL = 50, 2**28  # of compression, allowed above so many bytes; random features reach 1.1
SPECTRA = ("original", "red", "green", "blue")


@dataclass(frozen=True)
class Features:
    """Embeddings of N images per spectrum; those of infrared images are equal in all spectra.

    ``spectra`` maps a name in ``SPECTRA`` to (N, D) float32, not necessarily normalised. Without re-ranking only
    ``original`` is needed.
    """

    paths: np.ndarray  # (N,) below the data set's root
    identities: np.ndarray  # (N,) int64
    cameras: np.ndarray  # (N,) int64
    spectra: dict[str, np.ndarray]

    def __post_init__(self):
        for name in ("paths", "identities", "cameras"):
            if getattr(self, name).ndim != 1:
                raise ValueError(f"{name} should have one dimension")
        if any(values.ndim != 2 for values in self.spectra.values()):
            raise ValueError("the features of a spectrum should be (images, dimensions)")
        lengths = {len(self.identities), len(self.cameras), *map(len, self.spectra.values())} | {len(self.paths)}
        if len(lengths) != 1 or "original" not in self.spectra:
            raise ValueError("features need paths, identities, cameras and 'original' of one length")
        if len({values.shape[1] for values in self.spectra.values()}) != 1:
            raise ValueError("the spectra's features should have equally many dimensions")

    def require_finite(self, names: Iterable[str]) -> None:
        """Raise ``UserError`` for the first image that has a NaN or infinite feature in one of these spectra."""
        for name in names:
            bad = ~np.isfinite(self.spectra[name]).all(axis=1)
            if bad.any():
                raise UserError(
                    f"{self.paths[bad.argmax()]}: its features ({name}) are not finite, as of {bad.sum()} images in"
                    " all; the model has diverged"
                )

    def normalised(self, names: Sequence[str], positions: np.ndarray) -> np.ndarray:
        """Spectra of the images at ``positions`` with rows of length 1: (spectra, positions, D) float32."""
        result = np.empty((len(names), len(positions), self.spectra[names[0]].shape[1]), dtype=np.float32)
        for rows, name in zip(result, names, strict=True):
            rows[:] = self.spectra[name][positions]
            length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
            huge = ~np.isfinite(length)  # only in float32
            length[huge], rows[huge] = 1, _normalised_huge(rows[huge])
            rows /= length.clip(min=1e-12)[:, None]
        return result

    def save(self, path: str | Path) -> None:
        """Write as ``.npz`` with the arrays paths, identities, cameras and one per spectrum."""
        arrays = {"paths": self.paths, "identities": self.identities, "cameras": self.cameras, **self.spectra}
        write_atomically(Path(path), lambda file: np.savez(file, **arrays))

    @classmethod
    def load(cls, path: str | Path) -> "Features":
        """Read what :meth:`save` wrote.

        Raises:
            UserError: no such file, not an ``.npz``, or arrays that are missing or do not belong together.
        """
        path = Path(path)
        try:
            _refuse_bomb(path)
            with np.load(path, allow_pickle=False) as arrays:
                lacking = [name for name in ("paths", "identities", "cameras", "original") if name not in arrays]
                if lacking:
                    raise ValueError(f"it lacks the array {lacking[0]}")
                spectra = {name: _of_kind(arrays, name, "fiu") for name in SPECTRA if name in arrays}
                known = (_of_kind(arrays, name, "iu").astype(np.int64) for name in ("identities", "cameras"))
                return cls(_of_kind(arrays, "paths", "U"), *known, spectra)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file of features") from None
        except Exception as error:  # numpy and zipfile raise nearly anything on a damaged file
            raise UserError(f"{path}: not a file of features ({reason(error)}); save it again") from None


def _normalised_huge(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


KINDS = {"fiu": "numbers", "iu": "whole numbers", "U": "text"}  # by numpy's letters


def _of_kind(arrays: Mapping[str, np.ndarray], name: str, kinds: str) -> np.ndarray:
    values = arrays[name]
    if values.dtype.kind not in kinds:
        raise ValueError(f"{name} should hold {KINDS[kinds]}, not {values.dtype}")
    return values


def _refuse_bomb(path: Path) -> None:
    """Raise ``ValueError`` for an archive that would unpack to far more than features can be compressed."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > MOST_SMALL and unpacked > MOST_RATIO * path.stat().st_size:
        raise ValueError(f"it would unpack to {unpacked / 1e9:.1f} GB")
