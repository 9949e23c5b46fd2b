"""IDX files of unsigned bytes, as MNIST's authors define them, gzip or plain. Imports no torch."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from pitome.errors import DataError

_BYTES = 8  # the type code of unsigned bytes
_LARGEST = 1 << 30  # bytes of images


def read_idx(path: Path, dims: int) -> np.ndarray:
    """Read an IDX file of `dims` dimensions (3: images [N, H, W]; 1: labels [N]) as uint8.

    Raises DataError for an unreadable file, another magic number and another length than announced.
    """
    header, magic = 4 + 4 * dims, bytes((0, 0, _BYTES, dims))
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(raw)) as packed:  # a few kilobytes may unpack to any number
                raw = packed.read(header)
                sizes = struct.unpack(f">{dims}I", raw[4:]) if len(raw) == header else (0,)
                announced = math.prod(sizes) if raw[:4] == magic else 0
                if announced > _LARGEST:
                    raise DataError(f"{path} announces {announced:,} bytes, more than any set has")
                raw += packed.read(announced + 1)
    except EOFError:
        raise DataError(f"{path} is truncated; fetch it again") from None
    except (OSError, zlib.error) as problem:
        raise DataError(f"{path} cannot be read ({problem}); fetch it again") from None
    if raw[:4] != magic:
        raise DataError(
            f"{path} is not an IDX file of bytes in {dims} dimension{'s' * (dims > 1)}: "
            f"it begins with {raw[:4].hex() or 'nothing'}; fetch it again"
        )
    if len(raw) < header:
        raise DataError(f"{path} is truncated: its header is incomplete; fetch it again")
    shape = struct.unpack(f">{dims}I", raw[4:header])
    expected = math.prod(shape)
    if len(raw) - header != expected:
        raise DataError(
            f"{path} is {'truncated' if len(raw) - header < expected else 'damaged'}: "
            f"{len(raw) - header} bytes of data, {expected} announced; fetch it again"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def find_idx(folder: Path, name: str) -> Path:
    """The file `name` or `name`.gz in `folder`. Raises DataError, naming it, when neither is there."""
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise DataError(f"{folder} has no {name} or {name}.gz; give the folder that holds the four IDX files")
