"""What each difference between the paper's text and its code is worth: python scripts/variants.py

Writes docs/variants.md from the published records. No model is run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from pitome.paper.matching import finished_runs
from pitome.records.files import write_atomically
from pitome.records.rows import Row, mean_outcomes
from pitome.records.schema import Record
from pitome.records.statistics import compare
from pitome.records.store import Store
from pitome.report.cells import points
from pitome.report.items import PUBLISHED, VARIANTS, outcomes_in

PAGE = Path(__file__).parent.parent / "docs" / "variants.md"
TEXT = {"task": "text", "model": "minilm", "data": "rotten_tomatoes"}
IMAGES = {"task": "classification", "model": "vit_fmnist", "data": "fashion_mnist"}
RETRIEVAL = {"task": "retrieval", "model": "clip_scenes", "data": "scenes"}
QUESTIONS = {"task": "vqa", "model": "llava_easyvqa", "data": "easy_vqa", "limit": 2000}

# What differs -> one option of `pitome`, as the authors' code has it for some family of models.
OPTIONS: dict[str, dict[str, Any]] = {
    "energy `elu`": {"energy": "elu"},
    "energy `gaussian`, as their code has for text": {"energy": "gaussian"},
    "margin 0.9 - 0.25 l/L, as for text": {"margin_slope": 0.25},
    "margin 0.75 - 0.75 l/L, as for DeiT": {"margin": 0.75, "margin_slope": 0.75},
    "no proportional attention": {"prop_attn": False},
    "similarity of hidden states": {"metric": "hidden"},
    "merging behind the block": {"position": "after_block"},
    "plain means": {"weighted": False},
    "high half into low half": {"split": "high_low"},
    "protection in the second half alone": {"protect": "second_half"},
    "no protection": {"protect": "none"},
    "alpha 0.5": {"alpha": 0.5},
    "alpha 0": {"alpha": 0.0},
}

HEAD = """\
<!-- Written by scripts/variants.py; change that, not this. -->
# Paper against code

`merge=pitome` is the paper's text (arXiv 2405.16148), `merge=pitome_repo` what its authors' repository
runs (hchautran/PiToMe at 550b5de), by family of models. They differ in this:

| | paper | code |
| --- | --- | --- |
| energy above the margin | the cosine c (Eq. 4) | c - m (`elu`); text: a normal density (`gaussian`) |
| margin in layer l of L | 0.9 - 0.9 l/L | from 0.75 (DeiT, MAE), 0.95 (CLIP), 0.9 (BLIP, LLaVA) to 0 |
| | | 0.75 - 0.4 l/L (BLIP-2), 0.9 - 0.25 l/L (text) |
| alpha | 1, and a table of 0.5 and 0 | 1 in every family: the argument is not passed on |
| similarity of | keys | hidden states on CLIP, BLIP, LLaVA; else keys |
| who merges into whom | alternate, by energy | alternate; text: high half into low half |
| protection | every layer | DeiT: the second half of the layers, MAE: the first half |
| layers that merge | all; text: the first three | BLIP: not the last; text: the first three |
| proportional attention | yes | no, but on BLIP-2 |
| where in the block | between attention and MLP | LLaVA: behind the MLP; layers 0 to 12 match as ToMe does |
| average | by size | text: sizes restart in every layer; LLaVA: plain |
| padding in texts | not discussed | merges like any token; here it never does with `pitome` |

Earlier states of the repository differ again. Until August 2024 a layer whose margin was 0.45 or more
matched as ToMe does: the first 7 of 12 layers with 0.9 - 0.9 l/L, 30 of 39 on BLIP-2. At the state that
Figure 7 was logged with, a fixed margin of 0.9 or 0.45 is therefore ToMe in every layer: the logged costs
are ToMe's, 41.587 GFLOPs, and so, within two points, are the sums of recalls. The energy was a normal
density at the submission and `elu((c - m) / 0.01)` in between. No state computes Eq. 4 as printed.

The baselines in that repository differ from their authors' as well: ToMe without proportional attention
on DeiT (its default has it), ToMe and DCT on MAE without a class token while the head leaves the first
token out, DiffRate at one rate for all layers instead of the learned ones. `tome_repo`, `tofu_repo` and
`diffrate_repo` are these; `tome`, `tofu` and `diffrate` are the methods as published.

## What each difference is worth

Measured on this project's own models, so the sizes are theirs, not those of DeiT or BERT. Each row
changes one thing in `pitome` and nothing else. Difference: to `pitome` at the same ratio, in percentage
points, with the 95 % interval of a paired bootstrap ([statistics.md](statistics.md)). The intervals are
of one comparison alone: with {count} of them, some leave out 0 by chance.
"""

TAIL = """\

## Without a row of its own

