"""docs/variants.md: what each difference between the paper's text and its code is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pitome.paper.matching import finished_runs
from pitome.records.markdown import markdown_table
from pitome.records.rows import ResultRow, mean_outcomes
from pitome.records.schema import Record
from pitome.records.statistics import compare
from pitome.records.store import Store
from pitome.report.cells import points
from pitome.report.items import PUBLISHED, VARIANTS, outcomes_in

TEXT = {"task": "text", "model": "minilm", "data": "rotten_tomatoes"}
POINTS: dict[str, dict[str, Any]] = {
    "text-0.8": TEXT | {"ratio": 0.8},
    "text-0.6": TEXT | {"ratio": 0.6},
    "images": {"task": "classification", "model": "vit_fmnist", "data": "fashion_mnist", "ratio": 0.9},
    "retrieval": {"task": "retrieval", "model": "clip_scenes", "data": "scenes", "ratio": 0.925},
    "questions": {
        "task": "vqa",
        "model": "llava_easyvqa",
        "data": "easy_vqa",
        "limit": 2000,
        "ratio": 0.9,
    },
}
# What differs -> one option of `pitome`, as the authors' code has it for some family of models.
OPTIONS: dict[str, dict[str, Any]] = {
    "energy `elu`": {"energy": "elu"},
    "energy `gaussian`, as their code has for text": {"energy": "gaussian"},
    "margin 0.9 - 0.25 l/L, as for text": {"margin_slope": 0.25},
    "margin 0.75 - 0.75 l/L, as for DeiT": {"margin": 0.75, "margin_slope": 0.75},
    "no proportional attention": {"prop_attn": False},
    "similarity of hidden states": {"metric": "hidden"},
    "merging after the block": {"position": "after_block"},
    "plain means": {"weighted": False},
    "high half into low half": {"split": "high_low"},
    "protection in the second half only": {"protect": "second_half"},
    "no protection": {"protect": "none"},
    "alpha 0.5": {"alpha": 0.5},
    "alpha 0": {"alpha": 0.0},
}


def tables() -> dict[str, str]:
    """One table per model and ratio: the score of each variant and its difference to `pitome`."""
    stores = [Store(PUBLISHED), Store(VARIANTS)]
    records = [record for store in stores for record in store.all()]
    return {
        name: markdown_table(["", "%", "difference"], _rows(stores, records, point), right={1, 2})
        for name, point in POINTS.items()
    }


def _rows(stores: Sequence[Store], records: Sequence[Record], point: dict[str, Any]) -> list[list[str]]:
    variants: dict[str, dict[str, Any]] = {"`pitome`": {"merge": "pitome"}}
    variants |= {
        name: {"merge": "pitome"} | {f"merge.options.{key}": value for key, value in options.items()}
        for name, options in OPTIONS.items()
    }
    variants |= {f"`{name}`": {"merge": name} for name in ("pitome_repo", "tome", "tome_repo")}
    rows: list[list[str]] = []
    reference = None
    for name, overrides in variants.items():
        runs = finished_runs(point | overrides, records)
        if not runs or runs[0].score is None:
            continue
        outcomes = mean_outcomes(ResultRow((runs[0],), "", "", "", ""), outcomes_in(stores))
        assert outcomes is not None, runs[0].run_id
        difference = None if reference is None else compare(*outcomes, *reference)
        reference = reference or outcomes
        rows.append(
            [name, f"{100 * runs[0].score:.2f}", points(difference.difference if difference else None)]
        )
    return rows
