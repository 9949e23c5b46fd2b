"""The paper's layout: one row per method, one column per metric, the best in bold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pitome.paper.verdicts import judge
from pitome.report.layout import latex, layouts, to_latex
from tests.conftest import record
from tests.paper.test_verdicts import OFFLINE, TOME


def test_methods_are_rows_and_metrics_columns(write: Callable[..., Path]) -> None:
    result = judge("table99", [record(TOME, {"top1": 0.7796})])
    table, quoted = layouts(result, ["what is needed"])
    assert table.header == ["Model", "Method", "Ratio", "Top-1, %", "GMACs"] and table.caption == [
        "what is needed"
    ]
    assert table.rows[0][:4] == ["DeiT-S", "unmerged", "-", "79.80 / - / -"]
    assert table.rows[1] == ["DeiT-S", "ToMe, repo", "0.925", "77.70 / 78.43 / 77.96", "-"]
    assert [row[1] for row in table.rows] == ["unmerged", "ToMe, repo", "PiToMe, repo", "Absent, repo"]
    assert "printed / logged / measured" in table.notes[0]
    assert quoted.folded and quoted.rows == [["Other", "-", "-", "79.30"]] and "other works" in quoted.title


def test_the_best_is_bold_by_numbers_of_one_kind(write: Callable[..., Path]) -> None:
    (table, _) = layouts(judge("table99", []), [])
    assert {table.rows[i][1] for i, _ in table.bold} == {"PiToMe, repo"}  # as printed
    runs = [record(TOME | {"merge": name}, {"top1": top1}) for name, top1 in METHODS.items()]
    (table, _) = layouts(judge("table99", runs), [])
    assert {table.rows[i][1] for i, _ in table.bold} == {"PiToMe, repo"}  # Absent has no run: as printed
    ours = [record(OFFLINE | {"merge": name}, {"top1": top1}) for name, top1 in METHODS.items()]
    (table,) = layouts(judge("table99_offline", [], ours), [])
    bold = {table.rows[i][1] for i, _ in table.bold}
    assert not bold  # some methods of the part have no number
    mine = record(OFFLINE | {"merge": "tofu"}, {"top1": 0.99})
    (table,) = layouts(judge("table99_offline", [mine], ours), [])
    assert ["vit_fmnist", "ToFu (yours)", "0.925", "- / 99.00"] in table.rows


METHODS = {"tome_repo": 0.78, "pitome_repo": 0.77}


def test_the_method_as_published_has_a_row_once_it_was_run(write: Callable[..., Path]) -> None:
    (table, _) = layouts(judge("table99", [record(TOME | {"merge": "pitome"}, {"top1": 0.78})]), [])
    assert ["DeiT-S", "PiToMe", "0.925", "- / - / 78.00", "-"] in table.rows
    assert ["DeiT-S", "PiToMe, repo", "0.925", "79.10 / - / -", "-"] in table.rows


def test_another_papers_table_prints_its_own_methods_and_schedules() -> None:
    result = judge("diffrate_readme", [])
    (table,) = layouts(result, [])
    assert result.paper == "arXiv 2305.17997" and table.rows[0][2] == "schedule published/deit_s@2.9"
    assert table.rows[0][3:] == ["79.54 / -", "94.83 / -", "2.905 / 2.905"]  # GFLOPs are computed
    assert result.count("within") == 5 and result.count("outside") == 0


def test_latex_has_the_same_rows(write: Callable[..., Path]) -> None:
    text = to_latex(judge("table99", [record(TOME, {"top1": 0.7796})]))
    assert r"DeiT-S & ToMe, repo & 0.925 & 77.70 / 78.43 / 77.96 & - \\" in text
    assert r"\textbf{79.10 / - / -}" in text and r"Top-1, \%" in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.count("&") for line in lines[:5]}) == 1
    assert text.index("Other") > text.index("Absent") and text.count(r"\begin{tabular}") == text.count(
        r"\bottomrule"
    )


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("50 %", r"50 \%"),
        ("a_b & c#1 {x}", r"a\_b \& c\#1 \{x\}"),
        ("2^3 $~\\", r"2\textasciicircum{}3 \$\textasciitilde{}\textbackslash{}"),
    ],
)
def test_latex_reads_no_command_in_a_cell(text: str, escaped: str) -> None:
    assert latex(text) == escaped
