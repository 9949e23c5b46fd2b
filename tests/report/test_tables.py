import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pytest
import rich.console

from pitome.records import RecordError, Skipped
from pitome.records.statistics import mcnemar, paired_difference
from pitome.records.store import Store
from pitome.report.cells import p_value, points
from pitome.report.tables import build, show, to_markdown, write_markdown
from tests.records.examples import SPEED, example, failed, outcomes, resized


def no_outcomes(record):
    return None


def all_outcomes(record):
    """What a store would give: as many samples right as the record says."""
    return outcomes(record.score, record.data.n_samples, seed=int(record.run_id, 16) % 1000)


def table_of(*records, outcomes=all_outcomes):
    """The table of quality and cost."""
    tables = [t for t in build(records, outcomes) if not t.title.endswith((": comparisons", ": overview"))]
    (table,) = tables
    return table


def comparisons_of(*records, outcomes=all_outcomes):
    (table,) = [t for t in build(records, outcomes) if t.title.endswith(": comparisons")]
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
    assert any("overwrite=all" in note for note in table.notes)


def test_random_weights_have_no_accuracy():
    table = table_of(example("none", None, random=True), example(random=True), outcomes=no_outcomes)
    for i in (0, 1):
        assert cells(table, i)["Top-1 %"] == "-" == cells(table, i)["Difference [95 % interval]"]
    assert cells(table, 1)["GMACs"] == "0.06377"  # costs do not need weights
    assert any("random weights" in note for note in table.notes)
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
    assert "with _repo, as the code of the PiToMe repository implements it" in " ".join(
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
    first, _, second = build([example("none", None), example(), timed], all_outcomes)
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


def test_speed_of_texts_is_in_texts_and_tokens():
    timing = dataclasses.replace(SPEED, tokens_per_s=2_345.0, tokens_per_s_unmerged=1_234.0)
    timed = example("tome", throughput=timing, measure="full")
    *_, table = build([example("none", None), timed], all_outcomes)
    assert table.header[2:6] == [
        "Unmerged texts/s",
        "Merged texts/s",
        "Merged tokens/s",
        "Speed-up [95 % interval]",
    ]
    assert table.rows[0][4] == "2,345" and table.header.index("Device") in table.text
    assert any(note.startswith("Tokens/s: of the input") for note in table.notes)


def test_markdown_is_a_well_formed_table():
    text = to_markdown([table_of(example("none", None), example(), example("tome_repo"))])
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
    tables = [dataclasses.replace(table, aside=False) for table in tables]
    text = printed(tables, width)
    for table in tables:
        for row in table.rows:
            for j, cell in enumerate(row):  # text may break between words
                assert all(part in text for part in (cell.split() if j in table.text else [cell]))
        assert table.title in " ".join(text.split())
        for line in table.caption + table.notes:
            assert line in " ".join(text.split())


def test_every_table_fits_eighty_columns():
    """In parts where it must be; the first part has the score and what it is worth."""
    shown = printed(
        build([*SWEEP, example("tome", 0.95, throughput=SPEED, measure="full")], all_outcomes), 80
    )
    assert max(map(len, shown.splitlines())) <= 80
    records = [example("none", None, 0.915), example("pitome_repo", 0.85, 0.52), example("random", 0.85, 0.4)]
    head = printed(build(records, all_outcomes), 80).partition(" Method ")[2].partition("\n")[0]
    assert "% " in head and "interval]" in head and "GMACs" not in head


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


FLOPS = [
    example(method, ratio, accuracy, asked={"flops": share})
    for share, runs in {
        0.8: {"pitome": (0.97, 0.90), "tome": (0.96, 0.86), "random": (0.95, 0.80), "stride": (0.95, 0.86)},
        0.6: {"pitome": (0.92, 0.82), "tome": (0.91, 0.82), "random": (0.90, 0.60), "stride": (0.90, 0.70)},
    }.items()
    for method, (ratio, accuracy) in runs.items()
]
SWEEP = [
    example("none", None, 0.915),
    *FLOPS,
    resized(26, 24, 0.75, 0.85, 0.88),
    resized(22, 22, 0.55, 0.65, 0.70),
]


def test_one_table_at_equal_cost_with_the_controls_beside():
    table = table_of(*SWEEP)
    assert [row[0] for row in table.rows] == [
        "none", "pitome", "tome", "random", "stride", "resize 26x24",
        "pitome", "tome", "random", "stride", "resize 22x22",
    ]  # fmt: skip
    assert [row[1].split(",")[0] for row in table.rows[1:]] == ["FLOPs 0.8"] * 5 + ["FLOPs 0.6"] * 5
    assert table.sections == {1, 6}
    assert [(i, table.rows[i][0]) for i, _ in sorted(table.bold)] == [
        (1, "pitome"),
        (6, "pitome"),
        (7, "tome"),
    ]
    assert cells(table, 5)["Cost %"] == "75.0" and cells(table, 5)["Plan %"] == "-"


def test_the_table_says_how_many_controls_a_method_beats():
    """Of stride, tome is no better at FLOPs 0.8; resize at 0.88 is better than it."""
    table = table_of(*SWEEP)
    beaten = [cells(table, i)["Beats controls"] for i in range(len(table.rows))]
    assert beaten[:3] == ["-", "3 of 3", "1 of 3"] and beaten[6:8] == ["3 of 3", "3 of 3"]
    assert set(beaten[3:6] + beaten[8:]) == {"-"}
    assert any("Beats controls" in note for note in table.notes)
    assert "resize: the unmerged model sees a smaller image" in " ".join(table.caption)
    assert "Beats controls" not in table_of(example("none", None), example(), example("tome")).header


def test_who_is_compared_with_whom():
    table = comparisons_of(*SWEEP)
    here = [tuple(row[1:3]) for row in table.rows if row[0] == "FLOPs 0.8"]
    assert here == [
        *((name, "none") for name in ("pitome", "tome", "random", "stride", "resize 26x24")),
        *(("pitome", control) for control in ("random", "stride", "resize 26x24")),
        *(("tome", control) for control in ("random", "stride", "resize 26x24")),
        ("pitome", "tome"),
    ]
    assert len(table.rows) == 24 and table.sections == {12}


def test_a_comparison_says_difference_test_and_verdict():
    base, merged = example("none", None, 0.915), example("pitome", 0.9, 0.885)
    rows = [
        dict(zip(t.header, row, strict=True))
        for t in [comparisons_of(base, merged, example("tome", 0.9, 0.905))]
        for row in t.rows
    ]
    a, b = all_outcomes(merged), all_outcomes(base)
    ours, theirs = (dict(zip(one["id"], one["correct"], strict=True)) for one in (a, b))
    wins = sum(ours[i] > theirs[i] for i in ours)
    losses = sum(ours[i] < theirs[i] for i in ours)
    assert wins - losses == -30
    assert rows[0]["McNemar p"] == p_value(mcnemar(wins, losses))
    assert rows[0]["Verdict"] == "significantly worse"
    assert (rows[2]["First"], rows[2]["against"], rows[2]["Verdict"]) == (
        "tome",
        "pitome",
        "significantly better",
    )


def test_verdicts_are_corrected_for_all_comparisons_of_the_table():
    """A p of about 0.03 is significant as the one of two, not as one of many."""
    base, close = example("none", None), example("tome", 0.9)
    others = [example("tome", 1 - i / 100) for i in range(11, 31)]

    def answers(record):
        correct = np.ones(1000)
        if record.run_id == close.run_id:
            correct[:6] = 0  # against none: 0 wins, 6 losses, p = 2**-5
        return {"id": np.arange(1000), "correct": correct}

    few = comparisons_of(base, close, others[0], outcomes=answers)
    many = comparisons_of(base, close, *others, outcomes=answers)
    assert few.rows[0][4:6] == ["0.0312", "0.0625"] and many.rows[0][4:6] == ["0.0312", "0.6562"]
    assert many.rows[0][6] == "not significant"
    assert any("all 21 comparisons" in note for note in many.notes)


def test_lower_may_be_better():
    records = [
        dataclasses.replace(r, headline=dataclasses.replace(r.headline, higher_is_better=False))
        for r in (example("none", None, 0.8), example("tome", 0.9, 0.6), example("random", 0.9, 0.9))
    ]
    verdicts = {tuple(row[1:3]): row[6] for row in comparisons_of(*records).rows}
    assert verdicts[("tome", "none")] == verdicts[("tome", "random")] == "significantly better"
    assert verdicts[("random", "none")] == "significantly worse"


def test_seeds_are_one_row_with_mean_and_deviation():
    runs = [
        example("random", 0.9, accuracy, seed=seed) for seed, accuracy in ((0, 0.80), (1, 0.82), (2, 0.78))
    ]
    table = table_of(example("none", None, 0.915), *runs)
    assert len(table.rows) == 2
    assert cells(table, 1)["Top-1 %"] == "80.00 ± 2.00" and cells(table, 1)["Method"] == "random (3 seeds)"
    pooled = np.mean([sorted_by_id(all_outcomes(run)) for run in runs], axis=0)
    base = sorted_by_id(all_outcomes(example("none", None, 0.915)))
    want = paired_difference(range(1000), pooled, range(1000), base)
    assert cells(table, 1)["Difference [95 % interval]"] == points(want)
    assert any(note.startswith("±: standard deviation over the seeds") for note in table.notes)
    both = comparisons_of(example("none", None, 0.915), *runs, example("tome", 0.9, 0.86))
    assert both.header[4] == "p" and "sign-flip" in both.notes[0]


def test_identical_seeds_have_no_deviation():
    runs = [example("pitome", 0.9, 0.87, seed=seed) for seed in (0, 1)]
    same = lambda record: outcomes(record.score, 1000)  # noqa: E731
    table = table_of(example("none", None, 0.915), *runs, outcomes=same)
    assert cells(table, 1)["Top-1 %"] == "87.00"
    assert "Identical outcomes with every seed, hence no deviation: pitome (2 seeds)." in table.notes
    assert not any("±" in note for note in table.notes)


def test_many_settings_begin_with_an_overview_and_fold_the_rest():
    records = [example("none", None, 0.915)]
    for ratio in (0.975, 0.95, 0.925, 0.9):
        records += [example("pitome", ratio, 0.9), example("tome", ratio, 0.8), example("random", ratio, 0.8)]
    over, quality, comparisons = build(records, all_outcomes)
    assert not over.folded and quality.folded and comparisons.folded
    assert over.header == ["Setting", "Cost %", "pitome", "tome", "random"]
    assert [row[1] for row in over.rows] == ["86", "74", "63", "53"]
    assert [row[0] for row in over.rows] == ["0.975", "0.95", "0.925", "0.9"]
    assert over.bold == {(i, 2) for i in range(4)}
    assert all(row[2].endswith("90.00") and "!" not in row[2] for row in over.rows)
    assert all(row[3] == "! 80.00" and row[4] == "80.00" for row in over.rows)
    assert "unmerged: 91.50" in over.notes[0]
    text = to_markdown([over, quality, comparisons])
    assert text.count("<details>") == text.count("</details>") == 2
    assert "<summary>classification: vit_fmnist on fashion_mnist: comparisons (24 rows)</summary>\n\n" in text


def test_the_overview_shows_the_dearest_resize_of_a_setting():
    records = [example(m, q, 0.8) for q in (0.95, 0.9, 0.85, 0.8) for m in ("pitome", "tome")]
    dear = dataclasses.replace(records[0], cost=dataclasses.replace(records[0].cost, share=0.78))
    sizes = [resized(26, 26, 0.76, 0.80, 0.7), resized(26, 24, 0.72, 0.76, 0.6)]
    over = build([dear, *records[1:], *sizes], no_outcomes)[0]
    assert over.header[-1] == "resize" and [row[-1] for row in over.rows] == ["70.00", "-", "-", "-"]


def test_what_is_not_significantly_different_from_the_unmerged_model_is_marked():
    records = [example("none", None, 0.915)]
    records += [
        example(m, q, 0.915 if m == "tome" else 0.5) for q in (0.95, 0.9, 0.85, 0.8) for m in ("tome", "tofu")
    ]
    same = lambda record: outcomes(record.score, 1000)  # noqa: E731
    over = build(records, same)[0]
    assert {row[2] for row in over.rows} == {"50.00"} and {row[3] for row in over.rows} == {"= 91.50"}


def test_long_folded_tables_are_not_printed_but_named():
    records = [example("none", None, 0.915)]
    records += [example(m, 1 - i / 100, 0.9) for i in range(1, 31) for m in ("pitome", "tome")]
    tables = build(records, all_outcomes)
    text = printed(tables)
    assert ": comparisons" not in text  # nor the rows behind an overview: both are in the file
    assert len(text.splitlines()) < 60


def test_the_terminal_separates_settings():
    lines = printed([table_of(*SWEEP)]).splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:1] == ["none"])
    assert lines[first + 1].strip() == "" and lines[first + 2].split()[0] == "pitome"


