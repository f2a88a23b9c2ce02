"""Reading checkpoints and loading them into a model, with a report of what fitted."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.errors import UserError

logger = logging.getLogger(__name__)

UNUSED = ("backbone.fc.",)  # in released checkpoints, never used by the network


@dataclass(frozen=True)
class LoadReport:
    """Names of a state dict by what became of them."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]  # the model has it, the checkpoint does not
    unexpected: tuple[str, ...]  # the checkpoint has it, the model does not
    mismatched: tuple[str, ...]  # both have it, in different shapes; the model keeps its own

    def __str__(self) -> str:
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in vars(self).items())
        details = [
            f"{kind}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
            for kind, names in vars(self).items()
            if names and kind != "loaded"
        ]
        return "; ".join([counts, *details])

    def require_testable(self, source: str | Path) -> None:
        """Raise ``UserError`` unless all but the classifier, which testing does not use, fitted one to one."""
        if self.unexpected:
            raise UserError(
                f"{source}: holds {self.unexpected[0]} ({len(self.unexpected)} such names), unknown to this model; is"
                " it a checkpoint of this architecture (backbone)?"
            )
        lacking = [name for name in self.missing + self.mismatched if not name.startswith("classifier.")]
        if lacking:
            kind = "lacks" if lacking[0] in self.missing else "has another shape of"
            raise UserError(
                f"{source}: {kind} {lacking[0]} ({len(lacking)} such names); is it a checkpoint of this architecture"
                " (backbone, mda_m)?"
            )


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """A bare state dict, on the CPU; only tensors and plain types are read, never code.

    Raises:
        UserError: no such file, a damaged one, or one that is no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything on a damaged file
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: not a readable checkpoint of tensors alone ({reason})") from None
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: not a bare state dict of tensors")
    return dict(state)


def same_state(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts hold the same values under the same names, on whatever devices."""
    return a.keys() == b.keys() and all(torch.equal(value.cpu(), b[name].cpu()) for name, value in a.items())


def load_weights(model: nn.Module, path_or_state_dict: str | Path | Mapping[str, Tensor]) -> LoadReport:
    """Load what fits, by name and shape, and say what did not.

    Args:
        model: changed in place.
        path_or_state_dict: a released or own checkpoint, or its content.

    Raises:
        UserError: the file cannot be read, or nothing in it fits.
    """
    given = path_or_state_dict
    source = given if isinstance(given, str | Path) else "state dict"
    state = read_state_dict(given) if isinstance(given, str | Path) else dict(given)
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{source}: not a bare state dict of tensors")
    own = model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    report = LoadReport(
        loaded=tuple(fitting),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own and not name.startswith(UNUSED)),
        mismatched=tuple(name for name in state if name in own and name not in fitting),
    )
    if not fitting:
        raise UserError(f"{source}: no name in it belongs to this model ({report})")
    model.load_state_dict(fitting, strict=False)
    logger.info("weights from %s: %s", source, report)
    return report
