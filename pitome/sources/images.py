"""An image file of the user's as RGB: safely read, and every conversion said. Imports no torch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pitome.errors import DataError

MAX_PIXELS = 50_000_000
"""Default limit: a file of a few kilobytes can hold an image that fills the memory."""

MAX_ASPECT = 100  # the shorter side is resized to the model's input, and the longer one with it

# Formats decoded by Pillow itself; EPS and the like would start another program.
_FORMATS = ("PNG", "JPEG", "JPEG2000", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO")
_EXIF_ORIENTATION = 0x0112
_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")


@dataclass(frozen=True)
class Picture:
    """An image in mode RGB, the name of its file, and what was changed on the way."""

    image: Image.Image
    name: str
    notes: tuple[str, ...] = ()


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS, *, file: BinaryIO | None = None) -> Picture:
    """Read an image of at most `max_pixels` pixels, from `file` if it is given, which `path` names.

    Upright by its EXIF orientation, the first frame of several, transparency over white, more than
    8 bits scaled to 8. Raises DataError for a file that is missing, no image, damaged, larger than
    the limit, or more than 100 times as long as it is wide.
    """
    path = Path(path).expanduser()
    what = f"image={path}"
    if file is None and path.is_dir():
        raise DataError(f"{what} is a folder; give an image file")
    before = Image.MAX_IMAGE_PIXELS
    try:
        with warnings.catch_warnings():
            # Pillow then keeps to this limit wherever it decodes, not only in the file's header.
            Image.MAX_IMAGE_PIXELS = max_pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file or path, formats=[name for name in _FORMATS if _known(name)]) as image:
                image.load()
                return _upright_rgb(image, path.name, what)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(
            f"{what} has more than max_pixels={max_pixels} pixels; shrink it or raise max_pixels"
        ) from None
    except FileNotFoundError:
        raise DataError(f"{what}: no such file; give an image file or the index of a sample") from None
    except UnidentifiedImageError:
        raise DataError(f"{what} is no image that can be read; give a PNG, JPEG, WebP or TIFF file") from None
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, MemoryError) as problem:
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise DataError(f"{what} is damaged or cannot be read ({reason}); give another file") from None
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _known(name: str) -> bool:
    """Whether this Pillow was built with the format."""
    Image.init()
    return name in Image.OPEN


def _upright_rgb(file: Image.Image, name: str, what: str) -> Picture:
    width, height = file.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(f"{what} is {width}x{height}, too long and narrow for a model; crop it first")
    notes = []
    if getattr(file, "n_frames", 1) > 1:
        notes.append("first frame")
    if file.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        notes.append("turned upright by EXIF")
    image = ImageOps.exif_transpose(file)
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        image, note = _to_8_bits(image, what)
        notes.append(note)
    elif mode in _TRANSPARENT or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(white, layer)
        if np.asarray(layer)[..., 3].min() < 255:
            notes.append("transparency over white")
    elif mode not in ("RGB", "RGBX", "L", "1", "P"):
        notes.append(f"converted from {mode}")
    return Picture(image.convert("RGB"), name, tuple(notes))


def _to_8_bits(image: Image.Image, what: str) -> tuple[Image.Image, str]:
    """16 bits by their full range, so that white stays white; anything wider by its own extremes."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{what} holds values that are not finite; give another file")
    low, high, note = 0.0, 65535.0, "scaled from 16 to 8 bits"
    if image.mode == "F" or values.min() < 0 or values.max() > high:
        low, high = float(values.min()), float(values.max())
        note = f"scaled from {low:g}..{high:g} to 8 bits"
    scaled = (values - low) * (255 / max(high - low, 1e-300))
    return Image.fromarray(np.rint(scaled).astype(np.uint8)), note
