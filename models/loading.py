"""Loading checkpoints into a model, with a report of what fitted."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.reading import check_state, read_state_dict
from utils.run.errors import UserError
from utils.run.messages import shown_name

logger = logging.getLogger(__name__)

WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
UNUSED = ("backbone.fc.",)  # in released checkpoints, never used by the network


@dataclass(frozen=True)
class LoadReport:
    """Names of a state dict by what became of them."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]  # the model has it, the checkpoint does not
    unexpected: tuple[str, ...]  # the checkpoint has it, the model does not
    mismatched: tuple[str, ...]  # both have it, in different shapes or kinds of number; the model keeps its own
    wrapper: str = ""  # taken away from the front of every name

    def __str__(self) -> str:
        kinds = {kind: getattr(self, kind) for kind in ("loaded", "missing", "unexpected", "mismatched")}
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items())
        details = [
            f"{kind}: {', '.join(map(shown_name, names[:5]))}{' ...' if len(names) > 5 else ''}"
            for kind, names in kinds.items()
            if names and kind != "loaded"
        ]
        return "; ".join([counts, *details, *([f"names without their {self.wrapper!r}"] if self.wrapper else [])])

    def require_same_network(self, source: str | Path) -> None:
        """Raise ``UserError`` unless all but the classifier, which belongs to the identities, fitted one to one."""
        if self.unexpected:
            raise UserError(
                f"{source}: holds {shown_name(self.unexpected[0])} ({len(self.unexpected)} such names), unknown to this"
                " model; is it a checkpoint of this architecture (backbone)?"
            )
        lacking = [name for name in self.missing + self.mismatched if not name.startswith("classifier.")]
        if lacking:
            kind = "lacks" if lacking[0] in self.missing else "has another shape or type of"
            raise UserError(
                f"{source}: {kind} {lacking[0]} ({len(lacking)} such names); is it a checkpoint of this architecture"
                " (backbone, mda_m)?"
            )


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
    if isinstance(given, str | Path):
        state = read_state_dict(given)
    else:
        check_state(given, source)
        state = dict(given)
    state, wrapper = _unwrapped(state)
    own = model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and _fits(value, own[name])}
    report = LoadReport(
        loaded=tuple(fitting),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own and not name.startswith(UNUSED)),
        mismatched=tuple(name for name in state if name in own and name not in fitting),
        wrapper=wrapper,
    )
    if not fitting:
        raise UserError(f"{source}: no name in it belongs to this model ({report})")
    model.load_state_dict(fitting, strict=False)
    logger.info("weights from %s: %s", source, report)
    return report


def _fits(value: Tensor, own: Tensor) -> bool:
    return value.shape == own.shape and value.is_floating_point() == own.is_floating_point()


def _unwrapped(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The state dict with the names of the plain model, and what stood before them."""
    state, removed = dict(state), ""
    while wrapper := next((w for w in WRAPPERS if all(name.startswith(w) for name in state)), ""):
        state = {name.removeprefix(wrapper): value for name, value in state.items()}
        removed += wrapper
    return state, removed
