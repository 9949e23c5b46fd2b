"""What the offline experiments gave: docs/reproducing.md and the reports are those of the records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pitome.config import CONF
from pitome.paper.experiments import choose
from pitome.paper.verdicts import ONLY_PUBLISHED, OUTSIDE, WITHIN, judge
from pitome.records.schema import Record
from pitome.report import offline
from pitome.report.cells import number
from pitome.report.items import published_records, to_csv
from tests.conftest import record

ROOT = CONF.parent
REPORTS = sorted(path.stem for path in offline.FOLDER.glob("*.csv"))


@pytest.fixture(scope="module")
def published() -> list[Record]:
    return published_records()


def test_the_table_has_every_offline_experiment(published: list[Record]) -> None:
    """docs/reproducing.md has the same table: tests/scripts/test_tables.py."""
    words = [row[0] for row in offline.to_table(published).rows]
    assert words == [f"`{word}`" for word in offline.offline_sweeps()]


@pytest.mark.parametrize("word", REPORTS)
def test_a_report_is_that_of_the_records(word: str, published: list[Record]) -> None:
    """Its points and published values are today's, and its verdicts follow from its numbers."""
    report, rows = offline.read_report(word), judge(word, [], published).rows
    assert [json.loads(one["point"]) for one in report] == [dict(row.point) for row in rows]
    (tolerance,) = choose(word).item.offline.metrics.values()  # type: ignore[union-attr]
    for one, row in zip(report, rows, strict=True):
        assert row.published == pytest.approx(float(one["published"]), abs=1e-9)
        if one["verdict"] in (WITHIN, OUTSIDE):
            away = abs(float(one["measured"]) - float(one["published"]))
            assert (away <= tolerance + 1e-9) is (one["verdict"] == WITHIN)
        else:
            assert one["verdict"] == ONLY_PUBLISHED
            assert one["measured"] == "" and one["reason"].startswith("not repeated")


@pytest.mark.parametrize("word", REPORTS)
def test_every_form_of_a_report_says_the_same(word: str) -> None:
    """Markdown and LaTeX have the numbers of the CSV file, line by line; a figure stands beside them."""
    unit = judge(word, [], []).rows[0].unit
    for ending, start, mark, places in ((".md", "| Model", "|", (6, 10)), (".tex", "Model", "&", (6, 9))):
        text = (offline.FOLDER / f"{word}{ending}").read_text(encoding="utf-8").partition(start)[2]
        lines = [line for line in text.splitlines()[1:] if mark in line and not line.startswith("| ---")]
        for line, one in zip(lines, report := offline.read_report(word), strict=False):
            cells = [cell.strip(" \\") for cell in line.strip("|").split(mark)]
            assert [cells[i] for i in places] == [number(float(one["published"]), unit), one["verdict"]]
        assert len(lines) >= len(report)
    assert (offline.FOLDER / f"{word}.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_repeated_is_counted(write: Callable[..., Path], tmp_path: Path) -> None:
    points = choose("table99_offline").points
    first = [record(point, {"top1": 0.9 - 0.01 * i}) for i, point in enumerate(points)]
    later = {"started": "2026-02-01T00:00:00+00:00"}
    again = [record(points[0], {"top1": 0.9005}, **later), record(points[1], {"top1": 0.8}, **later)]
    (tmp_path / "table99_offline.csv").write_text(to_csv(judge("table99_offline", again, first)))
    (line,) = offline.to_table(first, tmp_path).rows
    assert line[:3] == ["`table99_offline`", str(len(points)), "2, by up to 9.00, 1 outside"]
    assert line[3].startswith("Top-1: unmerged 90.00; at 0.925: ToMe (repo) 89.00, PiToMe (repo) 88.00, ")
    same = [record(points[0], {"top1": 0.9}, **later)]
    (tmp_path / "table99_offline.csv").write_text(to_csv(judge("table99_offline", same, first)))
    assert offline.to_table(first, tmp_path).rows[0][2] == "1, equal"
    (line,) = offline.to_table(first[:2], tmp_path / "none").rows
    assert line[1:3] == [f"2 of {len(points)}", "no"]
