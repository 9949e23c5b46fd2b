"""Verdicts: what is compared with what, and that values are data that no run depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pitome.paper.experiments import choose, experiment_names
from pitome.paper.item import MetricRule
from pitome.paper.matching import finished_runs, why_unfinished
from pitome.paper.verdicts import (
    NOT_JUDGED,
    NOT_RUN,
    ONLY_PUBLISHED,
    OUTSIDE,
    WITHIN,
    YOURS,
    JudgedValue,
    judge,
)
from pitome.records.schema import Record
from pitome.report.items import published_records
from tests.conftest import ITEM, record

TOME = {
    "task": "classification",
    "data": "imagenet",
    "model": "deit_s",
    "merge": "tome_repo",
    "ratio": 0.925,
}
OFFLINE = TOME | {"model": "vit_fmnist", "data": "fashion_mnist"}


def row(records: Sequence[Record], method: str = "tome_repo", metric: str = "Top-1") -> JudgedValue:
    (found,) = [
        one
        for one in judge("table99", records).rows
        if one.point.get("merge") == method
        and one.metric == metric
        and one.method != "-"
        and one.verdict != YOURS
    ]
    return found


def test_a_measured_value_stands_beside_the_printed_one(write: Callable[..., Path]) -> None:
    found = row([record(TOME, {"top1": 0.7796})])
    assert (found.printed, found.logged, found.measured) == (77.7, 78.43, pytest.approx(77.96))
    assert found.difference == pytest.approx(0.26) and found.tolerance == 0.3 and found.verdict == WITHIN
    assert found.interval is not None and found.interval[0] < 77.96 < found.interval[1]
    assert (found.model, found.method, found.data, found.ratio) == ("DeiT-S", "ToMe", "ImageNet-1k", "0.925")
    assert found.variant == "authors' code" and found.run_id == record(TOME, {}).run_id
    assert "merge=tome_repo" in found.command and "model=deit_s" in found.command


@pytest.mark.parametrize(
    ("top1", "verdict"), [(0.780, WITHIN), (0.7801, OUTSIDE), (0.774, WITHIN), (0.77, OUTSIDE)]
)
def test_the_tolerance_decides(write: Callable[..., Path], top1: float, verdict: str) -> None:
    assert row([record(TOME, {"top1": top1})]).verdict == verdict


@pytest.mark.parametrize(("printed", "tolerance"), [(4.6, 0.142), (79.0, 2.08), (0.81, 0.0212)])
def test_a_relative_tolerance_adds_half_of_the_last_printed_digit(printed: float, tolerance: float) -> None:
    assert MetricRule(better="lower", relative=0.02).tolerance_of(printed) == pytest.approx(tolerance)
    assert MetricRule(better="lower", tolerance=0.3).tolerance_of(printed) == 0.3


def test_a_corrected_value_changes_a_verdict_and_no_run(write: Callable[..., Path]) -> None:
    run = record(TOME, {"top1": 0.7843})
    before, points = row([run]), choose("table99").points
    assert before.verdict == OUTSIDE
    write(ITEM.replace("tome_repo: 77.7", "tome_repo: 78.4"))
    after = row([run])
    assert after.verdict == WITHIN and after.run_id == before.run_id and after.command == before.command
    assert choose("table99").points == points


def test_where_nothing_is_printed_the_logged_value_counts(write: Callable[..., Path]) -> None:
    write(ITEM.replace("tome_repo: 77.7, ", ""))
    found = row([record(TOME, {"top1": 0.7843})])
    assert found.printed is None and found.difference == pytest.approx(0.0) and found.verdict == WITHIN


CAUSES: dict[str, tuple[dict[str, Any], str, str]] = {
    "nobody knows": ({}, "", "unexplained"),
    "the metric's": ({}, "metric", "other hardware"),
    "the block's": ({}, "block", "other crop"),
    "unreadable files": ({"skipped": 3}, "block", "fewer samples"),
    "half precision": ({"precision": "16-mixed"}, "block", "other precision"),
    "both": ({"skipped": 3, "precision": "bf16-true"}, "", "fewer samples, other precision"),
}


@pytest.mark.parametrize("case", CAUSES)
def test_what_is_outside_has_a_cause(write: Callable[..., Path], case: str) -> None:
    """Said by the run, else by the item; what is within has none."""
    changes, where, cause = CAUSES[case]
    item = ITEM
    if where:
        item = item.replace("tolerance: 0.3}", "tolerance: 0.3, cause: other hardware}")
        assert item != ITEM
    if where == "block":
        item = item.replace("    logged_source", "    causes: {top1: other crop}\n    logged_source")
        assert "causes" in item
    write(item)

    def judged(top1: float) -> JudgedValue:
        run = record(TOME, {"top1": top1})
        data = dataclasses.replace(run.data, n_skipped=changes.get("skipped", 0))
        return row([dataclasses.replace(run, data=data, precision=changes.get("precision", "32"))])

    assert judged(0.70).judgement == f"outside: {cause}"
    assert judged(0.785).judgement == (f"outside: {cause if changes else 'logged otherwise'}")
    assert judged(0.777).judgement == WITHIN


@pytest.mark.parametrize("name", [name for name in experiment_names() if "_" not in name])
def test_no_computed_value_of_the_paper_is_outside_without_a_cause(name: str) -> None:
    rows = [row for row in judge(name, []).rows if row.verdict == OUTSIDE]
    known = {"other FLOPs convention", "logged otherwise", "one value printed for all methods", "unexplained"}
    assert {row.cause for row in rows} <= known
    assert sum(row.cause == "unexplained" for row in rows) == (4 if name == "table1" else 0)


def test_several_seeds_are_one_mean(write: Callable[..., Path]) -> None:
    found = row([record(TOME, {"top1": top1}, seed=seed) for seed, top1 in enumerate((0.75, 0.79))])
    assert found.measured == pytest.approx(77.0) and "mean of 2 seeds" in found.reason
    assert found.interval is not None and sum(found.interval) / 2 == pytest.approx(77.0, abs=0.1)


NOT_THE_POINT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "another ratio": ({"ratio": 0.9}, {}),
    "another checkpoint": ({"model.checkpoint": "hub:someone/else@main"}, {}),
    "another model": ({"model": "deit_t"}, {}),
    "other data": ({"data": "fashion_mnist"}, {}),
    "another method": ({"merge": "tome"}, {}),
    "an option": ({"merge.options.prop_attn": True}, {}),
    "layers": ({"layers": "first3"}, {}),
    "training": ({"mode": "train"}, {}),
    "a part of the data": ({}, {"limit": 100}),
    "a failure": ({}, {"status": "failed", "error": "no luck"}),
}


@pytest.mark.parametrize("known", [True, False])
def test_a_model_of_ones_own_has_its_own_checkpoint(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by ./conf; where that is not at hand, by nothing but the record."""
    monkeypatch.chdir(tmp_path)
    if known:
        (tmp_path / "conf" / "model").mkdir(parents=True)
        (tmp_path / "conf/model/mine.yaml").write_text("name: mine\ncheckpoint: mine.safetensors\n")
    run = record(TOME, {"top1": 0.777})
    for checkpoint in ("mine.safetensors", "other.safetensors"):
        config = {**run.config, "model": {"name": "mine", "checkpoint": checkpoint}}
        own = dataclasses.replace(run, config=config, model=dataclasses.replace(run.model, name="mine"))
        counts = checkpoint == "mine.safetensors" or not known
        assert bool(finished_runs(TOME | {"model": "mine"}, [own])) is counts


