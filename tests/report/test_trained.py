"""The table of trained models, against the records it is made from."""

from __future__ import annotations

import dataclasses
from statistics import fmean

from pitome.paper.experiments import choose
from pitome.paper.matching import matches
from pitome.records.schema import Record
from pitome.report.items import outcomes_in, published_records, published_stores
from pitome.report.trained import table
from scripts.tables.training import ITEMS

OUTCOMES = outcomes_in(published_stores())


def score(records: list[Record], trained: str | None, method: str, ratio: float | None) -> float:
    """Mean over the seeds, read from the records themselves."""
    found = [
        record.score
        for record in records
        if record.config.get("trained_with") == trained and record.method.name == method
        and record.method.asked.get("ratio") == (ratio if method != "none" else None)
    ]  # fmt: skip
    return 100 * fmean(value for value in found if value is not None)


def test_numbers_are_those_of_the_records() -> None:
    records = [record for record in published_records() if record.mode == "train" and record.task == "text"]
    made = table("table6", records, OUTCOMES)
    assert made is not None and len(made.rows) >= 4
    whole = score(records, "none", "none", None)
    for ratio, method, shelf, plain, alike, gain, share, adapted in made.rows:
        at = method, float(ratio)
        others = {"pitome", "tome"} - {method}
        assert shelf == "-"  # no record of the shipped model among these
        assert plain == f"{score(records, 'none', *at):.2f}" and alike == f"{score(records, method, *at):.2f}"
        difference = score(records, method, *at) - score(records, "none", *at)
        assert gain.startswith(f"{difference:+.2f} [")
        assert share == f"{100 * difference / (whole - score(records, 'none', *at)):.0f}"
        other = fmean(score(records, name, *at) for name in others)
        assert adapted.startswith(f"{score(records, method, *at) - other:+.2f} [")


def test_what_was_not_trained_alike_is_no_row() -> None:
    every = [record for record in published_records() if record.task == "text"]
    kept = [r for r in every if r.mode == "test" or r.config["trained_with"] in ("none", "tome")]
    made = table("table6", kept, OUTCOMES)
    assert made is not None and {row[1] for row in made.rows} == {"tome"}
    assert {row[7] for row in made.rows} == {"-"} and all(row[2] != "-" for row in made.rows)
    assert table("table6", [record for record in every if record.mode == "test"], OUTCOMES) is None
    assert table("table1", every, OUTCOMES) is None
    failed = [dataclasses.replace(record, status="failed") for record in kept]
    assert table("table6", failed, OUTCOMES) is None


def test_every_published_training_is_a_point_of_an_experiment() -> None:
    points = [point for item in ITEMS.values() for point in choose(f"{item}_trained_offline").points]
    trained = [record for record in published_records() if record.mode == "train"]
    assert len(trained) >= 93
    for record in trained:
        assert any(matches(point, record) for point in points), record.run_id
