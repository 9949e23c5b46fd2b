"""What merging in LLaVA's image tower saves, by part: python scripts/vqa_flops.py

Writes docs/vqa_flops.md from the real architectures, which are built without weights. No model is run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent))

import pitome
from pitome.merge.costs import Cost, closed_form
from pitome.tasks.vqa.costs import decoder_of
from pitome.tasks.vqa.models import build_model

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "vqa_flops.md"
MODELS = ("llava_7b", "llava_13b")
METHODS = ("pitome", "pitome_repo", "tome")
RATIOS = (0.9, 0.925)  # of Table 3: 0.9 for 7B, 0.925 for 13B
TEXT = 64  # tokens of a prompt without those of its image

INTRO = f"""<!-- Written by scripts/vqa_flops.py; change that, not this. -->
# LLaVA-1.5: what merging in the image tower saves

Billions of multiply-accumulates for one question with one image, computed by the closed forms of
`pitome/merge/costs.py` and `pitome/tasks/vqa/costs.py` on the real architectures, built without weights.
No model was run; tests hold the closed forms against what torch counts. The prompt has {TEXT} tokens
beside those of the image (LLaVA's own opening takes about 40). A token is the first one written behind the
prompt, with keys and values kept.

The paper prints no FLOPs for LLaVA: of Table 3 only the ratios are known (0.9 for 7B, 0.925 for 13B), and
Table 4 gives wall times. In the tower, 24 blocks merge, of which the last has no effect: the language model
reads what leaves the one before it.
"""

CONCLUSION = """
What this says: the language model's prompt is most of the cost of a question, and it shrinks with the number
of image tokens. Ratios multiply over 23 layers: 0.925 leaves the language model about a sixth of the image,
0.9 a tenth. Writing the answer hardly gets cheaper: it costs the linear layers once per token.
"""


def page() -> str:
    """The text of docs/vqa_flops.md."""
    rows = [row for name in MODELS for row in _rows(name)]
    head = ["model", "method", "ratio", "image tokens", "tower", "of it merging", "projector", "prompt"]
    return "\n".join([INTRO, _table([*head, "a token", "all but answer", "share %"], rows), CONCLUSION])


def _rows(name: str) -> list[list[str]]:
    config = yaml.safe_load((ROOT / "conf" / "model" / f"{name}.yaml").read_text())
    with torch.device("meta"):
        model = build_model(config)
    plain = None
    out = []
    for method, ratio in [("none", 1.0), *((m, q) for q in RATIOS for m in METHODS)]:
        with pitome.patch(model, method, ratio=ratio) as handle:
            state = handle.state
            tower = closed_form(handle.architecture(), state.schedule, state.method, state.options)
            cells, total = _cost(model, tower)
        plain = plain or total
        asked = "-" if method == "none" else f"{ratio:g}"
        out.append([name, f"`{method}`", asked, *cells, f"{total / 1e9:.1f}", f"{100 * total / plain:.1f}"])
    return out


def _cost(model: Any, tower: Cost) -> tuple[list[str], int]:
    """Cells of one row, and the sum of tower, projector and prompt."""
    form, rows = decoder_of(model.model), model.image_rows
    projector, prompt = rows * form.projector, form.prefill(rows + TEXT)
    parts = [tower.macs, tower.plan_macs, projector, prompt, form.decode(rows + TEXT)]
    return [str(rows), *(f"{part / 1e9:.2f}" for part in parts)], tower.macs + projector + prompt


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
