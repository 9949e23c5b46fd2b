"""The cost of merging image towers beside the paper's: python scripts/retrieval_flops.py

Writes docs/retrieval_flops.md from scripts/retrieval_flops.yaml (what is printed) and the real
architectures, which are built without weights. No model is run.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

import pitome
from pitome.merge.costs import Architecture, authors_macs, closed_form
from pitome.merge.costs import Cost as ClosedForm
from pitome.merge.schedule import count_all
from pitome.tasks.retrieval import blip
from pitome.tasks.retrieval.clip import build_model

ROOT = Path(__file__).parent.parent
PRINTED = ROOT / "scripts" / "retrieval_flops.yaml"
PAGE = ROOT / "docs" / "retrieval_flops.md"

INTRO = """<!-- Written by scripts/retrieval_flops.py; change that, not this. -->
# Retrieval: what merging an image tower saves, and what the paper prints

Costs are billions of multiply-accumulates for one image, which the paper calls GFLOPs. Printed values are
the paper's (arXiv 2405.16148) or stand in the result files of its authors' repository; everything else is
computed here on the real architectures, built without weights. No model was run.

- **Authors' formula**: per layer 12 N C^2 + 2 N^2 C, with N the tokens that *enter* it, for every tower
  alike. The tokens are counted in two ways: a share of all tokens but the class token, as the repository's
  PiToMe takes it at 550b5de, and a share of all tokens, as its ToMe does.
- **Repository at 550b5de**: what its code of that state reports for PiToMe. It differs from the first of
  these two on BLIP-2 alone, where N are the tokens that *leave* a layer.
- **Ours**: attention at the tokens that enter a layer, the MLP at its real width and at those that leave it,
  the patch embedding, the projection, and the merging itself. `pitome` is the paper's text, which compares
  keys averaged over heads; `pitome_repo` what the repository runs, which on CLIP and BLIP compares whole
  hidden states and so pays more for merging.
- **Ratio that gives it**: where the first count would meet the printed value.

BLIP and ALBEF have the same image tower; BLIP's is `blip_base`.
"""

TOTALS = """
## Total cost of one image

Behind the tower, BLIP projects the class token, and BLIP-2's Q-Former looks at the tokens that are left
(`total_macs` in a record: tower, features of the image, features of the captions that come with it, each at
the whole context). A pair is what the matching head computes for one image and one caption, again at the
whole context; in the default re-ranking an image is in some hundreds of pairs. Ours are with `pitome`.
"""

CONCLUSIONS = """
What this says:

- **Unmerged towers.** The formula gives every printed value, if its digits are cut off, not rounded. Ours
  is 0.2 to 0.6 % higher for CLIP and BLIP: the patch embedding (0.15 for CLIP-L at 224, 0.35 at 336, 0.34
  for BLIP) and CLIP's projection. It is 5.7 % higher for BLIP-2, whose MLP is 6144 wide, 4.36 times the
  width of the tower and not 4.
- **BLIP-2, merged.** Both printed values are the formula's with a share of all tokens, cut off. The
  repository at 550b5de counts a share of all but the class token, and the tokens that leave a layer.
- **BLIP, merged.** No count here gives 38.55 at ratio 0.95, nor 38.85, which is printed for COCO although
  the same tower costs the same on both data sets (the totals beside them, 47.65, are equal). At ratio 0.95
  the formula gives 7.6 % more than 38.55. The speed-up of Table 2 is 3 % above the formula's; ours with
  `pitome` is 1.577.
- **Totals.** No sum of these parts gives the printed totals, nor does 12 N C^2 + 2 N^2 C for the text
  encoder and the Q-Former. The paper does not say what a total holds; its authors' code counts the part of
  both image and text once, with captions of 13.4 tokens on Flickr30k and 10.5 on COCO, yet the printed totals
  of both sets are equal. Unmerged, BLIP's printed remainder, 10.40, lies between the features of a caption
  (3.00) and a pair (12.03); BLIP-2's, 222.32, is 18.6 times the Q-Former's pass over an image. What follows
  from the parts: the Q-Former is 1.6 % of an image of the unmerged BLIP-2, so its total falls nearly as its
  tower does; a pair costs half as much at 0.95, because half of it is keys and values of the image's tokens.
- **CLIP, merged.** The printed speed-up 2.10 is the formula's, cut off. By our count it is higher, since
  the MLP runs on the tokens that the merge leaves: with `pitome` merging itself costs less than 0.1 % of
  what is left, with `pitome_repo` 1.3 %.
