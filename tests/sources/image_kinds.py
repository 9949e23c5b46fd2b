"""Images of every kind as bytes, each with what it looks like. A new kind is one line of KINDS."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
from PIL import Image

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
HALF = np.where(np.arange(16) < 8, 255, 0).astype(np.uint8)[None].repeat(16, 0)  # the left half is opaque
WHITE_RIGHT = np.where(HALF == 255, RAMP, 255)  # the ramp, its right half transparent over white
TURNED = np.rot90(RAMP, -1)


def save(image: Image.Image, form: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def grey(values: np.ndarray, form: str, mode: str | None = None, **how: object) -> bytes:
    image = Image.fromarray(values)
    return save(image if mode is None else image.convert(mode), form, **how)


def with_alpha(mode: str, form: str) -> bytes:
    image = Image.fromarray(RAMP).convert(mode)
    image.putalpha(Image.fromarray(HALF))
    return save(image, form)


def transparent_colour(mode: str, transparency: object) -> bytes:
    """The ramp without its right half, which has the one colour that is transparent."""
    image = Image.fromarray(np.where(HALF == 255, RAMP, 7)).convert(mode)
    image.paste(Image.new(mode, (8, 16), 7 if mode != "RGB" else (9, 8, 7)), (8, 0))
    return save(image, "PNG", transparency=transparency)


def no_sevens(values: np.ndarray) -> np.ndarray:
    return np.where(values == 7, 255, values)


def oriented(form: str, orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return grey(RAMP, form, "RGB", exif=exif, lossless=True, quality=100)


def frames(form: str) -> bytes:
    first, second = Image.fromarray(RAMP).convert("RGB"), Image.new("RGB", (16, 16))
    return save(first, form, save_all=True, append_images=[second], lossless=True, quality=100)


def palette(**how: object) -> bytes:
    """Indices 0 to 255 of the greys from white to black."""
    image = Image.fromarray(255 - RAMP, "P")
    image.putpalette([level for grey in range(255, -1, -1) for level in (grey,) * 3])
    return save(image, "PNG", **how)


def big_endian() -> bytes:
    return save(
        Image.frombytes("I;16B", (16, 16), (RAMP.astype(">u2") * 257).astype(">u2").tobytes()), "TIFF"
    )


def twelve_bits() -> bytes:
    """A TIFF file with 12 bits a pixel, which Pillow reads and does not write."""
    values = (RAMP.astype(int) * 4095 // 255).ravel()
    first, second = values[::2], values[1::2]
    pixels = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8)
    tags = {256: 16, 257: 16, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 16, 279: pixels.size}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<I", 8 + pixels.size)
    return header + pixels.tobytes() + struct.pack("<H", len(tags)) + directory + struct.pack("<I", 0)


def cmyk(form: str) -> bytes:
    """JPEG: with Adobe's mark, and its inks inverted."""
    black = Image.fromarray(255 - RAMP)
    nothing = Image.new("L", (16, 16))
    return save(Image.merge("CMYK", (nothing, nothing, nothing, black)), form, quality=100)


def damaged_exif() -> bytes:
    return grey(RAMP, "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")


R16 = RAMP.astype(np.uint16) * 257
SCALED = ("scaled from 16 to 8 bits",)
WHITE = ("transparency over white",)
FIRST = ("first frame",)
TURNED_NOTE = ("turned upright by EXIF",)

