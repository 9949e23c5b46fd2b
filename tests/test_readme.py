"""The numbers in README.md are those of the published records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from pitome.records.schema import Record
from pitome.records.store import Store
from scripts.bench.groups import RATIO
from scripts.bench.results import results
from tests import ROOT

MODELS = {"Images": "vit_fmnist", "Text": "minilm", "Retrieval": "clip_scenes", "Questions": "llava_easyvqa"}


def cells() -> Iterator[tuple[str, str, str, str, str]]:
    """(part, `cost` or `ratio`, amount, method, cell) of the tables under "What was measured"."""
    text = (ROOT / "README.md").read_text().partition("## What was measured")[2].partition("\n## ")[0]
    part, header = "", []
    for line in text.splitlines():
        part = match.group(1) if (match := re.match(r"\*\*(\w+)\*\*", line)) else part
        row = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not row:
            header = []
        elif not header:
            header = row
        elif not row[0].startswith("---"):
            yield from (
                (part, header[0], row[0], name, cell) for name, cell in zip(header[1:], row[1:], strict=True)
            )


def expected(records: list[Record], kind: str, amount: str, method: str) -> str:
    """A cell as the records have it."""
    key = {"cost": "flops", "ratio": "ratio"}[kind]
    value = float(amount)
    if method == "resize":  # the largest image within the cost
        found = [r for r in records if (s := r.method.asked.get("shares")) and s[0] <= value < s[1]]
    else:
        found = [r for r in records if r.method.name == method and r.method.asked.get(key) == value]
        found = [r for r in found if r.method.asked.get("layers") in (None, "first3") and _default(r)]
    newest = max(found, key=lambda r: r.started)
    assert newest.score is not None and newest.cost is not None
    share = f" ({100 * newest.cost.share:.0f} %)" if kind == "ratio" or method == "resize" else ""
    return f"{100 * newest.score:.2f}{share}"


def _default(record: Record) -> bool:
    """Whether no option of the method was changed."""
    from pitome.paper.matching import matches

    asked = {k: v for k, v in record.method.asked.items() if v is not None}
    return matches({"merge": record.method.name, **asked}, record)


def test_every_number_of_a_table_is_that_of_a_published_record() -> None:
    records = [record for record in Store(ROOT / "results" / "published").all() if record.done]
    found = list(cells())
    assert len(found) >= 115
    for part, kind, amount, method, cell in found:
        own = [record for record in records if record.model.name == MODELS[part]]
        assert cell == expected(own, kind, amount, method), (part, amount, method)


@pytest.mark.parametrize("part", ["Images", "Text", "Retrieval", "Questions"])
def test_the_unmerged_score_is_that_of_the_record(part: str) -> None:
    text = (ROOT / "README.md").read_text()
    stated = re.search(rf"\*\*{part}\*\*.*?Unmerged: ([\d.]+) %", text, re.DOTALL)
    (score,) = {
        f"{100 * (record.score or 0):.2f}"
        for record in Store(ROOT / "results" / "published").all()
        if record.model.name == MODELS[part] and record.method.name == "none"
    }
    assert stated is not None and stated.group(1) == score


BENCH = ROOT / "results" / "bench" / "cpu-float32-torch2.15.0-batch16-threads2.json"


def test_the_speeds_are_those_of_the_bench() -> None:
    """Every cell of the table under "Speed", and what the picture is drawn from."""
    text = (ROOT / "README.md").read_text().partition("\n## Speed")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    header, shown = rows[0][1:], {row[0]: row[1:] for row in rows[2:]}
    record = json.loads(BENCH.read_text())
    timed = [one for one in results(record["parts"]["speed"]) if one.complete]
    for name, row in shown.items():
        model, _, mode = name.strip("`").replace("`, ", " ").partition(" ")
        at = {"model": model, "size": 224, "batch": 16, "ratio": RATIO}
        at |= {"mode": "compile", "clock": "wall"} if mode else {"mode": "eager", "clock": "cpu"}
        for method, cell in zip(header, row, strict=True):
            (one,) = (r for r in timed if r.method == method and at.items() <= r.group.items())
            assert cell == f"{one.speedup.value:.2f} ({100 * one.saved.value:.0f} %)", (name, method)
    assert len(shown) >= 3 and f"({BENCH.with_suffix('.png').relative_to(ROOT)})" in text
