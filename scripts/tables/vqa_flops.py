"""docs/vqa_flops.md: what merging in LLaVA's image tower saves, by part."""

from __future__ import annotations

from typing import Any

import torch

import pitome
from pitome.config import load_model
from pitome.merge.costs import closed_form
from pitome.records.markdown import markdown_table
from pitome.tasks.vqa.costs import decoder_of
from pitome.tasks.vqa.models import build_model

MODELS = ("llava_7b", "llava_13b")
METHODS = ("pitome", "pitome_repo", "tome")
RATIOS = (0.9, 0.925)  # of Table 3: 0.9 for 7B, 0.925 for 13B
PROMPT = 64  # tokens of a prompt beside those of its image
HEADER = ["model", "method", "ratio", "image tokens", "tower", "of it merging", "projector", "prompt"]
HEADER += ["a token", "all but answer", "share %"]


def tables() -> dict[str, str]:
    """Billions of multiply-accumulates for one question with one image."""
    return {"costs": markdown_table(HEADER, [row for name in MODELS for row in _rows(name)])}


def _rows(name: str) -> list[list[str]]:
    with torch.device("meta"):
        model: Any = build_model(load_model(name))
    decoder = decoder_of(model.model)
    rows: list[list[str]] = []
    unmerged = 0
    for method, ratio in [("none", 1.0), *((method, ratio) for ratio in RATIOS for method in METHODS)]:
        with pitome.patch(model, method, ratio=ratio) as handle:
            state = handle.state
            tower = closed_form(handle.architecture(), state.schedule, state.method, state.options)
            tokens = model.image_rows
        counts = [tokens + PROMPT] * decoder.depth
        projector, prompt = tokens * decoder.projector, decoder.prefill(counts)
        total = tower.macs + projector + prompt
        unmerged = unmerged or total
        parts = (tower.macs, tower.plan_macs, projector, prompt, decoder.decode(counts))
        asked = "-" if method == "none" else f"{ratio:g}"
        cells = [name, f"`{method}`", asked, str(tokens), *(f"{part / 1e9:.2f}" for part in parts)]
        rows.append([*cells, f"{total / 1e9:.1f}", f"{100 * total / unmerged:.1f}"])
    return rows
