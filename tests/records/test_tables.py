import dataclasses
import io
import re

import pytest
import rich.console

from pitome.records import RecordError, Skipped
from pitome.records.statistics import paired_difference
from pitome.records.tables import build, show, to_markdown, write_markdown
from tests.records.examples import SPEED, example, failed, outcomes


def no_outcomes(record):
    return None


def all_outcomes(record):
    """What a store would give: as many samples right as the record says."""
    return outcomes(record.score, record.data.n_samples, seed=int(record.run_id, 16) % 1000)


def table_of(*records, outcomes=all_outcomes):
    (table,) = build(records, outcomes)
    return table


def cells(table, row):
    return dict(zip(table.header, table.rows[row], strict=True))


def printed(tables, width=200):
    console = rich.console.Console(file=io.StringIO(), width=width, color_system=None)
    show(tables, console)
    return console.file.getvalue()


def test_the_first_table():
    table = table_of(example("none", None, 0.915), example("pitome", 0.9, 0.892))
    assert table.header == [
        "Method", "Ratio", "Tokens left", "GMACs", "Cost %", "Plan %", "Top-1 %", "Difference [95 % interval]"
    ]  # fmt: skip
    assert table.rows[0] == ["none", "-", "197/197", "0.1200", "100.0", "-", "91.50", "-"]
    row = cells(table, 1)
    assert row["Method"] == "pitome" and row["Ratio"] == "0.9" and row["Tokens left"] == "52/197"
    assert row["GMACs"] == "0.06377"  # 0.12 * 0.9**6
    assert row["Cost %"] == "53.1" and row["Plan %"] == "2.00" and row["Top-1 %"] == "89.20"


def test_the_difference_is_the_paired_bootstrap_of_the_stored_outcomes():
    base, merged = example("none", None, 0.915), example("pitome", 0.9, 0.892)
    a, b = all_outcomes(merged), all_outcomes(base)
    want = paired_difference(a["id"], a["correct"], b["id"], b["correct"])
    text = cells(table_of(base, merged), 1)["Difference [95 % interval]"]
    assert text == f"{100 * want.value:+.2f} [{100 * want.low:+.2f}, {100 * want.high:+.2f}]"
    assert text.startswith("-2.30 [-")
    assert any("paired bootstrap over 1,000 samples" in note for note in table_of(base, merged).notes)


def test_without_the_unmerged_run_the_difference_is_left_out_and_said_so():
    table = table_of(example())
    assert cells(table, 0)["Difference [95 % interval]"] == "-"
    assert any("needs merge=none" in note for note in table.notes)
    complete = table_of(example(), example("none", None, 0.9))
    assert not any("needs merge=none" in note for note in complete.notes)


def test_without_outcomes_the_difference_is_left_out_and_said_so():
    table = table_of(example(), example("none", None), outcomes=no_outcomes)
    assert cells(table, 1)["Difference [95 % interval]"] == "-"
    assert any("rerun=true" in note for note in table.notes)


def test_random_weights_have_no_accuracy():
    table = table_of(example("none", None, random=True), example(random=True), outcomes=no_outcomes)
    for i in (0, 1):
        assert cells(table, i)["Top-1 %"] == "-" == cells(table, i)["Difference [95 % interval]"]
    assert cells(table, 1)["GMACs"] == "0.06377"  # costs do not need weights
    assert any("weights are random" in note for note in table.notes)
    assert not any("merge=none" in note for note in table.notes)
    assert "random (seed 0)" in "".join(table.caption)


def test_the_caption_says_what_every_number_is():
    record = example()
    data = dataclasses.replace(record.data, n_skipped=2, skipped=[Skipped(id="4", reason="truncated")])
    caption = " ".join(table_of(dataclasses.replace(record, data=data)).caption)
    for part in (
        "fashion_mnist", "split test", "1,000 samples", "limit 1,000", "2 skipped", "revision r1",
        "vit_fmnist (shipped, sha256 abababababab)", "float32", "device cpu",
    ):  # fmt: skip
        assert part in caption
    assert "_repo" not in caption
    assert "_repo is what the code of the PiToMe repository runs" in " ".join(
        table_of(example("pitome_repo")).caption
    )


def test_failed_runs_stand_in_the_table_with_their_reason():
    base, lost = example("none", None), failed("tome", error="the device has no memory left | use less")
    table = table_of(base, example(), lost)
    row = next(i for i, r in enumerate(table.rows) if r[0] == "tome")
    assert cells(table, row)["Top-1 %"] == "failed" and cells(table, row)["GMACs"] == "-"
    assert table.remarks == {row: "failed: the device has no memory left | use less"}
    text = to_markdown([table])
    assert "failed: the device has no memory left \\| use less |" in text
    assert "| Note |" in text and "| Note |" not in to_markdown([table_of(base)])
    assert "tome 0.9 failed: the device has no memory left | use less" in printed([table])


def test_only_failed_runs_make_a_table_too():
    record = failed()
    unknown = dataclasses.replace(record.data, n_samples=None)
    table = table_of(dataclasses.replace(record, data=unknown, environment=None))
    assert table.rows == [["tome", "0.9", "-", "-", "-", "-", "failed", "-"]]
    assert "no samples evaluated" in table.caption[0] and "device unknown" in table.caption[1]
    assert not table.notes and not table.bold


