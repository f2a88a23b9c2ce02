"""Load checkpoints into a network and report which weights were loaded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.run.errors import UserError, reason, shown_name

WRAPPERS = ("module.", "_orig_mod.")  # prefixes that DataParallel and torch.compile put before every name
ENTRY = "net"  # under which AGW's released checkpoints hold the state dict, beside metrics
SAVE_ALONE = "save model.state_dict() alone"
# what pickles of NumPy numbers and arrays call; metrics in released checkpoints are such
NUMPY_FUNCTIONS = {"_reconstruct": np.empty(0).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")  # the latter since NumPy 2
NUMPY_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")


@dataclass(frozen=True)
class LoadReport:
    """Which weights of a checkpoint were loaded, by their names in the state dict."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]  # in the model only
    unexpected: tuple[str, ...]  # in the checkpoint only
    mismatched: tuple[str, ...]  # another shape or kind of dtype; the model keeps its own values
    never_used: tuple[str, ...] = ()  # in released checkpoints; the network does not have these parts
    wrapper: str = ""  # prefix that was removed from every name

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} loaded"]
        for kind in ("missing", "unexpected", "mismatched", "never_used"):
            names = getattr(self, kind)
            shown = [*map(shown_name, names[:5]), *(["..."] if len(names) > 5 else [])]
            if names or kind != "never_used":
                parts.append(f"{len(names)} {kind.replace('_', ' ')}" + (f" ({', '.join(shown)})" if names else ""))
        return ", ".join(parts) + (f"; prefix {self.wrapper!r} removed" if self.wrapper else "")

    def require_same_network(self, source: str | Path) -> None:
        """Raise ``UserError`` unless all weights but the classifier's, whose size depends on the data, were loaded."""
        if self.unexpected:
            raise UserError(
                f"{source}: holds {shown_name(self.unexpected[0])} ({len(self.unexpected)} such names), unknown to this"
                " model; is it a checkpoint of this architecture (model, backbone)?"
            )
        lacking = [name for name in self.missing + self.mismatched if not name.startswith("classifier.")]
        if lacking:
            problem = "lacks" if lacking[0] in self.missing else "has another shape or type of"
            raise UserError(
                f"{source}: {problem} {lacking[0]} ({len(lacking)} such names); is it a checkpoint of this architecture"
                " (model, backbone, mda_m, non_local_channels)?"
            )


def load_weights(model: nn.Module, path_or_state_dict: str | Path | Mapping[str, Any]) -> LoadReport:
    """Load the weights that fit by name and shape into ``model``, in place.

    Args:
        model: any network. Names that begin with one of its ``never_used`` are reported apart.
        path_or_state_dict: a checkpoint, released or of this project, or its content: a state dict, alone or as the
            entry ``net``, as AGW's released checkpoints have it.

    Returns:
        Which weights were loaded, missing, unexpected or mismatched.

    Raises:
        UserError: the file cannot be read, or nothing in it fits.
    """
    state: Mapping[str, Tensor]
    if isinstance(path_or_state_dict, str | Path):
        source, state = str(path_or_state_dict), read_state_dict(path_or_state_dict)
    else:
        source, state = "state dict", _checked_state(path_or_state_dict, "state dict")
    state, wrapper = _unwrap(state)
    own = model.state_dict()
    unused = getattr(model, "never_used", ())
    surplus = [name for name in state if name not in own]
    fitting = {name: value for name, value in state.items() if name in own and _fits(value, own[name])}
    report = LoadReport(
        loaded=tuple(fitting),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in surplus if not name.startswith(unused)),
        mismatched=tuple(name for name in state if name in own and name not in fitting),
        never_used=tuple(name for name in surplus if name.startswith(unused)),
        wrapper=wrapper,
    )
    if not fitting:
        raise UserError(f"{source}: no name in it belongs to this model ({report})")
    model.load_state_dict(fitting, strict=False)
    return report


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a file to the CPU. Code in the file is not run (``weights_only=True``).

    Raises:
        UserError: no such file, not a checkpoint, or not a flat state dict of finite tensors.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the checkpoint in it, such as {path / 'best.pth'}")
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; resume takes a file such as <run folder>/best.pth")
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises almost any exception
        problem = f"{path}: not a readable checkpoint ({_explain(error)})"
        raise UserError(f"{problem}; copy it again if it is incomplete, or {SAVE_ALONE}") from None
    return dict(_checked_state(content, path))


def same_state(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts hold the same values under the same names, on any devices."""
    return a.keys() == b.keys() and all(torch.equal(value.cpu(), b[name].cpu()) for name, value in a.items())


def _explain(error: Exception) -> str:
    """The error in one short line, without torch's advice to turn off ``weights_only``."""
    message = str(error)
    refused = re.search(r"GLOBAL (\S+)", message)
    if refused:
        return f"it holds {shown_name(refused[1])}, and only tensors and plain types are loaded"
    return "damaged, or not written by torch.save" if "weights_only" in message else reason(error)


def _numpy_globals() -> list[Any]:
    """What a checkpoint may call beside tensors: NumPy's numbers and arrays, which hold no code."""
    functions = product(NUMPY_FUNCTIONS.items(), NUMPY_MODULES)
    named = [(function, f"{module}.{name}") for (name, function), module in functions]
    return [*named, np.ndarray, np.dtype, *(type(np.dtype(name)) for name in NUMPY_DTYPES)]


def _checked_state(content: object, source: str | Path) -> Mapping[str, Tensor]:
    """The state dict in the content of a checkpoint.

    Raises:
        UserError: it does not map names to ordinary tensors of finite numbers.
    """
    state = content
    if isinstance(content, Mapping) and isinstance(content.get(ENTRY), Mapping):
        state = content[ENTRY]  # the metrics beside it are not needed
    if not isinstance(state, Mapping):
        raise UserError(f"{source}: holds a {type(state).__name__}, not a state dict; {SAVE_ALONE}")
    if not state:
        raise UserError(f"{source}: holds an empty state dict; {SAVE_ALONE}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            problem = f"{source}: holds a {type(value).__name__} under {shown_name(name)}, not a bare state dict"
            raise UserError(f"{problem}; {SAVE_ALONE}")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise UserError(f"{source}: {shown_name(name)} is not an ordinary dense tensor; {SAVE_ALONE}")
        if not value.float().isfinite().all():  # checked in float32, as in the model
            raise UserError(f"{source}: {shown_name(name)} holds NaN or infinite numbers; take an earlier checkpoint")
    return state


def _fits(value: Tensor, own: Tensor) -> bool:
    """Whether shape and kind of dtype (floating point or not) are the model's."""
    return value.shape == own.shape and value.is_floating_point() == own.is_floating_point()


def _unwrap(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The state dict without the prefixes in ``WRAPPERS``, and the prefix that was removed."""
    state, removed = dict(state), ""
    while prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in state)), ""):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
        removed += prefix
    return state, removed