@pytest.mark.parametrize("case", NOT_THE_POINT)
def test_another_run_does_not_count(write: Callable[..., Path], case: str) -> None:
    point, changes = NOT_THE_POINT[case]
    found = row([record(TOME | point, {"top1": 0.777}, **changes)])
    assert found.verdict == NOT_RUN and found.measured is None and found.run_id is None
    said = {"a part of the data": "limit=100", "a failure": "failed: no luck"}.get(case, "no run of it")
    assert said in found.reason


def test_random_weights_measure_nothing(write: Callable[..., Path]) -> None:
    run = record(TOME, {"top1": 0.777})
    random = dataclasses.replace(run, weights=dataclasses.replace(run.weights, random=True))
    assert finished_runs(TOME, [run]) and not finished_runs(TOME, [random])


def test_the_method_as_published_has_a_row_of_its_own(write: Callable[..., Path]) -> None:
    result = judge("table99", [])
    variants = [(one.method, one.variant) for one in result.rows if one.method == "PiToMe"]
    assert variants == [("PiToMe", "authors' code"), ("PiToMe", "as published")]
    assert not [one for one in result.rows if one.point.get("merge") == "tome"]
    bare = record(TOME | {"merge": "tome"}, {"top1": 0.777})
    (found,) = [one for one in judge("table99", [bare]).rows if one.point.get("merge") == "tome"]
    assert found.verdict == WITHIN and found.variant == "as published"


