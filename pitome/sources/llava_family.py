"""Vision-language models that cannot be merged yet, and what is missing. Imports no torch."""

from __future__ import annotations

from pitome.errors import UsageError

_GRID = "which merged tokens no longer form"

MISSING = {
    "llava_next": f"it puts the tokens of its tiles back on a grid to cut off padding, {_GRID}",
    "llava_next_video": f"it pools tokens of neighbouring places on a grid, {_GRID}",
    "llava_onevision": f"it puts the tokens of its tiles back on a grid to cut off padding, {_GRID}",
    "video_llava": "its video tower has no adapter",
    "vipllava": "it joins the features of several layers, between which merging changes the number of tokens",
    "gemma3": f"it averages the tokens of its tower over the cells of a grid, {_GRID}",
    "idefics2": "its tower has no adapter, nor has the resampler after it",
    "idefics3": f"its connector joins tokens of neighbouring places on a grid, {_GRID}",
    "smolvlm": f"its connector joins tokens of neighbouring places on a grid, {_GRID}",
    "qwen2_vl": f"its tower joins tokens of neighbouring places on a grid and rotates keys by place, {_GRID}",
    "qwen2_5_vl": f"its tower attends within windows and joins tokens of a grid, {_GRID}",
    "qwen3_vl": f"its tower joins tokens of neighbouring places on a grid and adds features of several "
    f"layers, {_GRID}",
}
"""transformers' `model_type` -> why its tokens cannot be merged here."""

KNOWN = "known are LLaVA-1.5 and models of its class (LlavaForConditionalGeneration)"


ARCHS = ("llava", "qwen2_5_vl", "qwen3_vl")
"""Of task=vqa; in towers of `MISSING` nothing merges, and keep= removes tokens after them."""


def check_arch(arch: str) -> None:
    """Raise UsageError for a `model.arch` that is none of `ARCHS`, with what is missing for it."""
    if arch not in ARCHS:
        why = f": {MISSING[arch]}" if arch in MISSING else ""
        raise UsageError(f"model.arch={arch} cannot be built{why}; known are {', '.join(ARCHS)}")
