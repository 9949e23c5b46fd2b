"""The table of schedules, against the records it is made from."""

from __future__ import annotations

import dataclasses

from pitome.paper.experiments import choose, load
from pitome.records.store import Store
from pitome.report.items import SCHEDULES, outcomes_in, published_records, published_stores
from pitome.report.schedules import KINDS, table

OUTCOMES = outcomes_in(published_stores())


def test_numbers_are_those_of_the_records() -> None:
    records = published_records()
    made = table(load("schedules"), records, OUTCOMES)
    assert made is not None and len(made.rows) >= 2
    scores = {
        (record.model.name, record.method.name, record.method.asked.get("schedule")): record
        for record in Store(SCHEDULES).all()
    }
    tested: set[str] = set()
    kinds = [name.lower() for name in made.header[4:]]
    assert made.header[3] == "Uniform" and set(kinds) <= set(KINDS)
    for model, method, target, uniform, *cells in made.rows:
        assert " (" in uniform and "[" not in uniform
        for kind, cell in zip(kinds, cells, strict=True):
            name = {"MiniLM": "minilm"}.get(model, model)
            record = scores.get((name, method, f"{kind}/{name}/{method}@{target}"))
            if record is None and cell != "-":  # a schedule that is equal to another kind's
                assert cell in [other for other in cells if other is not cell]
                continue
            if record is None or record.score is None or record.cost is None:
                assert cell == "-"
                continue
            tested.add(record.run_id)
            score, difference = record.score, float(cell.split()[2])
            assert cell.startswith(f"{100 * score:.2f} ({100 * record.cost.share:.1f}) ")
            assert abs(difference - (100 * score - float(uniform.split()[0]))) < 0.02
    assert f"for {len(tested)} tests" in made.notes[0] and f"Of these {len(tested)} " in made.notes[2]


def test_without_a_uniform_run_there_is_no_row() -> None:
    found = [record for record in published_records() if "flops" not in record.method.asked]
    assert table(load("schedules"), found, OUTCOMES) is None
    failed = [dataclasses.replace(record, status="failed") for record in published_records()]
    assert table(load("schedules"), failed, OUTCOMES) is None


def test_every_published_run_is_a_point_and_costs_what_its_uniform_ratio_costs() -> None:
    points = choose("schedules_offline").points
    for record in Store(SCHEDULES).all():
        schedule, flops = (record.method.asked.get(key) for key in ("schedule", "flops"))
        assert any(
            (point["model"], point["merge"], point.get("schedule"), point.get("flops"))
            == (record.model.name, record.method.name, schedule, flops)
            for point in points
        )
        target = flops or float(str(schedule).rpartition("@")[2])
        assert record.cost is not None and target - 0.012 < record.cost.share < target + 0.012
