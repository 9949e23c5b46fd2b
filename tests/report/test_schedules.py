"""The table of schedules, against the records it is made from."""

from __future__ import annotations

import dataclasses

from pitome.paper.experiments import choose, load
from pitome.paper.verdicts import judge
from pitome.records.statistics import compare, holm
from pitome.records.store import Store
from pitome.report.items import SCHEDULES, outcomes_in, published_records, published_stores
from pitome.report.layout import layouts
from pitome.report.schedules import EVERY, KINDS, table

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
    kinds = [name.lower() for name in made.header[5:]]
    assert made.header[3:5] == ["Uniform", EVERY.capitalize()] and set(kinds) <= set(KINDS)
    for model, method, target, uniform, every, *cells in made.rows:
        assert " (" in uniform and "[" not in uniform + every and (every == "-") is (model != "MiniLM")
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
        every = record.method.asked.get("layers") == "every1"
        assert any(
            (point["model"], point["merge"], point.get("schedule"), point.get("flops"), "layers" in point)
            == (record.model.name, record.method.name, schedule, flops, every)
            for point in points
        )
        target = flops or float(str(schedule).rpartition("@")[2])  # the same ratio in six layers: wider steps
        least = target - (0.02 if every else 0.012)
        assert record.cost is not None and least < record.cost.share < target + 0.012


def test_beside_the_uniform_ratio_in_every_layer() -> None:
    """Counted anew from the outcomes, without the table's own code."""
    made, store = table(load("schedules"), published_records(), OUTCOMES), Store(SCHEDULES)
    assert made is not None
    texts = [record for record in store.all() if record.model.name == "minilm"]
    base = {
        (record.method.name, record.method.asked["flops"]): store.outcomes(record)
        for record in texts
        if record.method.asked.get("layers") == "every1"
    }
    p_values = []
    for record in texts:
        if "schedule" not in record.method.asked:
            continue
        target = float(record.method.asked["schedule"].rpartition("@")[2])
        ours, theirs = store.outcomes(record), base[record.method.name, target]
        assert ours is not None and theirs is not None
        test = compare(ours["id"], ours["correct"], theirs["id"], theirs["correct"])
        assert test is not None
        p_values.append((test.p, test.difference.value > 0))
    clear = [
        better for (_, better), p in zip(p_values, holm([p for p, _ in p_values]), strict=True) if p < 0.05
    ]
    assert f"of {len(p_values)} schedules, {sum(clear)} are significantly better" in made.notes[3]
    assert f"{len(clear) - sum(clear)} significantly worse" in made.notes[3]


def test_reports_tell_the_two_uniform_ratios_apart_and_know_equal_schedules() -> None:
    """`searched/minilm/tome@0.4` is the curve that was run as `scaled/minilm/tome@0.4`: recorded once."""
    verdicts = judge("schedules_offline", [], published_records())
    cells = {
        row[2]: row[3]
        for table in layouts(verdicts, [])
        for row in table.rows
        if row[:2] == ["MiniLM", "ToMe"]
    }
    assert cells["FLOPs 0.6"] != cells["FLOPs 0.6, layers every1"] != "-"
    names = [f"schedule {kind}/minilm/tome@0.4" for kind in ("scaled", "searched")]
    assert cells[names[0]] == cells[names[1]] != "-"
