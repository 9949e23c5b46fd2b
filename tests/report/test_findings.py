"""What is said below a table follows from its numbers."""

from __future__ import annotations

import pytest

from pitome.records.comparisons import pairs
from pitome.records.rows import rows
from pitome.records.schema import Record
from pitome.report.findings import rankings, sentences
from tests.records.examples import example, outcomes


def all_outcomes(record: Record) -> object:
    return outcomes(record.score, record.data.n_samples, seed=int(record.run_id, 16) % 1000)


def said(*records: Record) -> list[str]:
    made = rows(records)
    return sentences(made, pairs(made, all_outcomes))


NONE = example("none", None, 0.915)


def test_the_best_and_the_second_where_most_is_merged() -> None:
    first, *_ = said(
        NONE, example("tome", 0.95, 0.91), example("tome", 0.9, 0.88), example("pitome", 0.9, 0.70),
        example("random", 0.9, 0.95),
    )  # fmt: skip
    assert first == (
        "Where most is merged (ratio 0.9), tome is best: 88.00 % top-1 against 91.50 % unmerged, at 53 % of "
        "the FLOPs; second is pitome with 70.00 %, significantly worse."
    )


def test_what_costs_no_accuracy() -> None:
    _, second, *_ = said(NONE, example("tome", 0.95, 0.915), example("tome", 0.9, 0.60))
    assert second.startswith(
        "Of 2 merged models 1 are not significantly different from the unmerged one; the"
    )
    assert "tome at ratio 0.95, at 74 % of the FLOPs." in second
    _, second, *_ = said(NONE, example("tome", 0.9, 0.60))
    assert second == "Every merged model is significantly different from the unmerged one."


@pytest.mark.parametrize(
    ("control", "text"),
    [
        (0.5, "Every method is significantly better"),
        (0.9, "every content-blind control at their setting: tome at ratio 0.9."),
    ],
)
def test_who_does_not_beat_a_control(control: float, text: str) -> None:
    assert text in said(NONE, example("tome", 0.9, 0.9), example("random", 0.9, control))[-1]


def test_nothing_is_said_without_an_unmerged_model_or_scores() -> None:
    assert said(example("tome", 0.9, 0.9)) == [] == said(NONE)


def test_the_lower_is_the_better_where_the_metric_says_so() -> None:
    made = rows([NONE, example("tome", 0.9, 0.9), example("pitome", 0.9, 0.8)])
    (ranking,) = rankings(made, pairs(made, all_outcomes))
    assert [row.label for row in ranking.rows] == ["tome", "pitome"]