def test_what_is_not_here_or_only_quoted_says_so(write: Callable[..., Path]) -> None:
    (quoted,) = [one for one in judge("table99", []).rows if one.model == "Other"]
    assert quoted.verdict == NOT_RUN and "another work" in quoted.reason and quoted.command == ""
    assert "merge=absent_repo is not among" in row([], "absent_repo").reason


def test_flops_need_no_run(write: Callable[..., Path]) -> None:
    found = row([], "none", "GMACs")
    assert found.verdict == WITHIN and found.run_id is None
    assert found.measured == pytest.approx(4.54, abs=0.01) and "ours 4.599" in found.reason


def test_offline_is_compared_with_our_own_records_and_never_the_papers(write: Callable[..., Path]) -> None:
    ours = record(OFFLINE, {"top1": 0.88})
    again = record(OFFLINE, {"top1": 0.8805}, started="2026-02-01T00:00:00+00:00")
    result = judge("table99_offline", [again], [ours])
    assert result.offline and all(one.printed is None and one.logged is None for one in result.rows)
    (found,) = [one for one in result.rows if one.point["merge"] == "tome_repo"]
    assert found.published == pytest.approx(88.0) and found.measured == pytest.approx(88.05)
    assert found.verdict == WITHIN and found.difference == pytest.approx(0.05)
    far = record(OFFLINE, {"top1": 0.89}, started="2026-02-01T00:00:00+00:00")
    verdicts = [r.verdict for r in judge("table99_offline", [far], [ours]).rows if r.published]
    assert verdicts == [OUTSIDE]
    (alone,) = [r for r in judge("table99_offline", [ours], [ours]).rows if r.published]
    assert alone.verdict == ONLY_PUBLISHED and "the published one itself" in alone.reason
    (new,) = [r for r in judge("table99_offline", [again], []).rows if r.measured]
    assert new.verdict == NOT_JUDGED and "nothing published" in new.reason
    failed = record(OFFLINE, {}, status="failed", error="out of memory")
    (lost,) = [r for r in judge("table99_offline", [failed]).rows if "out of memory" in r.reason]
    assert lost.verdict == NOT_RUN


def test_offline_seeds_are_compared_with_the_same_seeds(write: Callable[..., Path]) -> None:
    """What another seed gave is no repetition of a training; an evaluation without drawing is one."""
    later = "2026-02-01T00:00:00+00:00"
    ours = record(OFFLINE, {"top1": 0.88})
    again = [record(OFFLINE, {"top1": top1}, seed=s, started=later) for s, top1 in enumerate((0.88, 0.5))]
    (found,) = [r for r in judge("table99_offline", again, [ours]).rows if r.published]
    assert found.verdict == WITHIN and found.measured == pytest.approx(88.0)
    assert found.reason == "without seed 1, of which nothing is published"
    (found,) = [r for r in judge("table99_offline", again[1:], [ours]).rows if r.published]
    assert (found.verdict, found.measured) == (OUTSIDE, pytest.approx(50.0))


def test_a_training_with_another_seed_is_no_repetition() -> None:
    published = [r for r in published_records() if r.mode == "train" and r.task == "text"]
    other = dataclasses.replace(published[0], seed=7)
    rows = [r for r in judge("table6_trained_offline", [other], published).rows if r.measured is not None]
    assert [(r.verdict, r.reason) for r in rows] == [(NOT_JUDGED, "published with other seeds")]
    assert all("seed" not in r.variant for r in rows)  # all seeds are one row


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limit": 200}, "run on 200 samples alone"),
        ({"status": "failed", "error": "out of memory"}, "out of memory"),
    ],
)
def test_a_trial_spoils_no_published_value(
    write: Callable[..., Path], changes: dict[str, Any], said: str
) -> None:
    ours = record(OFFLINE, {"top1": 0.88})
    trial = record(OFFLINE, {"top1": 0.5}, started="2026-02-01T00:00:00+00:00", **changes)
    (value,) = [row for row in judge("table99_offline", [trial], [ours]).rows if row.published]
    assert value.verdict == ONLY_PUBLISHED and value.published == pytest.approx(88.0)
    assert value.measured is None and said in value.reason


