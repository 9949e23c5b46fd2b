"""Image files of every kind: read right, or refused in one line."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pitome.errors import DataError
from pitome.sources.images import read_image

RAMP = np.linspace(0, 255, 48).round().astype(np.uint8).reshape(6, 8)


def grey(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L")).astype(int)


def save(folder: Path, name: str, image: Image.Image, **how: object) -> Path:
    image.save(folder / name, **how)
    return folder / name


def test_a_plain_file_is_rgb_and_needs_no_note(tmp_path: Path) -> None:
    picture = read_image(save(tmp_path, "a.png", Image.fromarray(RAMP)))
    assert (picture.image.mode, picture.name, picture.notes) == ("RGB", "a.png", ())
    assert (np.asarray(picture.image) == RAMP[..., None]).all()


def test_cmyk_is_converted_and_said(tmp_path: Path) -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    picture = read_image(save(tmp_path, "a.jpg", red, quality=100))
    assert picture.notes == ("converted from CMYK",)
    r, g, b = np.asarray(picture.image)[4, 4]
    assert r > 240 and g < 15 and b < 15


@pytest.mark.parametrize(("low", "high"), [(0, 65535), (1000, 33000)])
def test_16_bits_keep_their_greys(low: int, high: int, tmp_path: Path) -> None:
    values = np.linspace(low, high, 48).round().astype(np.uint16).reshape(6, 8)
    picture = read_image(save(tmp_path, "a.png", Image.fromarray(values)))
    assert picture.notes == ("scaled from 16 to 8 bits",)
    assert np.abs(grey(picture.image) - values / 257).max() <= 0.5  # neither clipped nor stretched


def test_wider_values_are_scaled_by_their_extremes(tmp_path: Path) -> None:
    values = np.linspace(-2, 3, 48, dtype=np.float32).reshape(6, 8)
    picture = read_image(save(tmp_path, "a.tif", Image.fromarray(values)))
    assert picture.notes == ("scaled from -2..3 to 8 bits",)
    assert np.abs(grey(picture.image) - RAMP).max() <= 1


def test_transparency_of_a_palette_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 1), 1)
    picture = read_image(save(tmp_path, "a.png", image, transparency=0))
    assert picture.notes == ("transparency over white",)
    assert picture.image.getpixel((0, 0)) == (255, 255, 255)
    assert picture.image.getpixel((1, 1)) == (255, 0, 0)


def test_an_opaque_alpha_channel_needs_no_note(tmp_path: Path) -> None:
    picture = read_image(save(tmp_path, "a.png", Image.new("RGBA", (4, 4), (9, 8, 7, 255))))
    assert picture.notes == () and picture.image.getpixel((0, 0)) == (9, 8, 7)


def test_exif_turns_the_image_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    picture = read_image(save(tmp_path, "a.png", Image.fromarray(RAMP), exif=exif))
    assert picture.notes == ("turned upright by EXIF",)
    assert (grey(picture.image) == np.rot90(RAMP, -1)).all()


def test_the_first_frame_of_several(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), value) for value in (0, 255)]
    picture = read_image(save(tmp_path, "a.gif", frames[0], save_all=True, append_images=frames[1:]))
    assert picture.notes == ("first frame",) and grey(picture.image).max() == 0


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    picture = read_image(save(tmp_path, "a.png", Image.new("L", (1, 1), 77)))
    assert picture.image.size == (1, 1) and picture.image.getpixel((0, 0)) == (77, 77, 77)


def test_the_limit_can_be_set(tmp_path: Path) -> None:
    path = save(tmp_path, "a.png", Image.fromarray(RAMP))  # 48 pixels
    before = Image.MAX_IMAGE_PIXELS
    assert read_image(path, max_pixels=48).image.size == (8, 6)
    for limit in (47, 10):  # Pillow warns above its limit and raises above twice its limit
        with pytest.raises(DataError, match=f"more than max_pixels={limit} pixels"):
            read_image(path, max_pixels=limit)
    assert before == Image.MAX_IMAGE_PIXELS


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


def truncated(folder: Path) -> Path:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(content, "JPEG")
    (folder / "a.jpg").write_bytes(content.getvalue()[:600])
    return folder / "a.jpg"


def not_finite(folder: Path) -> Path:
    return save(folder, "a.tif", Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)))


def narrow(folder: Path) -> Path:
    return save(folder, "a.png", Image.new("L", (1, 500)))


def postscript(folder: Path) -> Path:
    """Pillow would start another program to read it."""
    (folder / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    return folder / "a.eps"


BAD: dict[Callable[[Path], Path], str] = {
    text: "no image that can be read",
    empty: "no image that can be read",
    truncated: "damaged",
    bomb: "max_pixels=50000000",
    not_finite: "not finite",
    narrow: "too long and narrow",
    postscript: "no image that can be read",
    (lambda folder: folder): "is a folder",
    (lambda folder: folder / "none.png"): "no such file",
}


@pytest.mark.parametrize(
    "make",
    BAD,
    ids=["text", "empty", "truncated", "bomb", "not_finite", "narrow", "postscript", "folder", "missing"],
)
def test_what_is_no_image_is_refused_in_one_line(make: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_image(make(tmp_path))
    assert BAD[make] in str(caught.value) and "\n" not in str(caught.value)
