"""Training states: files from which a run continues as if it had not been stopped.

A state holds weights, optimiser, precision, augmentation, progress (with the metrics and the best model so far) and all
random states. The other files of the run folder can be rewritten from it.
"""

import logging
import random
import time
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from engine.checkpoints import save_state
from utils.run.errors import UserError, reason
from utils.run.folder import STATES

logger = logging.getLogger(__name__)

NAME = "state_{:08d}.pth"  # by completed iterations
DAMAGED = ".damaged"
KEPT = 2  # the newest, and one to fall back to
FORMAT = 3


class Stateful(Protocol):
    """A part of a training state."""

    def state_dict(self) -> Mapping: ...

    def load_state_dict(self, state: dict[str, Any], /) -> object: ...


class OptimizerState:
    """An optimiser whose state may come from another kind of device.

    Fused optimisers step through memory, so the tensors of the state (Adam's moments) need the memory format of their
    parameter. It is channels-last on a GPU only.
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer

    def state_dict(self) -> dict:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.optimizer.load_state_dict(state)
        for parameter, values in self.optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


class RandomStates:
    """The global random generators. Training uses generators of its own, but libraries may use the global ones."""

    def state_dict(self) -> dict:
        kind, keys, *rest = np.random.get_state()
        return {
            "python": random.getstate(),
            "numpy": (kind, keys.tolist(), *rest),  # type: ignore[attr-defined]  # numpy's hint: a dict
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state: Mapping) -> None:
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
        torch.set_rng_state(state["torch"])
        if len(state["cuda"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0):
            torch.cuda.set_rng_state_all(state["cuda"])


class Threads:
    """How many threads torch uses. On a CPU the last digits of results depend on it."""

    def __init__(self, device: torch.device):
        self.device = device

    def state_dict(self) -> dict:
        return {"count": torch.get_num_threads()}

    def load_state_dict(self, state: Mapping) -> None:
        if self.device.type == "cpu":
            torch.set_num_threads(state["count"])


class States:
    """The training states in a run folder.

    Args:
        folder: the run folder.
        parts: what a state holds, by name.
        images: the fingerprint of the training images; a state of other images is refused.
    """

    def __init__(self, folder: Path, parts: Mapping[str, Stateful], *, images: str):
        self.folder, self.parts, self.images = folder, parts, images
        self.saved = time.monotonic()

    def save(self, iteration: int) -> None:
        """Write a state, then delete all but the newest two."""
        content = {name: part.state_dict() for name, part in self.parts.items()}
        save_state({"format": FORMAT, "images": self.images, **content}, self.folder / NAME.format(iteration))
        for old in sorted(self.folder.glob(STATES))[:-KEPT]:
            old.unlink(missing_ok=True)
        self.saved = time.monotonic()

    def minutes_since_save(self) -> float:
        return (time.monotonic() - self.saved) / 60

    def restore(self) -> Path:
        """Load the newest intact state into the parts, and return its file.

        Raises:
            UserError: no state is intact, one cannot be read, or it belongs to another network or other images.
        """
        state, path = newest_state(self.folder, self.parts)
        if state["images"] != self.images:
            raise UserError(
                f"{path}: the training images are not those that the run began with; set data_root to the same images"
                " (with skip_unreadable, the same ones must be readable)"
            )
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: does not belong to the run's configuration ({reason(error)}); was its config.yml changed?"
            ) from None
        return path


def newest_state(folder: Path, parts: Iterable[str] = ()) -> tuple[dict, Path]:
    """The newest intact state that holds ``parts``. Damaged ones are renamed and logged."""
    paths = sorted((path for path in folder.glob(STATES) if path.is_file()), reverse=True)
    for path in paths:
        try:
            return _read(path, parts), path
        except (OSError, MemoryError) as error:  # the file itself may be intact
            raise UserError(f"{path}: cannot be read now ({reason(error)}); try again") from None
        except Exception as error:  # torch and zipfile raise many kinds of errors on damaged files
            logger.warning("%s is damaged (%s); continuing from the state before it", path, reason(error))
            path.replace(path.with_name(path.name + DAMAGED))
    if paths:
        raise UserError(
            f"{folder}: none of its {len(paths)} training states is intact; train again with its config.yml"
        )
    raise UserError(f"{folder}: holds no training state")


def _read(path: Path, parts: Iterable[str]) -> dict:
    with zipfile.ZipFile(path) as archive:  # torch.load does not test the checksums
        damaged = archive.testzip()
    if damaged:
        raise ValueError(f"{damaged}: wrong checksum")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["format"] != FORMAT:
        raise ValueError(f"written by another version of the program (format {state['format']})")
    lacking = {"images", *parts} - state.keys()
    if lacking:
        raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
    return state
