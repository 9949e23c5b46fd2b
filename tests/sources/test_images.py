"""Image files of every kind: read right, or refused in one line."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image, ImageOps

from pitome.errors import DataError, Unreadable, UsageError
from pitome.sources import images
from pitome.sources.image_files import ImageFiles
from pitome.sources.images import (
    DEFAULT,
    ImageRules,
    _formats,
    decode,
    is_image,
    read_file,
    read_image,
    suffixes,
)
from pitome.sources.parquet import ParquetImages
from pitome.tasks.classification.files import Folder, custom_set
from tests.sources.image_kinds import KINDS, RAMP, grey, oriented, save


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_the_same_wherever_it_is_read(kind: str, tmp_path: Path) -> None:
    make, expected, notes, tolerance = KINDS[kind]
    picture = decode(make(), kind)
    assert (picture.image.mode, picture.name, picture.notes) == ("RGB", kind, notes)
    values = np.asarray(picture.image).astype(int)
    assert np.abs(values - expected[..., None].astype(int)).max() <= tolerance

    (tmp_path / "test" / "cat").mkdir(parents=True)
    path = tmp_path / "test" / "cat" / kind
    path.write_bytes(make())
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(path, f"packed/{kind}")
    rows = pyarrow.Table.from_pylist([{"image": {"bytes": make(), "path": kind}}])
    pyarrow.parquet.write_table(rows, tmp_path / "rows.parquet")
    everywhere = {
        "classification": Folder(custom_set("x", ["cat"]), tmp_path, "test")[0][0],
        "retrieval, questions": ImageFiles(tmp_path, {f"cat/{kind}"}).read(f"cat/{kind}"),
        "zip files": ImageFiles(tmp_path, {f"packed/{kind}"}).read(f"packed/{kind}"),
        "parquet files": ParquetImages([tmp_path / "rows.parquet"]).read(0, kind),
        "pictures": read_image(path).image,
    }
    for where, image in everywhere.items():
        assert np.array_equal(np.asarray(image), values), where


def test_all_that_pillow_decodes_itself_is_read() -> None:
    """Whatever it can also write, in one of the modes of the format."""
    read = 0
    for form in _formats():
        for mode in ("RGB", "L", "P", "1") if form in Image.SAVE else ():
            buffer = io.BytesIO()
            try:
                Image.fromarray(RAMP).convert(mode).resize((64, 64)).save(buffer, form)
            except (OSError, ValueError):
                continue
            assert abs(np.asarray(decode(buffer.getvalue(), form).image).mean() - 127.5) < 3, form
            read += 1
            break
    assert read > 15 and not {"EPS", "WMF"} & {*_formats()}, "other programs would be started for those"
    assert {".avif", ".jfif", ".jpe", ".ppm", ".jp2", ".tga", ".mpo", ".webp"} <= suffixes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation(orientation: int) -> None:
    stored = np.asarray(decode(oriented("PNG", orientation), "a").image)
    with Image.open(io.BytesIO(oriented("PNG", orientation))) as image:
        assert np.array_equal(stored, np.asarray(ImageOps.exif_transpose(image)))
    raw = decode(oriented("PNG", orientation), "a", ImageRules(exif=False))
    assert raw.notes == () and np.array_equal(np.asarray(raw.image)[..., 0], RAMP)


def test_the_middle_of_16_bits_stays_the_middle(tmp_path: Path) -> None:
    """Neither clipped nor stretched."""
    values = np.linspace(1000, 33000, 256).round().astype(np.uint16)
    image = np.asarray(decode(grey(values.reshape(16, 16), "PNG"), "a").image)[..., 0]
    assert np.abs(image.ravel() - values / 257).max() <= 0.5


def test_one_pixel_is_an_image() -> None:
    picture = decode(save(Image.new("L", (1, 1), 77), "PNG"), "a.png")
    assert picture.image.size == (1, 1) and picture.image.getpixel((0, 0)) == (77, 77, 77)


def test_the_limit_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(grey(RAMP, "PNG"))
    before = Image.MAX_IMAGE_PIXELS
    assert read_image(tmp_path / "a.png", max_pixels=256).image.size == (16, 16)
    for limit in (255, 50):  # Pillow warns above its limit and raises above twice its limit
        with pytest.raises(DataError, match=f"more than max_pixels={limit} pixels"):
            read_image(tmp_path / "a.png", max_pixels=limit)
    assert before == Image.MAX_IMAGE_PIXELS


def test_rules_come_from_the_configuration_and_are_recorded_where_they_differ() -> None:
    assert ImageRules.of(None, True) == DEFAULT
    assert DEFAULT.settings() == {} and DEFAULT.max_pixels == 50_000_000
    rules = ImageRules.of(9, False)
    assert rules.settings() == {"exif": False, "max_pixels": 9}
    with pytest.raises(UsageError, match=r"data\.max_pixels=0 is not a whole number >= 1"):
        ImageRules.of(0, True)


def test_what_is_no_image_by_suffix_is_looked_into(tmp_path: Path) -> None:
    cases = {
        "a.PNG": (b"damaged", True),
        "b.heic": (b"\0\0\0\x18ftypheic", False),
        "c.txt": (b"text", False),
        "d.txt": (grey(RAMP, "PNG"), True),
        "e": (b"", False),
        "f.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", False),
    }
    for name, (content, expected) in cases.items():
        (tmp_path / name).write_bytes(content)
        assert is_image(tmp_path / name) == expected, name
    os.mkfifo(tmp_path / "pipe")
    assert not is_image(tmp_path / "pipe") and not is_image(tmp_path)


def bomb(folder: Path) -> Path:
    """A PNG of a few bytes that says it is 60,000 x 60,000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    path = folder / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))
    return path