def test_one_table_for_each_group():
    tables = build([example(), example("tome"), example(model="deit_s")], no_outcomes)
    assert [t.title for t in tables] == [
        "classification: deit_s on fashion_mnist",
        "classification: vit_fmnist on fashion_mnist",
    ]
    assert [len(t.rows) for t in tables] == [1, 2]


def test_other_settings_change_the_name_of_the_column():
    table = table_of(example("tome", asked={"r": 16}), example("pitome", 0.9))
    assert table.header[1] == "Setting"
    assert {row[1] for row in table.rows} == {"r 16", "0.9"}


def test_the_authors_convention_has_a_column_where_it_is_known():
    record = example("tome_repo", random=True)
    cost = dataclasses.replace(
        record.cost, authors_macs=3_058_000_000, unmerged_authors_macs=4_540_000_000, macs=17_450_000_000
    )
    table = table_of(dataclasses.replace(record, cost=cost))
    assert cells(table, 0)["GMACs (authors)"] == "3.058" and cells(table, 0)["GMACs"] == "17.45"
    assert any("(unmerged 4.540)" in note for note in table.notes)
    assert "GMACs (authors)" not in table_of(example()).header


@pytest.mark.parametrize(("higher", "best"), [(True, "pitome"), (False, "tome")])
def test_the_best_of_those_asked_the_same_is_bold(higher, best):
    records = [
        dataclasses.replace(r, headline=dataclasses.replace(r.headline, higher_is_better=higher))
        for r in (
            example("none", None, 0.99),
            example("pitome", 0.9, 0.8),
            example("tome", 0.9, 0.7),
            example("tofu", 0.95, 0.9),  # has no rival at its ratio
        )
    ]
    table = table_of(*records, outcomes=no_outcomes)
    assert [table.rows[i][0] for i, _ in table.bold] == [best]
    assert {table.header[j] for _, j in table.bold} == {"Top-1 %"}
    assert to_markdown([table]).count("**") == 2


def test_equals_are_both_bold():
    table = table_of(example("pitome", 0.9, 0.8), example("tome", 0.9, 0.8))
    assert len(table.bold) == 2


def test_speed_stands_in_a_table_of_its_own_and_only_when_measured():
    timed = example("tome", throughput=SPEED, measure="full")
    first, second = build([example("none", None), example(), timed], all_outcomes)
    assert len(first.rows) == 3 and "images/s" not in " ".join(first.header)
    assert second.header == [
        "Method", "Ratio", "Unmerged images/s", "Merged images/s", "Speed-up [95 % interval]", "Pairs",
        "Batch", "Device", "Threads",
    ]  # fmt: skip
    assert second.rows == [
        ["tome", "0.9", "100.2", "131.4", "1.31 [1.28, 1.35]", "20", "16", "cpu", "2"]
    ]  # fmt: skip
    assert any("same run" in note for note in second.notes)
    assert second.caption[0].startswith("Data: ") and "device cpu" in second.caption[1]


def test_markdown_is_a_well_formed_table():
    text = to_markdown(build([example("none", None), example(), example("tome_repo")], all_outcomes))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    assert re.fullmatch(r"\| --- \|( ---: \|)+", lines[1])
    assert text.startswith("### classification: vit_fmnist on fashion_mnist\n\nData: ")


def test_markdown_is_written_as_a_whole_or_not_at_all(tmp_path):
    tables = build([example()], no_outcomes)
    write_markdown(tmp_path / "new" / "table.md", tables)
    assert (tmp_path / "new" / "table.md").read_text() == to_markdown(tables)
    with pytest.raises(RecordError, match="choose another"):
        write_markdown(tmp_path / "new" / "table.md" / "x.md", tables)


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_the_terminal_never_cuts_a_number(width):
    tables = build(
        [
            example("none", None, 0.915),
            example("pitome_repo", 0.85, 0.82),
            example("tome", 0.9, throughput=SPEED, measure="full"),
        ],
        all_outcomes,
    )
    text = printed(tables, width)
    for table in tables:
        for row in table.rows:
            for cell in row:
                assert cell in text
        assert table.title in " ".join(text.split())
        for line in table.caption + table.notes:
            assert line in " ".join(text.split())


def test_the_first_table_fits_eighty_columns():
    records = [example("none", None, 0.915), example("pitome_repo", 0.85, 0.52)]
    assert max(map(len, printed(build(records, all_outcomes), 80).splitlines())) <= 80


def test_brackets_in_names_are_not_taken_for_markup():
    record = failed(error="no such layer [bold]x[/bold]")
    assert "[bold]x[/bold]" in printed(build([record], no_outcomes))


def test_without_a_terminal_nothing_is_wrapped(capsys):
    """In a log file or a pipe; rich would take 80 columns."""
    table = table_of(example("none", None, 0.915), example("pitome_repo", 0.85, 0.52))
    show([table])
    assert any(
        table.rows[1][0] in line and table.rows[1][-1] in line
        for line in capsys.readouterr().out.splitlines()
    )
