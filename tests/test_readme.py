"""The numbers in README.md, and those in the text of docs/results.md, are those of published records."""

from __future__ import annotations

import re

import pytest

from pitome.records.schema import Record
from pitome.records.store import Store
from scripts.tables.results import AMOUNTS, BENCH, cell
from tests import ROOT


def published(model: str) -> list[Record]:
    records = Store(ROOT / "results" / "published").all()
    return [record for record in records if record.done and record.model.name == model]


def test_every_number_of_the_readme_is_that_of_a_published_record() -> None:
    text = (ROOT / "README.md").read_text().partition("## What was measured")[2].partition("\n## ")[0]
    header, _, *rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert header[1:] == ["ratio", "none", "pitome", "tome", "random"] and len(rows) == len(AMOUNTS)
    for what, ratio, unmerged, *cells in rows:
        runs = published(what.split("`")[1])
        assert {f"{100 * (r.score or 0):.2f}" for r in runs if r.method.name == "none"} == {unmerged}
        for method, shown in zip(header[3:], cells, strict=True):
            assert shown == cell(runs, "ratio", float(ratio), method), (what, method)


@pytest.mark.parametrize("part", AMOUNTS)
def test_the_unmerged_score_is_that_of_the_record(part: str) -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    stated = re.search(rf"## {part.title()}\n.*?Unmerged: ([\d.]+) %", text, re.DOTALL)
    runs = published(AMOUNTS[part][0])
    (score,) = {f"{100 * (record.score or 0):.2f}" for record in runs if record.method.name == "none"}
    assert stated is not None and stated.group(1) == score


def test_the_picture_of_speeds_is_that_of_the_table() -> None:
    picture = BENCH.with_suffix(".png").relative_to(ROOT)
    assert f"(../{picture})" in (ROOT / "docs" / "results.md").read_text()


def test_a_method_that_was_not_run_has_no_cell() -> None:
    runs = published("llava_easyvqa")
    assert cell(runs, "ratio", 0.975, "stride") is None and cell(runs, "ratio", 0.9, "stride") is not None
