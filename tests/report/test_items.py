"""An outcome as a table in the terminal, Markdown, CSV and LaTeX, and as a figure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pitome.paper.experiments import choose
from pitome.paper.verdicts import JudgedValue, judge
from pitome.records.store import Store
from pitome.report import item_figure, style
from pitome.report import items as report
from tests.conftest import ITEM, record
from tests.paper.test_verdicts import OFFLINE, TOME

COLUMNS = 13


def test_every_form_has_every_row(write: Callable[..., Path], tmp_path: Path) -> None:
    result = judge("table99", [record(TOME, {"top1": 0.7796})])
    paths = report.write(result, tmp_path / "out")
    assert [path.name for path in paths] == ["table99.md", "table99.csv", "table99.tex", "table99.png"]
    markdown = (tmp_path / "out" / "table99.md").read_text()
    lines = [line for line in markdown.split("<details>")[-1].splitlines() if line.startswith("| ")]
    assert len(lines) == len(result.rows) + 2 and all(line.count(" | ") == COLUMNS - 1 for line in lines)
    assert "| 77.70 | 78.43 | 77.96 [77.59, 78.32] | +0.26 | 0.30 | within |" in markdown
    assert "Table 99: An item" in markdown and "python run.py -m experiment=table99" in markdown
    found = list(csv.DictReader(io.StringIO((tmp_path / "out" / "table99.csv").read_text())))
    assert len(found) == len(result.rows)
    for cells, row in zip(found, result.rows, strict=True):
        assert cells["verdict"] == row.verdict and json.loads(cells["point"]) == row.point
        assert (float(cells["measured"]) if cells["measured"] else None) == row.measured
    tex = (tmp_path / "out" / "table99.tex").read_text()
    assert tex.count(r"\\") == 6  # the header, four methods, and what is quoted
    assert all(word in tex for word in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"))


def test_an_offline_table_has_no_column_for_the_paper(write: Callable[..., Path]) -> None:
    result = judge("table99_offline", [], [record(OFFLINE, {"top1": 0.88})])
    table = report.to_table(result)
    assert "Printed" not in table.header and "Logged" not in table.header
    assert "no number here is from the paper" in table.caption[0]
    assert not {"77.70", "79.10", "78.43"} & {cell for line in table.rows for cell in line}
    assert "79.10" not in report.to_latex(result) and "each cell: published by us" in report.to_latex(result)


def test_the_end_of_a_sweep_shows_values_and_the_fair_comparison(
    write: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(report, "published_stores", lambda: [Store(tmp_path / "none")])
    store = Store(tmp_path / "out" / "runs")
    store.prepare()
    for point, top1 in ((TOME, 0.78), (TOME | {"merge": "pitome_repo"}, 0.79)):
        store.save(record(point, {"top1": top1}))
    report.show_item("table99", store)
    shown = capsys.readouterr().out
    assert "table99: 7 values, 3 within, 0 outside, 4 not run." in shown and "table99.tex" in shown
    markdown = (tmp_path / "out" / "reports" / "table99.md").read_text()  # beside the runs
    assert "### classification: deit_s on imagenet" in markdown and "| tome_repo | 0.925 |" in markdown


def test_files_are_written_before_anything_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`report.py table5 | head` closes the pipe early."""
    monkeypatch.setattr(report, "published_stores", list)

    def closed(tables: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(report, "show", closed)
    with pytest.raises(BrokenPipeError):
        report.show_item("table8", Store(tmp_path / "runs"))
    assert (tmp_path / "reports" / "table8.md").is_file()


def test_a_figure_shows_printed_logged_and_measured(write: Callable[..., Path]) -> None:
    drawn = item_figure.draw(judge("table99", [record(TOME, {"top1": 0.7796})]))
    assert drawn is not None
    (axes,) = drawn.axes
    heights = sorted(float(y) for line in axes.lines for y in line.get_ydata())
    assert heights == pytest.approx([74.8, 77.7, 77.96, 78.43, 79.1, 79.8])
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "unmerged",
        "ToMe, repo",
        "PiToMe, repo",
        "Absent, repo",
    ]
    legend = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert legend[:3] == ["printed", "logged", "measured"]


def test_methods_beside_one_another_say_how_much_each_point_merges(write: Callable[..., Path]) -> None:
    drawn = item_figure.draw(
        judge("table99_offline", [], [record(OFFLINE | {"ratio": 0.925}, {"top1": 0.8})])
    )
    assert drawn is not None and not drawn.axes[0].texts
    several = ITEM.replace("ratio: 0.925}]", "flops: [0.6, 0.8]}]")
    assert several != ITEM
    write(several)
    points = [one for one in choose("table99_offline").points if "flops" in one]
    found = [record(point, {"top1": 0.8}) for point in points]
    drawn = item_figure.draw(judge("table99_offline", [], found))
    assert drawn is not None and [text.get_text() for text in drawn.axes[0].texts] == ["0.6", "0.8"] * 2


def test_fixed_numbers_of_tokens_stand_on_an_axis_of_their_own(write: Callable[..., Path]) -> None:
    write(
        ITEM.replace("also: [{merge: [random, stride], ratio: 0.925}]", "also: [{merge: tome, r: [4, 6, 8]}]")
    )
    points = [one for one in choose("table99_offline").points if "r" in one]
    found = [record(point, {"top1": 0.8}) for point in points]
    drawn = item_figure.draw(judge("table99_offline", [], found))
    assert drawn is not None
    (axes,) = drawn.axes
    assert axes.get_xlabel() == "tokens that a layer removes" and axes.get_ylabel() == "Top-1, %"
    assert list(axes.lines[0].get_xdata()) == [4, 6, 8]


def test_no_two_methods_look_alike(write: Callable[..., Path]) -> None:
    names = ["none", "random", "stride", "tome", "tofu", "diffrate", "pitome", "tome_repo", "tofu_repo"]
    ratios = [0.9, 0.925, 0.95]
    extra = f"points: [{{merge: [{', '.join(names)}], ratio: {ratios}}}]\n  also: []"
    write(ITEM.replace("also: [{merge: [random, stride], ratio: 0.925}]", extra))
    points = choose("table99_offline").points
    found = [record(point, {"top1": 0.8}) for point in points]
    drawn = item_figure.draw(judge("table99_offline", [], found))
    assert drawn is not None and {line.get_linestyle() for line in drawn.axes[0].lines} == {"-", "--", ":"}
    again = [record(points[1], {"top1": 0.8}, started="2026-02-01T00:00:00+00:00")]
    repeated = item_figure.draw(judge("table99_offline", again, found))
    assert repeated is not None and "None" in {line.get_linestyle() for line in repeated.axes[0].lines}
    lines = drawn.legends[0].get_lines()[2:]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(names)


def test_nothing_to_draw_is_no_figure(write: Callable[..., Path]) -> None:
    result = judge("table99_offline", [])
    assert all(isinstance(row, JudgedValue) for row in result.rows) and item_figure.draw(result) is None


def test_variants_of_a_method_share_its_colour() -> None:
    labels = ["unmerged", "ToMe", "PiToMe", "ToFu", "DiffRate", "random", "stride", "ToMe, repo", "MCTF"]
    looks = style.looks([*labels, "PiToMe, repo", "PiToMe, alpha=0.5"])
    assert (
        looks["ToMe, repo"].colour == looks["ToMe"].colour and looks["ToMe, repo"].line != looks["ToMe"].line
    )
    assert len({looks[f"PiToMe{more}"] for more in ("", ", repo", ", alpha=0.5")}) == 3
    assert len(set(looks.values())) == len(looks)
