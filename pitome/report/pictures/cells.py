"""The pictures of one image: as the model sees it, in groups, and its energy. Arrays [H, W, 3] of uint8."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pitome.report.pictures.colours import NONE, PALETTE
from pitome.report.pictures.groups import DROPPED

_TINT = 0.55  # share of the group's colour; the rest is the image
_LIFT = 0.2  # black becomes this grey, so that black edges show on it
_EDGE = np.array((12, 12, 16))  # between groups
_FAINT = 0.35  # share of the edge between two patches on their own
_HATCH = (np.array((8, 8, 10)), np.array((105, 105, 112)))  # ground and lines of a dropped patch
_UNRANKED = np.array((150, 150, 150))


def plain(pixels: np.ndarray, grid: tuple[int, int], scale: int) -> np.ndarray:
    """The image `pixels` [h, w, 3] in `grid` patches of `scale` pixels, without interpolation where
    it is enlarged."""
    width, height = grid[1] * scale, grid[0] * scale
    larger = height >= pixels.shape[0]
    method = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(pixels).resize((width, height), method))


def grouped(pixels: np.ndarray, groups: np.ndarray, colours: np.ndarray, scale: int) -> np.ndarray:
    """The image with each group in its colour and edges between groups; dropped patches hatched.

    groups, colours: one per patch, as `groups.Step` and `colours.colour` give them.
    """
    image = 255 * _LIFT + (1 - _LIFT) * plain(pixels, groups.shape, scale)
    tints = _enlarge(PALETTE[np.maximum(colours, 0)].astype(float), scale)
    merged = _enlarge(colours != NONE, scale)[..., None]
    image = np.where(merged, (1 - _TINT) * image + _TINT * tints, image)
    if (groups == DROPPED).any():
        image = np.where(_enlarge(groups == DROPPED, scale)[..., None], _hatch(image.shape, scale), image)
    return _edges(image, groups, colours, scale).round().astype(np.uint8)


def heat(energy: np.ndarray, scale: int) -> np.ndarray:
    """Energies [rows, columns] from their lowest to their highest; grey where NaN."""
    known = np.isfinite(energy)
    low, high = (energy[known].min(), energy[known].max()) if known.any() else (0.0, 0.0)
    share = np.where(known, (energy - low) / (high - low if high > low else 1), 0)
    return _enlarge(np.where(known[..., None], ramp(share), _UNRANKED), scale).astype(np.uint8)


def ramp(share: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as colours of matplotlib's `viridis`: [...] -> [..., 3] of uint8."""
    from matplotlib import colormaps

    colours: np.ndarray = colormaps["viridis"](share, bytes=True)
    return colours[..., :3]


def _enlarge(values: np.ndarray, scale: int) -> np.ndarray:
    return values.repeat(scale, axis=0).repeat(scale, axis=1)


def _hatch(shape: tuple[int, ...], scale: int) -> np.ndarray:
    """Diagonal lines, two in a patch."""
    rows, columns = np.indices(shape[:2])
    step = max(scale // 2, 3)
    lines = (rows + columns) % step < max(step // 5, 1)
    return np.where(lines[..., None], _HATCH[1], _HATCH[0]).astype(float)


def _edges(image: np.ndarray, groups: np.ndarray, colours: np.ndarray, scale: int) -> np.ndarray:
    """Draw a line wherever two neighbouring patches belong to different groups."""
    width = max(round(scale / 10), 1)
    alone = colours == NONE
    for _ in range(2):  # between rows, then between columns
        image, groups, alone = (a.swapaxes(0, 1) for a in (image, groups, alone))
        image = image.copy()
        differ = groups[1:] != groups[:-1]
        faint = alone[1:] & alone[:-1] & (groups[1:] >= 0) & (groups[:-1] >= 0)
        share = np.where(differ, np.where(faint, _FAINT, 1.0), 0.0).repeat(scale, axis=1)[..., None]
        for i, line in enumerate(share, start=1):
            first = i * scale - width // 2
            part = image[first : first + width]
            image[first : first + width] = (1 - line) * part + line * _EDGE
    return image
