"""Checkpoint files: looked at without torch before a run starts, then loaded without running code."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitome.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

_ZIP = b"PK\x03\x04"


def check_checkpoint(path: str | Path) -> str:
    """Say of a checkpoint file, without torch, whether it is `safetensors` or a torch `zip`.

    Raises CheckpointError when there is no such file, when it is neither, and when it is truncated.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"weights={path}: no such file; give a .safetensors or torch file, pretrained or random"
        )
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(9)
        if head[:4] == _ZIP:
            _check_zip(path)
            return "zip"
        length = int.from_bytes(head[:8], "little")
        if size >= 8 and size < 8 + length and head[8:] == b"{":
            raise CheckpointError(
                f"{path} is truncated: its header alone is longer than the file; fetch it again"
            )
        if size < 9 or head[8:] != b"{" or size < 8 + length:
            raise CheckpointError(
                f"{path} is neither a safetensors file nor a torch zip file (torch.save since 1.6); "
                "save it again in one of these forms"
            )
        file.seek(8)
        _check_safetensors(path, file.read(length), size - 8 - length)
    return "safetensors"


def _check_zip(path: Path) -> None:
    """A torch zip: readable index (it stands at the end, so truncation shows) and a data.pkl."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        raise CheckpointError(
            f"{path} is truncated or damaged: its zip index cannot be read; fetch it again"
        ) from None
    if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
        raise CheckpointError(f"{path} is a zip file but holds no data.pkl, so torch did not write it")


def _check_safetensors(path: Path, header: bytes, payload: int) -> None:
    """Header: JSON of name -> dtype, shape, data_offsets; the offsets must end where the file does."""
    try:
        entries = json.loads(header)
        ends = [index(entry["data_offsets"][1]) for key, entry in entries.items() if key != "__metadata__"]
        end = max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise CheckpointError(f"{path} is not a safetensors file: its header cannot be read") from None
    if not ends:
        raise CheckpointError(f"{path} holds no tensors")
    if payload < end:
        raise CheckpointError(f"{path} is truncated: {end - payload} bytes are missing; fetch it again")
    if payload > end:
        raise CheckpointError(f"{path} is damaged: {payload - end} bytes too many; fetch it again")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a model by name, and the sha256 (hex) of the file they came from."""

    path: Path
    state: dict[str, Tensor]
    sha256: str


def sha256_of(path: Path) -> str:
    """Checksum of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a .safetensors or torch zip file on the CPU without running code of the file.

    A nesting {"model": ...} or {"state_dict": ...} is undone, and the prefix `model.` of this
    project's training checkpoints removed. The classifiers of MAE's authors hold an
    `argparse.Namespace`; that type, and nothing beyond torch's own list, is allowed. Raises
    CheckpointError for what `check_checkpoint` refuses, a pickle that asks for other types, and a
    file without tensors.
    """
    path = Path(path)
    if check_checkpoint(path) == "safetensors":
        from safetensors.torch import load_file

        payload: Any = load_file(path)
    else:
        payload = _load_zip(path)
    state = payload
    for key in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    return Checkpoint(path, _tensors(state, path), sha256_of(path))


def _load_zip(path: Path) -> Any:
    import argparse
    import pickle

    import torch

    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        allowed = {"argparse.Namespace"}
        unsafe = sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - allowed)
        asks = f"asks for {', '.join(unsafe)}" if unsafe else "holds more than tensors"
        raise CheckpointError(
            f"{path} was not loaded: its pickle {asks}, which could run code; save only the state_dict"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError) as problem:
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise CheckpointError(f"{path} cannot be read: {reason}") from None


def _tensors(state: Any, path: Path) -> dict[str, Tensor]:
    import torch

    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(
            f"{path} holds no state_dict; expected names and tensors, or these under model/state_dict"
        )
    wrong = [str(key) for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise CheckpointError(f"{path} holds no state_dict: {wrong[0]} is not a tensor")
    prefix = "model."
    cut = len(prefix) if all(str(key).startswith(prefix) for key in state) else 0
    return {str(key)[cut:]: value for key, value in state.items()}


def load_into(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Put the tensors into `model`; every name and shape must match.

    Raises CheckpointError, naming the first mismatch, both shapes and the number of others.
    """
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in checkpoint.state.items()}
    wrong = [
        f"{key} is {list(given[key])} in the file and {list(shape)} in the model"
        for key, shape in own.items()
        if key in given and given[key] != shape
    ]
    wrong += [f"{key} {list(shape)} is not in the file" for key, shape in own.items() if key not in given]
    wrong += [f"{key} {list(shape)} is not in the model" for key, shape in given.items() if key not in own]
    if wrong:
        others = f" ({len(wrong) - 1} more do not fit)" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{checkpoint.path} does not fit this model: {wrong[0]}{others}; choose the model it was made for"
        )
    model.load_state_dict(checkpoint.state)
