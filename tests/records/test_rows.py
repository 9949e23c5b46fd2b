import dataclasses

import numpy as np
import pytest

from pitome.records import MethodInfo, RecordError, run_id
from pitome.records.comparisons import _wanted, pairs
from pitome.records.groups import baseline, group
from pitome.records.rows import identical, labels, mean_outcomes, resize_for, rows
from tests.records.examples import example, failed, outcomes, resized


def table(*records):
    (members,) = group(records)
    return rows(members)


def test_labels_name_only_what_differs():
    plain, half = example(), example(options={"margin": 0.9, "alpha": 0.5})
    tome = example("tome", options={"prop_attn": True})
    names = labels([plain, half, tome])
    assert names[plain.run_id] == "pitome (alpha=1)"
    assert names[half.run_id] == "pitome (alpha=0.5)"
    assert names[tome.run_id] == "tome"
    assert labels([plain, example("pitome", 0.95)])[plain.run_id] == "pitome"
    assert set(labels([example("random", seed=0), example("random", seed=1)]).values()) == {"random"}


def test_labels_of_runs_without_options_yet():
    done, lost = example("tome", 0.95), dataclasses.replace(failed("tome"), method=MethodInfo(name="tome"))
    assert labels([done, lost]) == {done.run_id: "tome", lost.run_id: "tome"}


def test_a_failed_run_is_named_with_its_seed_where_there_are_several():
    names = labels([example(seed=0), failed("pitome", seed=1)])
    assert set(names.values()) == {"pitome", "pitome (seed 1)"}


def test_runs_that_differ_by_the_seed_are_one_row():
    runs = [example("random", 0.9, accuracy, seed=seed) for seed, accuracy in ((2, 0.7), (0, 0.6), (1, 0.8))]
    row, other = table(*runs, example("random", 0.95, 0.9))[::-1]
    assert [run.seed for run in row.runs] == [0, 1, 2]
    assert row.score == pytest.approx(0.7) and row.deviation == pytest.approx(0.1)
    assert other.deviation is None and other.score == 0.9


def test_a_method_that_draws_by_the_seed_of_the_run_is_one_row_too():
    runs = [example("random", 0.9, options={"seed": seed}, seed=seed) for seed in (0, 1, 2)]
    (row,) = table(*runs)
    assert row.label == "random" and len(row.runs) == 3
    found = table(*runs, example("random", 0.9, options={"seed": 7}))
    assert sorted(row.label for row in found) == ["random", "random (seed=7)"]


def test_other_options_or_settings_are_other_rows_and_so_is_a_failed_seed():
    assert len(table(example(seed=0), example(options={"margin": 0.8}, seed=1))) == 2
    assert len(table(example(seed=0), example("pitome", 0.95, seed=1))) == 2
    done, lost = table(example("tome", seed=0), failed("tome", seed=1))
    assert len(done.runs) == len(lost.runs) == 1 and not lost.scored


def test_mean_outcomes_are_over_seeds_sample_by_sample():
    answers = {0: ([3, 1, 2], [1, 0, 1]), 1: ([1, 2, 3, 4], [0, 0, 1, 1]), 2: ([1, 2, 3], [1, 1, 1])}
    runs = [example("random", 0.9, seed=seed) for seed in answers]
    (row,) = table(*runs)
    found = mean_outcomes(row, lambda run: dict(zip(("id", "correct"), answers[run.seed], strict=True)))
    ids, values = found
    assert dict(zip(ids.tolist(), values, strict=True)) == pytest.approx({1: 1 / 3, 2: 2 / 3, 3: 1.0})
    assert mean_outcomes(row, lambda run: None) is None
    assert mean_outcomes(row, lambda run: {"id": [1]}) is None


def test_an_id_twice_is_refused_also_behind_several_seeds():
    runs = [example("random", 0.9, seed=seed) for seed in (0, 1)]
    twice = {"id": [1, 1, 2], "correct": [1, 0, 1]}
    with pytest.raises(RecordError, match="an id twice"):
        pairs(table(example("none", None), *runs), lambda run: twice)


def test_identical_outcomes_are_told_from_equal_scores():
    (row,) = table(*(example(seed=seed) for seed in (0, 1)))
    same = outcomes(0.87)
    moved = {"id": same["id"], "correct": np.roll(same["correct"], 1)}
    shuffled = {key: values[::-1] for key, values in same.items()}
    assert identical(row, lambda run: same)
    assert identical(row, lambda run: (same, shuffled)[run.seed])
    assert not identical(row, lambda run: (same, moved)[run.seed])
    assert not identical(row, lambda run: None)
    assert not identical(table(example())[0], lambda run: same)


