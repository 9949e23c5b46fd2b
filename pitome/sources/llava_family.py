"""Vision-language models in whose towers nothing can merge, and those of task=vqa. Imports no torch."""

from __future__ import annotations

from pitome.errors import UsageError

_GRID = "which merged tokens no longer form"

MISSING = {
    "video_llava": "its video tower has no adapter",
    "idefics2": "its tower has no adapter, nor has the resampler after it",
    "qwen2_vl": f"its tower joins tokens of neighbouring places on a grid and rotates keys by place, {_GRID}",
    "qwen2_5_vl": f"its tower attends within windows and joins tokens of a grid, {_GRID}",
    "qwen3_vl": f"its tower joins tokens of neighbouring places on a grid and adds features of several "
    f"layers, {_GRID}",
}
"""transformers' `model_type` -> why nothing can merge in its tower."""

ARCHS = ("llava", "qwen2_5_vl", "qwen3_vl")
"""Of task=vqa; in towers of `MISSING` nothing merges, and keep= removes tokens after them."""


def check_arch(arch: str) -> None:
    """Raise UsageError for a `model.arch` that is none of `ARCHS`, with what is missing for it."""
    if arch not in ARCHS:
        why = f": {MISSING[arch]}" if arch in MISSING else ""
        raise UsageError(f"model.arch={arch} cannot be built{why}; known are {', '.join(ARCHS)}")