def text(folder: Path) -> Path:
    (folder / "a.png").write_text("not an image, only its name says so")
    return folder / "a.png"


def empty(folder: Path) -> Path:
    (folder / "a.jpg").write_bytes(b"")
    return folder / "a.jpg"


def pipe(folder: Path) -> Path:
    """To open it would wait for its other end."""
    os.mkfifo(folder / "a.png")
    return folder / "a.png"


def written(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return make


def postscript(folder: Path) -> Path:
    """Pillow would start another program to read it."""
    (folder / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    return folder / "a.eps"


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "text": (text, "no image that can be read"),
    "empty": (empty, "no image that can be read"),
    "postscript": (postscript, "no image that can be read"),
    "bomb": (bomb, "more than max_pixels=50000000 pixels"),
    "cut jpeg": (written("a.jpg", lambda: grey(noise(), "JPEG")[:600]), "damaged"),
    "cut png": (written("a.png", lambda: grey(noise(), "PNG")[:600]), "damaged"),
    "cut gif": (written("a.gif", lambda: grey(noise(), "GIF")[:1500]), "damaged"),
    "cut tiff": (written("a.tif", lambda: grey(noise(), "TIFF")[:600]), "damaged"),
    "cut webp": (written("a.webp", lambda: grey(noise(), "WEBP", "RGB")[:200]), "damaged"),
    "not finite": (written("a.tif", lambda: grey(np.full((4, 4), np.nan, np.float32), "TIFF")), "not finite"),
    "narrow": (written("a.png", lambda: grey(np.zeros((500, 1), np.uint8), "PNG")), "too long and narrow"),
    "folder": (lambda folder: folder, "is a folder"),
    "pipe": (pipe, "is a device or pipe"),
    "device": (lambda folder: Path("/dev/zero"), "is a device or pipe"),
    "missing": (lambda folder: folder / "none.png", "no such file"),
    "inside a file": (lambda folder: text(folder) / "b.png", "no such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_image_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, says = BAD[case]
    path = make(tmp_path)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"image={path}: ") and says in str(caught.value)
    with pytest.raises(Unreadable) as caught_too:
        read_file(path.parent, path.name)
    assert str(caught_too.value).startswith(f"{path.name}: ") and says in str(caught_too.value)
    assert "\n" not in f"{caught.value}{caught_too.value}"


def test_a_file_is_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(grey(RAMP, "PNG"))
    monkeypatch.setattr(images, "MAX_BYTES", 50)
    with pytest.raises(Unreadable, match=r"a\.png: the file is larger than"):
        read_file(tmp_path, "a.png")


def test_bytes_that_no_decoder_expects_are_one_reason() -> None:
    """Damaged at random places: read, or Unreadable and nothing else."""
    random, refused = np.random.default_rng(0), 0
    for kind, (make, *_) in KINDS.items():
        content = bytearray(make())
        for place in random.integers(8, len(content), 6):
            content[place] = random.integers(256)
        try:
            decode(bytes(content), kind)
        except Unreadable as problem:
            assert "\n" not in str(problem) and str(problem).startswith(f"{kind}: ")
            refused += 1
    assert refused > 5
