import dataclasses

import pytest

from pitome.records.groups import baseline, digest, group
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


def test_runs_that_train_their_weights_stand_together_by_recipe():
    def trained(seed, **trainer):
        record = example("none", None, seed=seed, mode="train", config={"trainer": {"epochs": 3} | trainer})
        weights = dataclasses.replace(record.weights, sha256=f"{seed:064d}")
        return dataclasses.replace(record, weights=weights)

    assert len(group([trained(0), trained(1)])) == 1
    assert len(group([trained(0), trained(1, epochs=4)])) == 2
    assert len(group([trained(0), dataclasses.replace(trained(1), mode="test")])) == 2


def test_an_option_of_training_that_came_later_and_is_off_parts_no_group():
    old = example("none", None, mode="train", config={"trainer": {"epochs": 3}})
    later = {"epochs": 3, "ema": 0.0, "lightning": {}, "curriculum": None, "flip": False}
    new = example("pitome", mode="train", config={"trainer": later})
    assert len(group([old, new])) == 1
    assert len(group([old, example("pitome", mode="train", config={"trainer": later | {"ema": 0.9}})])) == 2


def test_runs_of_other_settings_of_the_task_stand_apart():
    one, other = example(), example("tome")
    knn = dataclasses.replace(other, identity={**other.identity, "settings": {"head": "knn", "k": 20}})
    assert len(group([one, other])) == 1
    assert len(group([one, knn])) == 2