"""


@dataclass(frozen=True)
class Row:
    """One printed number. ratio None: unmerged; skip_last: the last layer does not merge; of_tower: what is
    printed beside a total for the tower alone."""

    where: str
    row: str
    tower: str
    printed: str
    ratio: float | None
    skip_last: bool = False
    of_tower: str = ""


def _clip(name: str) -> Callable[[], nn.Module]:
    return lambda: build_model(yaml.safe_load((ROOT / "conf" / "model" / f"{name}.yaml").read_text()))


def _blip(name: str, kind: type[blip.ImageTextMatching]) -> Callable[[], nn.Module]:
    config = yaml.safe_load((ROOT / "conf" / "model" / f"{name}.yaml").read_text())
    return lambda: kind(blip.build_model(config), None)  # type: ignore[arg-type]  # no words, no tokenizer


TOWERS: dict[str, Callable[[], nn.Module]] = {
    "clip_l": _clip("clip_l"),
    "clip_l336": _clip("clip_l336"),
    "blip": _blip("blip_base", blip.Blip),  # ViT-B/16 at 384
    "blip2": _blip("blip2", blip.Blip2),  # EVA-g/14 at 364 without its last block: 39 blocks
}


TOTAL_HEAD = ["printed in", "model", "ratio", "printed total", "beyond the printed tower", "tokens left"]
TOTAL_HEAD += ["ours: tower", "features of the image", "of five captions", "total", "a pair"]


class Tower:
    """An architecture on the meta device."""

    def __init__(self, name: str) -> None:
        with torch.device("meta"):
            self.model: Any = TOWERS[name]()
        with pitome.patch(self.model, "none", ratio=1.0) as handle:
            self.architecture: Architecture = handle.architecture()
        self.depth = len(self.architecture.layers)

    def ours(self, method: str, row: Row) -> ClosedForm:
        """The closed form of a method, unmerged for a row without a ratio."""
        if row.ratio is None:
            return closed_form(self.architecture)
        with pitome.patch(self.model, method, ratio=self._ratios(row, row.ratio)) as handle:
            return closed_form(self.architecture, handle.schedule, handle.method, handle.options)

    def formula(self, row: Row, ratio: float | None, *, class_token: bool) -> float:
        """12 N C^2 + 2 N^2 C at the tokens that enter each layer, in billions."""
        tokens = [self.architecture.tokens]
        for share in [1.0] * self.depth if ratio is None else self._ratios(row, ratio):
            rest = 0 if class_token else 1
            tokens.append(tokens[-1] - count_all(tokens[-1] - rest, 0, share, 0))
        width = self.architecture.layers[0].hidden_dim
        return sum(12 * n * width**2 + 2 * n**2 * width for n in tokens[:-1]) / 1e9

    def repository(self, row: Row) -> float:
        """What the authors' code reports, in billions."""
        tokens = self.ours("pitome_repo", row).tokens
        return authors_macs(self.architecture, tokens, "pitome_repo") / 1e9

    def ratio_giving(self, row: Row, value: float) -> float:
        """The ratio, in steps of 0.001, whose formula comes closest to `value`."""
        ratios = [step / 1000 for step in range(800, 1000)]
        return min(ratios, key=lambda q: abs(self.formula(row, q, class_token=False) - value))

    def _ratios(self, row: Row, ratio: float) -> list[float]:
        return [ratio] * (self.depth - row.skip_last) + [1.0] * row.skip_last


def page(printed: dict[str, Any]) -> str:
    """The text of docs/retrieval_flops.md."""
    rows = {kind: [Row(**entry) for entry in entries] for kind, entries in printed.items()}
    towers = {
        name: Tower(name) for name in dict.fromkeys(row.tower for row in itertools.chain(*rows.values()))
    }
    costs = [_cost(row, towers[row.tower]) for row in rows["costs"]]
    speedups = [_speedup(row, towers[row.tower]) for row in rows["speedups"]]
    head = ["printed in", "tower", "tokens", "ratio", "printed"]
    counts = ["formula, share of all but class", "formula, share of all", "repository at 550b5de"]
    ours = ["ours, `pitome`", "of it merging", "ours, `pitome_repo`", "of it merging", "ratio that gives it"]
    parts = [
        INTRO,
        "## Cost of one image\n",
        _table([*head, *counts, *ours], costs),
        "\n## Speed-up over the unmerged tower\n",
        _table([*head, *counts, ours[0], ours[2], ours[4]], speedups),
        TOTALS,
        _table(TOTAL_HEAD, [_total(row, towers[row.tower]) for row in rows["totals"]]),
        CONCLUSIONS,
    ]
    return "\n".join(parts)


def _cost(row: Row, tower: Tower) -> list[str]:
    merged = row.ratio is not None
    out = [*_head(row, tower), row.printed]
    out += [f"{tower.formula(row, row.ratio, class_token=every):.3f}" for every in (False, True)]
    out.append(f"{tower.repository(row):.3f}")
    for method in ("pitome", "pitome_repo"):
        cost = tower.ours(method, row)
        out += [f"{cost.macs / 1e9:.2f}", f"{cost.plan_macs / 1e9:.2f}" if merged else "-"]
    return [*out, f"{tower.ratio_giving(row, float(row.printed)):.3f}" if merged else "-"]


def _speedup(row: Row, tower: Tower) -> list[str]:
    plain, cost = tower.formula(row, None, class_token=False), closed_form(tower.architecture).macs
    out = [*_head(row, tower), f"{row.printed}x"]
    out += [f"{plain / tower.formula(row, row.ratio, class_token=every):.3f}" for every in (False, True)]
    out.append(f"{plain / tower.repository(row):.3f}")
    out += [f"{cost / tower.ours(method, row).macs:.3f}" for method in ("pitome", "pitome_repo")]
    return [*out, f"{tower.ratio_giving(row, plain / float(row.printed)):.3f}"]


def _total(row: Row, tower: Tower) -> list[str]:
    cost = tower.ours("pitome", row)
    left = cost.tokens[-1]
    features, (caption, pair) = tower.model.feature_macs(left), _captions(tower.model, left)
    captions = 5 * caption
    where, name, _, ratio = _head(row, tower)
    behind = f"{float(row.printed) - float(row.of_tower):.2f}"
    ours = [cost.macs, features, captions, cost.macs + features + captions, pair]
    return [where, name, ratio, row.printed, behind, str(left), *(f"{macs / 1e9:.2f}" for macs in ours)]


@functools.cache
def _captions(model: Any, tokens: int) -> tuple[int, int]:
    """MACs of a caption's features, and of a pair with an image of which so many tokens are left."""
    return model.text_macs(), model.match_macs(tokens)


def _head(row: Row, tower: Tower) -> list[str]:
    last = ", not the last layer" if row.skip_last else ""
    ratio = "unmerged" if row.ratio is None else f"{row.ratio:g}{last}"
    return [row.where, row.row, str(tower.architecture.tokens), ratio]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(yaml.safe_load(PRINTED.read_text())))
