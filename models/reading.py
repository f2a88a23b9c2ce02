"""Reading checkpoint files: tensors and plain types alone, and only from files that are what they seem to be."""

import math
import re
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.pickles import require_shallow
from utils.run.errors import UserError
from utils.run.messages import reason, shown_name

ZIP = b"PK\x03\x04"  # by which torch, too, tells its archives from the bare pickles of old versions
ADVICE = (
    "In PyTorch 2.6",
    "This file can still be loaded",
    "This is an internal miniz error",
    "Check the documentation",
)
OLD_PICKLES = 5  # magic number, version, system, the object, the names of its storages
SAVE_ALONE = "save it alone, with torch.save, to a file of its own"


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """A bare state dict, on the CPU; only tensors and plain types are read, never code.

    Raises:
        UserError: no such file, a damaged one, or one that is no state dict of ordinary, finite tensors.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; name the checkpoint in it, such as {path / 'best.pth'}")
        if not path.is_file():
            raise UserError(f"{path}: no such checkpoint; resume takes a file such as <run folder>/best.pth")
        with path.open("rb") as file:
            start = file.read(len(ZIP))
            if not start:
                raise UserError(f"{path}: is an empty file; copy the checkpoint again")
    except OSError as error:
        raise UserError(f"{path}: the checkpoint cannot be read ({error.strerror})") from None
    if start == ZIP:
        _check_archive(path)
    else:
        _check_bare(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is refused anyway
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything on a damaged file
        raise _unreadable(path, error) from None
    check_state(state, path, size=path.stat().st_size)
    return dict(state)


def _check_archive(path: Path) -> None:
    """Refuse what torch would not: archives larger than their file, and weights that changed after they were saved."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.filename.split("/")[1:2] in (["code"], ["constants.pkl"]) for entry in entries):
                raise UserError(f"{path}: is a TorchScript program, not a checkpoint; save the model's state_dict()")
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > path.stat().st_size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise UserError(f"{path}: is a compressed archive, which torch.save never writes; not opened")
            damaged = archive.testzip()
            if damaged:
                raise UserError(f"{path}: is damaged (wrong checksum of {shown_name(damaged)}); copy it again")
            for entry in entries:
                if entry.filename.lower().endswith("data.pkl"):  # torch, too, pays no regard to capitals
                    with archive.open(entry) as pickled:
                        require_shallow(pickled)
    except UserError:
        raise
    except Exception as error:  # zipfile, too, raises nearly anything on a damaged file
        raise UserError(f"{path}: not a complete checkpoint ({_reason(error)}); copy it again") from None


def _check_bare(path: Path) -> None:
    """Refuse what would crash torch in one of the five pickles that old versions wrote one after the other."""
    try:
        if tarfile.is_tarfile(path):
            raise UserError(f"{path}: is a tar file, of torch before 0.2; load it there and save model.state_dict()")
        with path.open("rb") as file:
            for _ in range(OLD_PICKLES):
                require_shallow(file)
    except UserError:
        raise
    except Exception as error:  # pickletools, too, raises nearly anything
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: not a readable checkpoint of tensors alone ({_reason(error)}); copy it again, or save"
        " model.state_dict() and nothing else"
    )


def _reason(error: Exception) -> str:
    """What torch or zipfile says, in one short line and without torch's advice to load code after all."""
    message = reason(error, 2000)
    asked = re.search(r"GLOBAL (\S{1,80})", message)
    if asked:
        return f"it asks for {shown_name(asked[1])}, which is never loaded"
    message = message.partition("WeightsUnpickler error: ")[2] or message
    for advice in ADVICE:
        message = message.partition(advice)[0]
    return f"{type(error).__name__}: {message[:160].strip()}"


def check_state(state: object, source: str | Path, *, size: float = math.inf) -> None:
    """Raise ``UserError`` unless ``state`` maps names to ordinary tensors of finite numbers.

    Args:
        state: what may be a state dict.
        source: named in the message.
        size: the bytes that it was read from, where it was.
    """
    if not isinstance(state, Mapping):
        raise UserError(f"{source}: holds a {type(state).__name__}, not a bare state dict; save model.state_dict()")
    if not state:
        raise UserError(f"{source}: holds an empty state dict; save model.state_dict()")
    for name, value in state.items():
        if isinstance(value, Mapping) and any(isinstance(inner, Tensor) for inner in value.values()):
            raise UserError(f"{source}: not a bare state dict: one lies under {shown_name(name)}; {SAVE_ALONE}")
    for name, value in state.items():
        if not isinstance(name, str):
            raise UserError(f"{source}: not a bare state dict: the name {shown_name(name)} is not text")
        where = f"{source}: not a bare state dict of ordinary tensors: {shown_name(name)}"
        if not isinstance(value, Tensor):
            raise UserError(f"{where} is of type {type(value).__name__}; save model.state_dict() alone")
        unusual = _unusual(value, size)
        if unusual:
            raise UserError(f"{where} is {unusual}; save the weights of the plain model")
        if value.is_floating_point() and not value.float().isfinite().all():
            raise UserError(f"{source}: {shown_name(name)} holds NaN or infinite numbers; take an earlier checkpoint")


def _unusual(tensor: Tensor, size: float) -> str | None:
    """What keeps a tensor from being plain numbers in memory, if anything."""
    if tensor.is_nested:
        return "nested"
    if tensor.is_quantized:
        return "quantized"
    if tensor.layout != torch.strided:
        return f"of layout {str(tensor.layout).removeprefix('torch.')}"
    if tensor.is_meta:
        return "on the meta device, without numbers"
    if tensor.is_complex():
        return "complex"
    # a shape may claim any size over a few numbers that are repeated, or over none that the file holds
    if tensor.numel() * tensor.element_size() > min(tensor.untyped_storage().nbytes(), size):
        return "larger than the numbers saved for it"
    return None
