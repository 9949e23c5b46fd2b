"""Encoded images as RGB: the one reader of every task and picture. Imports no torch.

What it does with each kind of image is written down in docs/data.md.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pitome.errors import DataError, Unreadable, UsageError

MAX_PIXELS = 50_000_000
"""Default limit: a file of a few kilobytes can hold an image that fills the memory."""

MAX_ASPECT = 100  # the shorter side is resized to the model's input, and the longer one with it
MAX_BYTES = 400_000_000  # of one encoded image

# Pillow would start another program for them, or only knows their headers.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_TRANSPARENT = ("RGBA", "RGBa", "LA", "PA")
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE = 258
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageRules:
    """How the images of a data set are read."""

    max_pixels: int = MAX_PIXELS  # images with more are refused
    exif: bool = True  # turned upright as their EXIF orientation says

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise UsageError(f"data.max_pixels={self.max_pixels} is not a whole number >= 1")

    @classmethod
    def of(cls, max_pixels: int | None, exif: bool) -> ImageRules:
        """The rules in a file of conf/data; max_pixels None: the usual limit. Raises UsageError for one
        below 1."""
        return cls(MAX_PIXELS if max_pixels is None else max_pixels, exif)

    def settings(self) -> dict[str, Any]:
        """What identifies a run: the rules that are not the default."""
        return {key: value for key, value in vars(self).items() if value != getattr(ImageRules, key)}


DEFAULT = ImageRules()


@dataclass(frozen=True)
class Picture:
    """A decoded image."""

    image: Image.Image  # mode RGB
    name: str  # of its file
    notes: tuple[str, ...] = ()  # what was changed on the way


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """The image that a person named on the command line. Raises DataError, one line, if it cannot be read."""
    path = Path(path).expanduser()
    try:
        return decode(file_bytes(path), path.name, ImageRules(max_pixels))
    except Unreadable as problem:
        reason = str(problem).removeprefix(f"{path.name}: ")
        raise DataError(f"image={path}: {reason}; give another image or the index of a sample") from None


def read_file(folder: Path, name: str, rules: ImageRules = DEFAULT) -> Image.Image:
    """The image `folder`/`name` in mode RGB. Raises Unreadable, whose reason does not name the folder."""
    return decode(file_bytes(folder / name, name), name, rules).image


def file_bytes(path: Path, name: str | None = None) -> bytes:
    """The content of a regular file of at most MAX_BYTES, of one that grows as much as there was at first.

    Raises Unreadable with a reason that begins with `name`, the file's own if None.
    """
    name = path.name if name is None else name
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for its other end
            raise Unreadable(f"{name}: is a {'folder' if path.is_dir() else 'device or pipe'}")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise Unreadable(f"{name}: the file is larger than {MAX_BYTES / 1e6:.0f} MB")
            return file.read(size)
    except (FileNotFoundError, NotADirectoryError):
        raise Unreadable(f"{name}: no such file") from None
    except (OSError, ValueError) as problem:
        raise Unreadable(f"{name}: {getattr(problem, 'strerror', None) or problem}") from None


def decode(content: bytes, name: str, rules: ImageRules = DEFAULT) -> Picture:
    """An encoded image as RGB: of several frames the first, transparency over white, more than 8 bits
    scaled to 8.

    Raises Unreadable, with a reason that begins with `name`, for what is not an image, is damaged, has more
    pixels than the rules allow, or is more than 100 times as long as it is wide.
    """
    before = Image.MAX_IMAGE_PIXELS
    try:
        with warnings.catch_warnings():
            # Pillow then keeps to this limit wherever it decodes, not only in the file's header.
            Image.MAX_IMAGE_PIXELS = rules.max_pixels
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_formats()) as image:
                image.load()
                converted, notes = _rgb(image, rules)
                return Picture(converted, name, notes)
    except Unreadable as problem:
        raise Unreadable(f"{name}: {problem}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Unreadable(f"{name}: more than max_pixels={rules.max_pixels} pixels") from None
    except UnidentifiedImageError:
        pointer = content.startswith(b"version https://git-lfs")
        what = "a Git LFS pointer, run `git lfs pull`" if pointer else "no image that can be read"
        raise Unreadable(f"{name}: {what}") from None
    except Exception as problem:  # Pillow's decoders raise whatever a damaged file leads them to
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise Unreadable(f"{name}: damaged or cannot be read ({reason})") from None
    finally:
        Image.MAX_IMAGE_PIXELS = before


def is_image(path: Path) -> bool:
    """Whether the suffix of a file, or else its first bytes, are those of an image that can be read."""
    if path.suffix.lower() in suffixes():
        return True
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(path, formats=_formats()).close()
    except Image.DecompressionBombError:
        return True
    except Exception:  # as in `decode`
        return False
    return True


@cache
def suffixes() -> frozenset[str]:
    """Of the files that can be read, in lower case: .jpg, .png, ..."""
    known = {*_formats(), "MPO"}  # which the JPEG reader opens
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in known)


@cache
def _formats() -> tuple[str, ...]:
    """What this Pillow decodes itself."""
    Image.init()
    return tuple(name for name in Image.OPEN if name not in _NOT_DECODED)


def _rgb(file: Image.Image, rules: ImageRules) -> tuple[Image.Image, tuple[str, ...]]:
    """The loaded file in mode RGB, and what was changed. Raises Unreadable."""
    width, height = file.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise Unreadable(f"{width}x{height} is too long and narrow for a model")
    image, notes = file, []
    if getattr(file, "is_animated", False):
        notes.append("first frame")
    if rules.exif and (turn := _UPRIGHT.get(_orientation(file))) is not None:
        image = file.transpose(turn)
        notes.append("turned upright by EXIF")
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        image, note = _to_8_bits(image, file)
        notes.append(note)
    elif mode in _TRANSPARENT or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(white, layer)
        if np.asarray(layer)[..., 3].min() < 255:
            notes.append("transparency over white")
    elif mode not in ("RGB", "RGBX", "L", "1", "P"):
        notes.append(f"converted from {mode}")
    return image.convert("RGB"), tuple(notes)


def _orientation(file: Image.Image) -> int:
    """1 (upright) to 8; EXIF that cannot be read says nothing."""
    try:
        return int(file.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # as in `decode`
        return 1


def _to_8_bits(image: Image.Image, file: Image.Image) -> tuple[Image.Image, str]:
    """16 bits (or what the TIFF file says) by their full range, so that white stays white; anything wider
    by its own extremes."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise Unreadable("it holds values that are not finite")
    bits = getattr(file, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, (16,))[0]
    bits = bits if 8 < bits < 16 else 16
    low, high, note = 0.0, 2.0**bits - 1, f"scaled from {bits} to 8 bits"
    if image.mode == "F" or values.min() < 0 or values.max() > high:
        low, high = float(values.min()), float(values.max())
        note = f"scaled from {low:g}..{high:g} to 8 bits"
    scaled = (values - low) * (255 / max(high - low, 1e-300))
    return Image.fromarray(np.rint(scaled).astype(np.uint8)), note