YOUR_RUNS = {
    "another method": ({"merge": "random"}, {}, "random", ""),
    "another option": ({"merge.options.prop_attn": True}, {}, "ToMe", "authors' code, prop_attn=True"),
    "another seed": ({"merge": "random"}, {"seed": 3}, "random", ""),
}


@pytest.mark.parametrize("case", YOUR_RUNS)
def test_a_run_beside_those_of_an_item_has_a_row(write: Callable[..., Path], case: str) -> None:
    point, changes, method, variant = YOUR_RUNS[case]
    run = record(TOME | point, {"top1": 0.5}, **changes)
    result = judge("table99", [run])
    (yours,) = [row for row in result.rows if row.verdict == YOURS]
    assert (yours.method, yours.variant, yours.ratio, yours.metric) == (method, variant, "0.925", "Top-1")
    assert yours.measured == pytest.approx(50.0) and yours.printed is None and yours.run_id == run.run_id
    assert run in result.runs and "ratio=0.925" in yours.command
    assert not [
        row for row in judge("table99", [], [run]).rows if row.verdict == YOURS
    ]  # it is this project's


@pytest.mark.parametrize(
    ("point", "changes"),
    [
        ({"merge": "random", "ratio": 0.9}, {}),
        ({"merge": "random", "model": "deit_t"}, {}),
        ({"merge": "random", "data": "fashion_mnist"}, {}),
        ({"merge": "none"}, {}),
        ({"merge": "random"}, {"limit": 100}),
        ({"merge": "random"}, {"status": "failed", "error": "no luck"}),
    ],
)
def test_a_run_elsewhere_has_none(
    write: Callable[..., Path], point: dict[str, Any], changes: dict[str, Any]
) -> None:
    result = judge("table99", [record(TOME | point, {"top1": 0.5}, **changes)])
    assert not [row for row in result.rows if row.verdict == YOURS]


def test_a_method_without_a_file_shows_the_options_that_differ_from_its_first_run(
    write: Callable[..., Path],
) -> None:
    runs = []
    for day, power in enumerate((1.0, 0.5), 1):
        run = record(TOME | {"merge": "random"}, {"top1": 0.5}, started=f"2026-01-0{day}T00:00:00+00:00")
        config = {
            **run.config,
            "imports": ["my_method"],
            "merge": {"name": "mine", "options": {"power": power}},
        }
        method = dataclasses.replace(run.method, name="mine", options={"power": power})
        runs.append(dataclasses.replace(run, run_id=str(day), config=config, method=method))
    yours = [row for row in judge("table99", runs).rows if row.verdict == YOURS]
    assert [(row.method, row.variant, row.run_id) for row in yours] == [
        ("mine", "", "1"),
        ("mine", "power=0.5", "2"),
    ]
    assert yours[1].command.endswith("merge=mine merge.options.power=0.5 imports=[my_method]")


def test_stated_bounds_and_metrics_that_are_not_judged(write: Callable[..., Path]) -> None:
    above = ITEM.replace("metric: top1\n    source", "metric: top1\n    above: 75\n    source")
    write(above)
    assert row([record(TOME, {"top1": 0.76})]).verdict == WITHIN
    assert row([record(TOME, {"top1": 0.74})]).verdict == OUTSIDE
    write(ITEM.replace("top1: {better: higher, tolerance: 0.3}", "top1: {better: higher, why: of old times}"))
    found = row([record(TOME, {"top1": 0.777})])
    assert found.verdict == NOT_JUDGED and found.measured is not None and "of old times" in found.reason


def test_a_point_may_ask_for_a_part_of_the_data(write: Callable[..., Path]) -> None:
    write(ITEM.replace("data: fashion_mnist}", "data: fashion_mnist, limit: 2000}"))
    part = OFFLINE | {"limit": 2000}
    ours = record(part, {"top1": 0.88}, limit=2000)
    ours = dataclasses.replace(ours, config=ours.config | {"limit": 2000})
    assert finished_runs(part, [ours]) == [ours] and not finished_runs(OFFLINE, [ours])
    assert why_unfinished(part, [ours]) is None
    assert not finished_runs(part, [record(OFFLINE, {"top1": 0.88})])
    (found,) = [one for one in judge("table99_offline", [], [ours]).rows if one.published]
    assert found.data == "Fashion-MNIST, 2,000 samples" and "limit=2000" in found.command