# name of a file: (its bytes, greys that it shows [16, 16], what is said of it, how far a grey may be off)
KINDS: dict[str, tuple[Callable[[], bytes], np.ndarray, tuple[str, ...], int]] = {
    "grey.png": (lambda: grey(RAMP, "PNG"), RAMP, (), 0),
    "grey.jpg": (lambda: grey(RAMP, "JPEG", quality=100), RAMP, (), 2),
    "colour.JPEG": (lambda: grey(RAMP, "JPEG", "RGB", quality=100), RAMP, (), 2),
    "colour.jpe": (lambda: grey(RAMP, "JPEG", "RGB", quality=100), RAMP, (), 2),
    "colour.jfif": (lambda: grey(RAMP, "JPEG", "RGB", quality=100), RAMP, (), 2),
    "colour.avif": (lambda: grey(RAMP, "AVIF", "RGB", quality=100), RAMP, (), 4),
    "colour.jp2": (lambda: grey(RAMP, "JPEG2000", "RGB"), RAMP, (), 0),
    "colour.ppm": (lambda: grey(RAMP, "PPM", "RGB"), RAMP, (), 0),
    "colour.tga": (lambda: grey(RAMP, "TGA", "RGB"), RAMP, (), 0),
    "colour.webp": (lambda: grey(RAMP, "WEBP", "RGB", lossless=True), RAMP, (), 0),
    "colour.bmp": (lambda: grey(RAMP, "BMP", "RGB"), RAMP, (), 0),
    "colour.ico": (lambda: grey(RAMP, "ICO", "RGB"), RAMP, (), 0),
    "colour.qoi": (lambda: grey(RAMP, "QOI", "RGB"), RAMP, (), 0),
    "no suffix": (lambda: grey(RAMP, "PNG"), RAMP, (), 0),
    "grey.unknown": (lambda: grey(RAMP, "PNG"), RAMP, (), 0),
    "png.jpg": (lambda: grey(RAMP, "PNG"), RAMP, (), 0),
    "bits.png": (lambda: grey(RAMP, "PNG", "1"), np.asarray(Image.fromarray(RAMP).convert("1")) * 255, (), 0),
    "palette.png": (palette, RAMP, (), 0),
    "palette.gif": (lambda: grey(RAMP, "GIF"), RAMP, (), 0),
    "16 bits.png": (lambda: grey(R16, "PNG"), RAMP, SCALED, 0),
    "16 bits.tif": (lambda: grey(R16, "TIFF"), RAMP, SCALED, 0),
    "16 bits big-endian.tif": (big_endian, RAMP, SCALED, 0),
    "16 bits.pgm": (lambda: grey(R16, "PPM"), RAMP, SCALED, 0),
    "16 bits.jp2": (lambda: grey(R16, "JPEG2000"), RAMP, SCALED, 0),
    "12 bits.tif": (twelve_bits, RAMP, ("scaled from 12 to 8 bits",), 1),
    "32 bits.tif": (
        lambda: grey(RAMP.astype(np.int32) * 1000 - 5, "TIFF"),
        RAMP,
        ("scaled from -5..254995 to 8 bits",),
        0,
    ),
    "float.tif": (
        lambda: grey(RAMP.astype(np.float32) / 51 - 2, "TIFF"),
        RAMP,
        ("scaled from -2..3 to 8 bits",),
        0,
    ),
    "alpha.png": (lambda: with_alpha("RGB", "PNG"), WHITE_RIGHT, WHITE, 0),
    "alpha.tif": (lambda: with_alpha("RGB", "TIFF"), WHITE_RIGHT, WHITE, 0),
    "alpha.tga": (lambda: with_alpha("RGB", "TGA"), WHITE_RIGHT, WHITE, 0),
    "grey alpha.png": (lambda: with_alpha("L", "PNG"), WHITE_RIGHT, WHITE, 0),
    "opaque.png": (lambda: grey(RAMP, "PNG", "RGBA"), RAMP, (), 0),
    "transparent grey.png": (lambda: transparent_colour("L", 7), no_sevens(WHITE_RIGHT), WHITE, 0),
    "transparent colour.png": (lambda: transparent_colour("RGB", (9, 8, 7)), WHITE_RIGHT, WHITE, 0),
    "transparent index.png": (lambda: palette(transparency=255), np.where(RAMP, RAMP, 255), WHITE, 0),
    "transparent indices.png": (
        lambda: palette(transparency=bytes([255] * 255 + [128])),
        np.where(RAMP, RAMP, 127),
        WHITE,
        0,
    ),
    "cmyk.jpg": (lambda: cmyk("JPEG"), RAMP, ("converted from CMYK",), 2),
    "cmyk.tif": (lambda: cmyk("TIFF"), RAMP, ("converted from CMYK",), 0),
    "exif.jpg": (lambda: oriented("JPEG"), TURNED, TURNED_NOTE, 2),
    "exif.png": (lambda: oriented("PNG"), TURNED, TURNED_NOTE, 0),
    "exif.webp": (lambda: oriented("WEBP"), TURNED, TURNED_NOTE, 0),
    "damaged exif.png": (damaged_exif, RAMP, (), 0),
    "animated.gif": (lambda: frames("GIF"), RAMP, FIRST, 0),
    "animated.png": (lambda: frames("PNG"), RAMP, FIRST, 0),
    "animated.webp": (lambda: frames("WEBP"), RAMP, FIRST, 0),
    "pages.tif": (lambda: frames("TIFF"), RAMP, FIRST, 0),
    "two.mpo": (lambda: frames("MPO"), RAMP, FIRST, 3),
}
