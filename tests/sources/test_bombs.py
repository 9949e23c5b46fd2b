"""Small files that ask for much memory, disk or time: each is one line within seconds."""

from __future__ import annotations

import gzip
import pickle
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch

from pitome.errors import PitomeError, Unreadable
from pitome.sources.checkpoints import load_checkpoint, load_into
from pitome.sources.idx import read_idx
from pitome.sources.image_files import ImageFiles
from pitome.sources.images import read_image
from pitome.sources.rows import read_rows

SECONDS = 10
MODEL = torch.nn.Linear(2, 2)


def read_weights(path: Path) -> None:
    load_into(MODEL, load_checkpoint(path, MODEL))


def read_member(path: Path) -> None:
    ImageFiles(path.parent, ["a.png"]).read("a.png")


def gz(path: Path, header: bytes, megabytes: int) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(megabytes):
            file.write(bytes(1 << 20))


def zipped(path: Path, name: str, megabytes: int) -> None:
    packed = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with packed, packed.open(name, "w", force_zip64=True) as file:
        for _ in range(megabytes):
            file.write(bytes(1 << 20))


def png(path: Path, width: int, *chunks: tuple[bytes, bytes]) -> None:
    header = b"IHDR", struct.pack(">2I5B", width, width, 8, 2, 0, 0, 0)
    parts = [header, *chunks, (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def archive(path: Path, data: bytes, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", data)
        for name in names:
            file.writestr(f"x/{name}", pickle.dumps((), protocol=2))
        file.writestr("x/version", "3")
        file.writestr("x/byteorder", "little")


def nested(levels: int) -> dict[str, Any]:
    """A dictionary that holds 10 ** levels others, all of them one."""
    content: dict[str, Any] = {"weight": torch.zeros(1)}
    for _ in range(levels):
        content = {str(i): content for i in range(10)}
    return content


def deep(levels: int) -> bytes:
    return b"\x80\x02" + b"]" * levels + b"a" * (levels - 1) + b"."


def packed_zeros(path: Path) -> None:
    table = pyarrow.table({"text": [bytes(100 << 20)]})
    with pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False) as file:
        for _ in range(3):
            file.write_table(table)


def one_long_text(path: Path) -> None:
    places = pyarrow.repeat(pyarrow.scalar(0, pyarrow.int32()), 500_000)
    texts = pyarrow.DictionaryArray.from_arrays(places, ["x" * 100_000])
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)


def equal_rows(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"label": pyarrow.nulls(20_000_000, pyarrow.int8())}), path)


LONG_MEMO = b"\x80\x02}r\xff\xff\xff\x7f."  # an index of the memo, for which C makes room

BOMBS: dict[str, tuple[str, Callable[[Path], Any], Callable[[Path], object]]] = {
    "gz longer than announced": (
        "a.gz",
        lambda path: gz(path, struct.pack(">4B3I", 0, 0, 8, 3, 1, 28, 28), 500),
        lambda path: read_idx(path, 3),
    ),
    "gz that announces much": (
        "a.gz",
        lambda path: gz(path, struct.pack(">4B3I", 0, 0, 8, 3, 1 << 31, 28, 28), 1),
        lambda path: read_idx(path, 3),
    ),
    "gz without a header": ("a.gz", lambda path: gz(path, b"", 500), lambda path: read_idx(path, 1)),
    "zip of an image": ("a.zip", lambda path: zipped(path, "a.png", 450), read_member),
    "png of many pixels": ("a.png", lambda path: png(path, 60_000), read_image),
    "png with a long text": (
        "a.png",
        lambda path: png(path, 10, (b"zTXt", b"a\x00\x00" + zlib.compress(bytes(300 << 20), 1))),
        read_image,
    ),
    "png with a long profile": (
        "a.png",
        lambda path: png(path, 10, (b"iCCP", b"a\x00\x00" + zlib.compress(bytes(300 << 20), 1))),
        read_image,
    ),
    "zip of weights": ("a.pt", lambda path: zipped(path, "x/data.pkl", 300), read_weights),
    "weights that repeat one number": (
        "a.pt",
        lambda path: torch.save({"weight": torch.zeros(1).expand(10**6, 10**6)}, path),
        read_weights,
    ),
    "weights in too many mappings": ("a.pt", lambda path: torch.save(nested(7), path), read_weights),
    "pickle of lists in lists": ("a.pt", lambda path: archive(path, deep(100_000)), read_weights),
    "pickle with a huge memo": ("a.pt", lambda path: archive(path, LONG_MEMO), read_weights),
    "script with a huge memo": ("a.pt", lambda path: archive(path, LONG_MEMO, "constants.pkl"), read_weights),
    "script of lists in lists": (
        "a.pt",
        lambda path: archive(path, deep(100_000), "constants.pkl"),
        read_weights,
    ),
    "pickle that is cut off": (
        "a.pt",
        lambda path: archive(path, b"\x80\x02}X\xff\xff\xff\x7f"),
        read_weights,
    ),
    "safetensors of lists in lists": (
        "a.safetensors",
        lambda path: path.write_bytes(struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995),
        read_weights,
    ),
    "parquet of equal rows": ("a.parquet", equal_rows, read_rows),
    "parquet of one long text": ("a.parquet", one_long_text, read_rows),
    "parquet that packs zeros": ("a.parquet", packed_zeros, read_rows),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_one_line_within_seconds(name: str, tmp_path: Path) -> None:
    file, make, read = BOMBS[name]
    make(tmp_path / file)
    assert (tmp_path / file).stat().st_size < 5_000_000
    start = time.monotonic()
    with pytest.raises((PitomeError, Unreadable)) as caught:
        read(tmp_path / file)
    assert time.monotonic() - start < SECONDS
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 + len(str(tmp_path))
