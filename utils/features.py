"""Features of test images, extracted once and scored many times."""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.run.errors import UserError, reason
from utils.run.files import write_atomically
from utils.tensors import as_tensor

SPECTRA = ("original", "red", "green", "blue")
CPU = torch.device("cpu")
FLOATS = (np.float16, np.float32, np.float64)  # other numbers are converted to float32


@dataclass(frozen=True)
class Features:
    """Embeddings of N images in each spectrum. An infrared image has the same embedding in all spectra."""

    paths: np.ndarray  # (N,) relative to the data set's root
    identities: np.ndarray  # (N,) int64
    cameras: np.ndarray  # (N,) int64
    spectra: dict[str, np.ndarray]  # name in SPECTRA -> (N, D), need not be normalised; only MSER needs them all

    def __post_init__(self):
        for name in ("paths", "identities", "cameras"):
            if getattr(self, name).ndim != 1:
                raise ValueError(f"{name} should have one dimension")
        if any(values.ndim != 2 for values in self.spectra.values()):
            raise ValueError("the features of a spectrum should be (images, dimensions)")
        columns = [self.paths, self.identities, self.cameras, *self.spectra.values()]
        if len(set(map(len, columns))) != 1 or "original" not in self.spectra:
            raise ValueError("features need paths, identities, cameras and 'original' of equal length")
        if len({values.shape[1] for values in self.spectra.values()}) != 1:
            raise ValueError("the features of all spectra should have the same dimension")

    def require_finite(self, names: Iterable[str]) -> None:
        """Raise ``UserError`` if an image has a NaN or infinite feature in one of these spectra; name the first one."""
        for name in names:
            bad = ~self._rows(name).isfinite().all(dim=1)
            if bad.any():
                raise UserError(
                    f"{self.paths[int(bad.int().argmax())]}: its features ({name}) are not finite"
                    f" ({bad.sum()} of {len(bad)} images); the model has diverged, or its activations are too large for"
                    " float16 (set fp16 false)"
                )

    def normalised(self, names: Sequence[str], positions: np.ndarray, device: torch.device = CPU) -> Tensor:
        """L2-normalised features of the images at ``positions``: (spectra, positions, D) float32."""
        dimensions = self.spectra[names[0]].shape[1]
        result = torch.empty((len(names), len(positions), dimensions), device=device)
        for rows, name in zip(result, names, strict=True):
            values = self._rows(name)[as_tensor(positions)].to(device)
            values = values if values.dtype == torch.float64 else values.float()
            length = torch.linalg.vector_norm(values, dim=1, keepdim=True)
            if not ((length > 1e-15) & (length < 1e15)).all():  # squares may overflow or underflow in float32
                length = torch.linalg.vector_norm(values, dim=1, keepdim=True, dtype=torch.float64)
            rows.copy_(values / length.clamp(min=1e-300))  # rows of zeros stay zeros
        return result

    def _rows(self, name: str) -> Tensor:
        values = self.spectra[name]
        return as_tensor(values if values.dtype in FLOATS else values.astype(np.float32))

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` file with the arrays paths, identities, cameras and one per spectrum."""
        arrays = {"paths": self.paths, "identities": self.identities, "cameras": self.cameras, **self.spectra}
        # numpy's type hints: one of the arrays could be the argument allow_pickle
        write_atomically(Path(path), lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> "Features":
        """Read a file that :meth:`save` wrote.

        Raises:
            UserError: the file does not exist, is not an ``.npz`` file, or its arrays are missing or inconsistent.
        """
        path = Path(path)
        try:
            if path.is_file() and not zipfile.is_zipfile(path):  # np.load would take it for a pickle
                raise ValueError("it is not an .npz file")
            with np.load(path, allow_pickle=False) as arrays:
                missing = [name for name in ("paths", "identities", "cameras", "original") if name not in arrays]
                if missing:
                    raise ValueError(f"it lacks the array {missing[0]}")
                spectra = {name: _of_kind(arrays, name, "fiu") for name in SPECTRA if name in arrays}
                paths = _of_kind(arrays, "paths", "U")
                identities, cameras = (
                    _of_kind(arrays, name, "iu").astype(np.int64) for name in ("identities", "cameras")
                )
                return cls(paths, identities, cameras, spectra)
        except FileNotFoundError:
            raise UserError(f"{path}: no such features file") from None
        except Exception as error:  # numpy and zipfile raise errors of many types for a damaged file
            raise UserError(f"{path}: not a features file ({reason(error)}); save it again") from None


KINDS = {"fiu": "numbers", "iu": "whole numbers", "U": "text"}  # letters as in numpy.dtype.kind


def _of_kind(arrays: Mapping[str, np.ndarray], name: str, kinds: str) -> np.ndarray:
    values = arrays[name]
    if values.dtype.kind not in kinds:
        raise ValueError(f"{name} should hold {KINDS[kinds]}, not {values.dtype}")
    return values