def test_resize_stands_in_every_setting_whose_budget_it_answers():
    """The largest image within the share asked, or within the share that a ratio costs."""
    high, low = resized(26, 24, 0.70, 0.80), resized(24, 24, 0.60, 0.70)
    runs = [example(m, f, asked={"flops": f}) for m in ("tome", "pitome") for f in (0.75, 0.65)]
    runs.append(example("tome", 0.95))  # costs 0.95**6 = 0.735
    found = [(row.label, row.point_name) for row in table(high, low, *runs)]
    assert found == [
        ("tome", "0.95"), ("resize 26x24", "0.95"),
        ("pitome", "FLOPs 0.75"), ("tome", "FLOPs 0.75"), ("resize 26x24", "FLOPs 0.75"),
        ("pitome", "FLOPs 0.65"), ("tome", "FLOPs 0.65"), ("resize 24x24", "FLOPs 0.65"),
    ]  # fmt: skip


def test_methods_of_one_ratio_and_different_cost_have_resize_controls_of_their_own():
    dear, cheap = example("pitome", 0.9), example("tome", 0.9)
    cheap = dataclasses.replace(cheap, cost=dataclasses.replace(cheap.cost, share=0.45))
    wide, narrow = resized(22, 22, 0.50, 0.55), resized(20, 20, 0.44, 0.48)
    found = table(dear, cheap, wide, narrow)
    assert [row.label for row in found] == ["pitome", "tome", "resize 22x22", "resize 20x20"]
    assert [c.label for c in resize_for(found[0], found)] == ["resize 22x22"]
    assert [c.label for c in resize_for(found[1], found)] == ["resize 20x20"]


def test_equal_schedules_of_ones_own_stand_together_whatever_they_cost() -> None:
    """Costs 0.8, 0.7 and 0.6; the first and the last do the same."""

    def own(method, ratio, share):
        record = example(method, ratio, asked={})
        return dataclasses.replace(record, cost=dataclasses.replace(record.cost, share=share))

    runs = [own("pitome", 0.9, 0.8), own("tome", 0.8, 0.7), own("tofu", 0.9, 0.6)]
    assert [row.method for row in table(*runs, resized(20, 20, 0.55, 0.9))] == [
        "pitome", "tofu", "resize", "tome", "resize"
    ]  # fmt: skip


def test_resize_that_answers_nothing_stands_at_the_end():
    found = table(resized(20, 20, 0.3, 0.4), example("tome", 0.9), example("none", None))
    assert [(row.label, row.point_name) for row in found] == [
        ("none", "-"), ("tome", "0.9"), ("resize 20x20", "-")
    ]  # fmt: skip


def trained(how, method="pitome", ratio=0.9, seed=0):
    """A run that tests `method` on weights that were trained with `how`, None: with itself."""
    config = {"trained_with": how, "ratio": ratio, "trainer": {}}
    record = example(method, ratio, 0.8, seed=seed, mode="train", config=config)
    identity = record.identity | {"weights_sha256": f"{how} {ratio} {seed}"}
    return dataclasses.replace(record, identity=identity, run_id=run_id(identity))


def test_weights_trained_with_other_methods_are_other_rows_not_other_seeds():
    runs = [trained(how, method, seed=seed) for how in ("none", "tome", "pitome") for seed in (0, 1)
            for method in ("pitome", "random")]  # fmt: skip
    found = table(*runs)
    assert all([run.seed for run in row.runs] == [0, 1] for row in found) and len(found) == 6
    assert [row.setting for row in found[::2]] == [
        "0.9, trained without merging", "0.9, trained with pitome", "0.9, trained with tome"
    ]  # fmt: skip
    assert len({row.point for row in found}) == 3  # a control is one for its own weights alone
    assert len({row.series for row in found}) == 6
    wanted = {(a.first.config["trained_with"], b.first.config["trained_with"]) for a, b in _wanted(found)}
    assert wanted == {(how, how) for how in ("none", "tome", "pitome")}


def test_the_unmerged_model_of_a_comparison_is_the_one_trained_without_merging():
    whole = [
        trained(how, "none", ratio=ratio) for how, ratio in (("pitome", 0.8), ("none", 0.9), ("tome", 0.9))
    ]
    merged = trained("pitome")
    found = table(*whole, merged)
    assert [row.setting for row in found[:3]] == [
        "trained without merging", "trained with pitome at 0.8", "trained with tome at 0.9"
    ]  # fmt: skip
    assert baseline(merged, [*whole, merged]) is whole[1]
    assert {(a.setting, b.setting) for a, b in _wanted(found)} == {
        (row.setting, "trained without merging") for row in found if row is not found[0]
    }
    assert trained(None, "none").config["trained_with"] is None and table(trained(None))[0].setting == "0.9"
