"""Status of a sweep: what is done, failed and pending, who is at work, what it will take."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pitome.errors import UsageError
from pitome.paper.experiments import choose
from pitome.paper.files import method_options
from pitome.records import Record, Store
from pitome.records.claims import claim
from pitome.report.status import SweepStatus, duration, sweep_status, sweeps, to_table
from tests.records.examples import example, failed

WORD = "table5_offline"


def run_of(point: dict, **changes) -> Record:
    """A run of a point of the experiment, as a record says it."""
    method = point["merge"]
    record = example(
        method,
        0.9,
        asked={key: point[key] for key in ("ratio", "r", "flops") if key in point},
        limit=None,
        seconds=30.0,
    )
    merge = {"name": method, "options": method_options(method)}
    return dataclasses.replace(
        record, config={"merge": merge, "model": {"name": "vit_fmnist", "checkpoint": "shipped"}}, **changes
    )


def test_what_is_done_failed_and_pending() -> None:
    points = choose(WORD).points
    asked = [dict(point) for point in points if point["merge"] in ("pitome", "tome") and "flops" in point][:3]
    assert len(asked) == 3
    broken = failed(error="out of memory")
    broken = dataclasses.replace(
        run_of(asked[2]), status="failed", error=broken.error, metrics={}, cost=None, tokens=[]
    )
    found = sweep_status(WORD, [run_of(asked[0]), run_of(asked[1]), broken], processes=2)
    assert (len(found.done), list(found.failed.values())) == (2, ["out of memory"])
    assert found.points == len(points) and len(found.pending) == len(points) - 3
    assert found.seconds == pytest.approx(30.0 * (len(points) - 2) / 2)
    assert not {*found.done, *found.failed} & {*found.pending}


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("table6", "use experiment=table6_trained"),
        ("theorem", "python run.py experiment=theorem"),
        ("figure1", "python run.py experiment=figure1"),
    ],
)
def test_what_is_no_sweep_has_no_status(word: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        sweep_status(word, [])


def test_a_run_on_a_part_of_the_data_leaves_its_point_pending() -> None:
    (point,) = [
        dict(one) for one in choose(WORD).points if one["merge"] == "tome" and one.get("flops") == 0.6
    ]
    record = run_of(point)
    part = dataclasses.replace(record, data=dataclasses.replace(record.data, limit=100))
    found = sweep_status(WORD, [part])
    assert (found.done, found.failed, len(found.pending)) == ([], {}, found.points)


def test_nothing_is_known_of_the_time_before_the_first_run() -> None:
    assert sweep_status(WORD, []).seconds is None
    with pytest.raises(UsageError, match="unknown experiment=nosuch"):
        sweep_status("nosuch", [])


def test_the_table_names_who_is_at_work(tmp_path: Path) -> None:
    with claim(tmp_path, "0123456789abcdef"):
        table = to_table([WORD], Store(tmp_path))
    assert any(note.startswith("running: 0123456789abcdef (process ") for note in table.notes)
    assert sum(note.startswith("pending: python run.py ") for note in table.notes) == int(table.rows[0][1])
    assert table.rows[0][-1] == "unknown"


def test_every_sweep_has_points() -> None:
    assert WORD in sweeps() and "theorem" not in sweeps()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "unknown"), (0.2, "1 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_a_finished_sweep_has_no_time_left() -> None:
    assert SweepStatus("x", ["a"], {}, [], 0.0).points == 1