def test_outcomes_of_a_run_are_read_once():
    read = []
    build(SWEEP, lambda record: read.append(record.run_id) or all_outcomes(record))
    assert sorted(read) == sorted(set(read))


def sorted_by_id(answers):
    return answers["correct"][np.argsort(answers["id"])]


@pytest.fixture(scope="module")
def published():
    store = Store(Path(__file__).parents[2] / "results" / "published")
    return store, store.all()


# The intervals of retrieval, whose scores have many values, take 10 s.
TASKS = ["classification", "text", "vqa", pytest.param("retrieval", marks=pytest.mark.nightly)]


@pytest.mark.parametrize("task", TASKS)
def test_the_published_report_is_what_its_records_say(task, published, tmp_path):
    """Otherwise: python scripts/report.py results/published."""
    store, records = published
    made = [record for record in records if record.task == task]
    write_markdown(tmp_path / "report.md", build(made, store.outcomes))

    def rows(path):
        parts = re.split("(?m)^(?:### |<summary>)", path.read_text(encoding="utf-8"))
        of_task = [part for part in parts if part.startswith(f"{task}: ")]
        return [line for part in of_task for line in part.splitlines() if line.startswith("|")]

    assert rows(tmp_path / "report.md") == rows(store.folder / "report.md") != []
    assert {record.task for record in records} == {"classification", "text", "vqa", "retrieval"}
