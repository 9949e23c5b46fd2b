"""Which kind of file a checkpoint is, and whether it is complete. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Sequence
from operator import index
from pathlib import Path

from pitome.errors import CheckpointError

PUBLISHED = (  # names of one model's weights in a repository of the hub; the first that is there counts
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_INDEX = ".index.json"
_MOST_PACKED, _SMALL = 10, 64_000_000  # torch.save packs nothing; numbers pack little
_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number with which torch before 1.6 began a file
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)")
_OTHERS: tuple[tuple[bytes, str], ...] = (  # first bytes of what people take for weights
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the weights: run `git lfs pull` beside it",
    ),
    (b"<", "is a web page, not the weights: download the file itself, logged in if need be"),
    (b"\x1f\x8b", "is compressed (gzip): unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it"),
    (b"\x89HDF", "is an HDF5 file (Keras): convert it to safetensors"),
    (b"GGUF", "is a GGUF file, of quantised weights: take the original weights"),
    (b"\x93NUMPY", "is a NumPy array: save names and tensors as safetensors"),
    (b"\x80", "is a pickle that torch.save did not write: save the state_dict with torch.save"),
)


def check_checkpoint(path: str | Path) -> str:
    """Say of a checkpoint, without torch, which kind it is: `safetensors`, a torch `zip`, a torch file from
    before 1.6 (`legacy`), a TorchScript archive (`script`), or the `index` of a model in several files.

    Raises CheckpointError when there is no such file, when it is something else, and when it is truncated.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"weights={path}: no such file; give a .safetensors or torch file, pretrained or random"
        )
    if path.name.endswith(_INDEX):
        for shard in shards_of(path):
            check_checkpoint(shard)
        return "index"
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(len(_LEGACY) + 8)
        if head[:4] == _ZIP:
            return _check_zip(path)
        if head.startswith(_LEGACY):
            return "legacy"
        length = int.from_bytes(head[:8], "little")
        if size >= 8 and size < 8 + length and head[8:9] == b"{":
            raise CheckpointError(
                f"{path} is truncated: its header alone is longer than the file; fetch it again"
            )
        if size < 9 or head[8:9] != b"{" or size < 8 + length:
            raise CheckpointError(f"{path} {_other(head)}")
        file.seek(8)
        _check_safetensors(path, file.read(length), size - 8 - length)
    return "safetensors"


def shards_of(path: Path) -> list[Path]:
    """The files that the index of a model in several files names, beside it. Raises CheckpointError for an
    index that cannot be read, and for a file that is not there."""
    try:
        names = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
        shards = [path.parent / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{path} is not an index of weights (an object with weight_map)") from None
    lacking = [shard.name for shard in shards if not shard.is_file()]
    if lacking or not shards:
        raise CheckpointError(
            f"{path} names {len(shards)} files, of which {', '.join(lacking[:3]) or 'none'} "
            f"{'are' if len(lacking) != 1 else 'is'} not beside it; fetch all of them"
        )
    return shards


def shard_hint(path: Path) -> str:
    """What to give instead of one of a model's files; empty for a file that is whole."""
    match = _SHARD.fullmatch(path.name)
    if match is None or int(match[2]) < 2:
        return ""
    return f"it is one of {int(match[2])} files: give {match[1]}{match[3]}{_INDEX}, beside all of them"


def sha256_of(path: Path) -> str:
    """Checksum of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(paths: Sequence[Path]) -> str:
    """One checksum of several files, in their order."""
    return hashlib.sha256(" ".join(sha256_of(path) for path in paths).encode()).hexdigest()


def _other(head: bytes) -> str:
    return next(
        (what for start, what in _OTHERS if head.lstrip().startswith(start)),
        "is neither a safetensors file nor a torch file; save the state_dict in one of these forms",
    )


def _check_zip(path: Path) -> str:
    """The index of a zip stands at its end, so truncation shows; torch's holds a data.pkl."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            unpacked = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile:
        raise CheckpointError(
            f"{path} is truncated or damaged: its zip index cannot be read; fetch it again"
        ) from None
    packed = path.stat().st_size
    if unpacked > _MOST_PACKED * packed + _SMALL:
        raise CheckpointError(f"{path}: {packed:,} bytes would unpack to {unpacked:,}, which no weights do")
    if all(name.endswith(".npy") for name in names):
        raise CheckpointError(f"{path} is an archive of NumPy arrays: save names and tensors as safetensors")
    inside = {name.partition("/")[2] for name in names}
    if "data.pkl" not in inside:
        raise CheckpointError(
            f"{path} is a zip file but holds no data.pkl, so torch.save did not write it; unpack it if it is "
            "an archive with the weights"
        )
    return "script" if "constants.pkl" in inside else "zip"


def _check_safetensors(path: Path, header: bytes, payload: int) -> None:
    """Header: JSON of name -> dtype, shape, data_offsets; the offsets must end where the file does."""
    try:
        entries = json.loads(header)
        ends = [index(entry["data_offsets"][1]) for key, entry in entries.items() if key != "__metadata__"]
        end = max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise CheckpointError(f"{path} is not a safetensors file: its header cannot be read") from None
    if not ends:
        raise CheckpointError(f"{path} holds no tensors")
    if payload < end:
        raise CheckpointError(f"{path} is truncated: {end - payload} bytes are missing; fetch it again")
    if payload > end:
        raise CheckpointError(f"{path} is damaged: {payload - end} bytes too many; fetch it again")
