import dataclasses

import pytest

from pitome.records.groups import baseline, digest, group, labels, setting
from tests.records.examples import example, failed


def ids(groups):
    return [{record.run_id for record in members} for members in groups]


def with_data(record, **changes):
    return dataclasses.replace(record, data=dataclasses.replace(record.data, **changes))


@pytest.mark.parametrize(
    "other",
    [
        example("tome", task="retrieval"),
        example("tome", model="deit_s"),
        example("tome", limit=500),
        example("tome", limit=None),
        example("tome", random=True),
        example("tome", precision="bfloat16"),
        example("tome", result_version=99),
        with_data(example("tome"), revision="r2"),
        with_data(example("tome"), split="train"),
        with_data(example("tome"), name="imagenet"),
    ],
)
def test_what_cannot_be_compared_stands_apart(other):
    assert len(group([example(), other])) == 2
    assert digest(example()) != digest(other)


def test_what_can_be_compared_stands_together():
    records = [example(), example("tome"), example("none", None), example(seed=1), example(measure="full")]
    assert len(group(records)) == 1
    assert len({digest(record) for record in records}) == 1


def test_random_weights_of_different_seeds_are_different_weights():
    assert len(group([example(random=True), example("tome", random=True, seed=1)])) == 2


def test_the_same_question_is_answered_once_by_the_best_measured_run():
    full = example(measure="full", started="2026-01-01T00:00:00+00:00")
    flops = example(measure="flops", started="2026-05-01T00:00:00+00:00")
    assert group([flops, full]) == group([full, flops]) == [[full]]


def test_order_is_unmerged_then_ratio_then_name():
    records = [example(m, q) for q in (0.9, 0.975, 0.95) for m in ("tome", "pitome")]
    (members,) = group([*records, example("none", None)])
    assert [(m.method.name, m.method.ratio) for m in members] == [
        ("none", None),
        ("pitome", 0.975), ("tome", 0.975),
        ("pitome", 0.95), ("tome", 0.95),
        ("pitome", 0.9), ("tome", 0.9),
    ]  # fmt: skip


def failed_early(**changes):
    """Failed before the weights were read, the data found and the options resolved."""
    record = failed("tome", **changes)
    return dataclasses.replace(
        record,
        data=dataclasses.replace(record.data, revision=None, split=None, n_samples=None),
        weights=dataclasses.replace(record.weights, sha256=None),
        method=dataclasses.replace(record.method, options={}, ratio=None, schedule=None),
    )


def test_a_run_that_failed_early_joins_the_group_it_does_not_contradict():
    done, lost = example(), failed_early()
    assert ids(group([lost, done])) == [{lost.run_id, done.run_id}]
    assert len(group([done, failed_early(model="deit_s")])) == 2
    assert len(group([done, failed_early(limit=None)])) == 2
    assert len(group([failed_early()])) == 1


def test_a_failure_that_was_made_good_is_left_out():
    lost = failed_early(measure="full", started="2026-01-01T00:00:00+00:00")
    later = example("tome", started="2026-01-02T00:00:00+00:00")
    earlier = example("tome", started="2025-01-02T00:00:00+00:00")
    assert group([lost, later]) == [[later]]
    assert len(group([lost, earlier])[0]) == 2
    assert len(group([lost, dataclasses.replace(later, seed=3)])[0]) == 2
    assert len(group([lost, example("tome", 0.95, started=later.started)])[0]) == 2


def test_baseline_is_the_unmerged_run_of_the_same_seed():
    zero, one = example("none", None, seed=0), example("none", None, seed=1)
    assert baseline(example(seed=1), [zero, one]) is one
    assert baseline(example(seed=7), [one, zero]) is zero
    assert baseline(example(), [example("tome"), failed("none")]) is None


def test_labels_name_only_what_differs():
    plain, half = example(), example(options={"margin": 0.9, "alpha": 0.5})
    tome = example("tome", options={"prop_attn": True})
    names = labels([plain, half, tome])
    assert names[plain.run_id] == "pitome (alpha=1)"
    assert names[half.run_id] == "pitome (alpha=0.5)"
    assert names[tome.run_id] == "tome"
    assert labels([plain, example("pitome", 0.95)])[plain.run_id] == "pitome"
    seeds = [example("random", seed=0), example("random", seed=1)]
    assert set(labels(seeds).values()) == {"random (seed 0)", "random (seed 1)"}


def test_labels_of_runs_without_options_yet():
    done, lost = example("tome", 0.95), failed_early()
    assert labels([done, lost]) == {done.run_id: "tome", lost.run_id: "tome"}


@pytest.mark.parametrize(
    ("asked", "ratio", "text"),
    [
        ({"ratio": 0.925}, 0.925, "0.925"),
        ({"ratio": 0.3}, 0.5, "0.3, applied 0.5"),
        ({"ratio": [0.9, 0.8]}, None, "per layer"),
        ({"r": 16}, None, "r 16"),
        ({"r": 16, "inflection": -0.5}, None, "r 16, inflection -0.5"),
        ({"r": [16, 0]}, None, "r per layer"),
        ({"flops": 0.8}, 0.93127, "FLOPs 0.8, ratio 0.9313"),
        ({"ratio": 0.9, "layers": "first3"}, 0.9, "0.9, layers first3"),
        ({"ratio": 0.9, "layers": [0, 1]}, 0.9, "0.9, layers [0, 1]"),
        ({}, None, "own schedule"),
    ],
)
def test_setting(asked, ratio, text):
    record = example()
    method = dataclasses.replace(record.method, asked=asked, ratio=ratio)
    assert setting(dataclasses.replace(record, method=method)) == text


def test_the_unmerged_model_has_no_setting():
    record = example("none", None)
    method = dataclasses.replace(record.method, asked={"ratio": 0.9})
    assert setting(dataclasses.replace(record, method=method)) == "-"