- **Margins from 0.95, hidden states and no proportional attention on CLIP; merging behind the MLP, plain
  means and layers 0 to 12 as ToMe on LLaVA.** `pitome_repo` does all of a family's at once: the rows of
  retrieval and questions. A tower of 12 blocks has no layer behind the 13th: on `llava_easyvqa`
  `pitome_repo` matches as ToMe does in every layer.
- **BLIP's last layer, BLIP-2's margin and proportional attention, MAE's half without protection.** No model
  of these families is small enough to be trained here: options and presets exist, checkpoints are needed.
- **The energy of earlier states, their 0.45 branch.** Not among the presets, which are the latest state; the
  logged runs of both states stand beside the printed ones ([reproducing.md](reproducing.md)).
- **Which images are tested.** Their logs are of 49,101 validation images of ImageNet, those with three
  channels; here all 50,000 are kept. Needs ImageNet; 1.8 % of the images move top-1 by no more than that.
- **How text accuracy is averaged.** Theirs is the mean over batches, in which the last, smaller one weighs
  as much as the others: of SST-2's 872 sentences in batches of 32, each of the last eight counts four times.
  Here each counts once.
- **Training.** Table 2 says "from scratch", their code begins with fine-tuned checkpoints; for texts it
  chooses the best epoch on the split that is tested, of which training here sees nothing.
- **What FLOPs count.** They are multiply-accumulates, of the tokens entering a block (DeiT, MAE, BLIP, CLIP)
  or leaving it (BERT, BLIP-2), without PiToMe's own cost. The tables here give both counts, theirs and
  that of the operations that run.

## What this says

- **Images.** Proportional attention accounts for the whole difference between paper and code: without it
  `pitome` loses as much as `pitome_repo`, and so does `tome_repo`, which lacks it too. On a model
  that was not trained with merging it is worth more than the choice between PiToMe and ToMe.
- **Text.** Single changes move accuracy by up to three points, mostly upwards: the paper's text is not
  the best choice for short sentences. Merging behind the block helps because the MLP still sees every
  token, at its cost (the row computes more); the other rows cost the same.
- **Retrieval.** The bundle for CLIP (margin from 0.95, hidden states, no proportional attention) costs ten
  points against the paper's text; the questions are too easy to tell the two apart.
- **Energy and alpha.** Most intervals of `elu`, `gaussian` and alpha contain 0. Table 8 prints the same:
  at ratio 0.95 all alphas are within 0.1 points of Rsum.
"""


def page(stores: Sequence[Store]) -> str:
    """The text of docs/variants.md."""
    records = [record for store in stores for record in store.all()]
    lines: list[str] = []
    count = 0
    for title, base, ratio in (
        ("Text: MiniLM on 1,980 sentences of Rotten Tomatoes, ratio 0.8", TEXT, 0.8),
        ("Text: the same at ratio 0.6", TEXT, 0.6),
        ("Images: vit_fmnist on 10,000 images of Fashion-MNIST, ratio 0.9", IMAGES, 0.9),
        ("Retrieval: clip_scenes on 1,000 scenes, mean recall, ratio 0.925", RETRIEVAL, 0.925),
        ("Questions: llava_easyvqa on 2,000 questions of easy-VQA, ratio 0.9", QUESTIONS, 0.9),
    ):
        rows = _rows(stores, records, base | {"ratio": ratio})
        count += len(rows) - 1
        lines += ["", f"### {title}", "", "| | % | difference |", "| --- | ---: | ---: |", *rows]
    return HEAD.format(count=count) + "\n".join(lines) + "\n" + TAIL


def _rows(stores: Sequence[Store], records: Sequence[Record], point: dict[str, Any]) -> list[str]:
    wanted: dict[str, dict[str, Any]] = {"`pitome`": {"merge": "pitome"}}
    wanted |= {
        name: {"merge": "pitome"} | {f"merge.options.{key}": value for key, value in options.items()}
        for name, options in OPTIONS.items()
    }
    wanted |= {f"`{name}`": {"merge": name} for name in ("pitome_repo", "tome", "tome_repo")}
    reference, lines = None, []
    for name, overrides in wanted.items():
        found = finished_runs(point | overrides, records)
        if not found or found[0].score is None:
            continue
        outcomes = _outcomes(stores, found[0])
        reference = reference or outcomes
        difference = "-"
        if name != "`pitome`" and (result := compare(*outcomes, *reference)) is not None:
            difference = points(result.difference)
        lines.append(f"| {name} | {100 * found[0].score:.2f} | {difference} |")
    return lines


def _outcomes(stores: Sequence[Store], record: Record) -> tuple[Any, Any]:
    found = mean_outcomes(Row((record,), "", "", "", ""), outcomes_in(stores))
    assert found is not None, record.run_id
    return found


if __name__ == "__main__":
    write_atomically(PAGE, page([Store(PUBLISHED), Store(VARIANTS)]).encode())
