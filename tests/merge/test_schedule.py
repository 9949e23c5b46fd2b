"""How many tokens a layer removes."""

from __future__ import annotations

import pytest

from pitome.errors import UsageError
from pitome.merge import registry
from pitome.merge.schedule import (
    Reduction,
    Schedule,
    build_schedule,
    count_all,
    count_unprotected,
    limit_unprotected,
    parse_layers,
)


@pytest.mark.parametrize(
    ("n", "protected", "ratio", "removed"),
    [
        (10, 0, 0.9, 1),  # 10 * (1 - 0.9) is 0.9999..., 10 - 10 * 0.9 is 1
        (11, 1, 0.9, 1),
        (197, 1, 0.925, 14),  # 14.7
        (197, 1, 1.0, 0),
        (10, 1, 0.5, 4),  # 4.5 of 9
        (11, 1, 0.1, 5),  # clamped to one half
        (198, 2, 0.95, 9),  # class and distillation token
        (1, 1, 0.5, 0),
        (2, 1, 0.5, 0),
    ],
)
def test_counts_of_bare_methods(n, protected, ratio, removed):
    assert count_unprotected(n, protected, ratio, 0) == removed
    assert removed <= limit_unprotected(n, protected)


@pytest.mark.parametrize("name", [n for n in registry.names() if not n.endswith("_repo") and n != "none"])
def test_equal_ratio_means_equal_counts_for_every_bare_method(name):
    method = registry.get(name)
    for n in range(1, 40):
        for protected in (0, 1, 2):
            for ratio in (0.5, 0.6, 0.75, 0.9, 0.925, 0.95):
                assert method.count(n, protected, ratio, 3) == count_unprotected(n, protected, ratio, 3)
                assert method.limit(n, protected) == limit_unprotected(n, protected)


@pytest.mark.parametrize(("n", "ratio", "removed"), [(18, 0.5, 9), (17, 0.5, 8), (17, 0.98, 0), (17, 0.2, 9)])
def test_the_repository_counts_all_tokens_up_to_set_a(n, ratio, removed):
    assert count_all(n, 1, ratio, 0) == removed
    assert registry.get("tome_repo").count is count_all
    assert registry.get("tofu_repo").count is count_all


# From the model cases of the golden vectors: tokens in, ratio, tokens left by each layer.
@pytest.mark.parametrize(
    ("n", "ratio", "left"),
    [
        (37, 0.9, [33, 30, 27, 25]),  # deit_a-diffrate-r900
        (37, 0.75, [27, 21, 16, 12]),  # deit_a-diffrate-r750
        (37, 0.6, [22, 14, 9, 6]),  # deit_a-diffrate-r600
        (26, 0.75, [19, 15, 12, 9]),  # mae_a-diffrate-r750
    ],
)
def test_the_repository_counts_patches_in_the_first_layer_of_diffrate(n, ratio, left):
    count, found = registry.get("diffrate_repo").count, []
    for layer in range(4):
        n -= count(n, 1, ratio, layer)
        found.append(n)
    assert found == left


def test_none_removes_nothing():
    method = registry.get("none")
    for schedule in (build_schedule(2, ratio=0.5), build_schedule(2, r=16)):
        assert schedule.remove(0, 197, 1, method.count, method.limit) == 0


def rule(schedule, layer, n=197, protected=1):
    return schedule.remove(layer, n, protected, count_unprotected, limit_unprotected)


def test_ratios_removals_and_kept_numbers():
    assert [rule(build_schedule(3, ratio=[1.0, 0.9, 0.5]), i) for i in range(3)] == [0, 19, 98]
    assert [rule(build_schedule(3, r=[0, 16, 500]), i) for i in range(3)] == [0, 16, 98]
    assert [rule(Schedule(kept=(200, 197, 100)), i) for i in range(3)] == [0, 0, 97]
    assert build_schedule(3, ratio=0.9).depth == Schedule(kept=(1, 2, 3)).depth == 3


def test_a_layer_at_ratio_one_removes_nothing_whatever_the_method_counts():
    schedule = build_schedule(1, ratio=1.0)
    assert schedule.remove(0, 37, 1, registry.get("diffrate_repo").count, limit_unprotected) == 0


# The golden vectors' r schedules (deit_a-tomefb-r5dec, -r3inc, mae_a-tomefb-r3dec).
@pytest.mark.parametrize(
    ("r", "inflection", "removals"),
    [
        (5, -1, (10, 6, 3, 0)),
        (3, 1.0, (0, 2, 4, 6)),
        (3, -1.0, (6, 4, 2, 0)),
        (4, 0, (4, 4, 4, 4)),
        (4, None, (4, 4, 4, 4)),
    ],
)
def test_inflection(r, inflection, removals):
    assert build_schedule(4, r=r, inflection=inflection).removals == removals


# By ToMe's rule (tome/utils.py, parse_r), worked by hand: from int(r (1 - inflection)) to 2 r minus that.
@pytest.mark.parametrize(
    ("depth", "r", "inflection", "removals"),
    [
        (4, 3, 0.5, (1, 2, 3, 5)),  # 1 to 5 in steps of 4/3
        (4, 3, -0.5, (4, 3, 2, 2)),  # 4 to 2 in steps of -2/3
        (5, 1, 0.3, (0, 0, 1, 1, 2)),  # 0 to 2 in steps of 1/2
        (3, 5, 0.1, (4, 5, 6)),
        (3, 5, 0, (5, 5, 5)),
    ],
)
def test_inflection_rounds_as_tome_does(depth, r, inflection, removals):
    assert build_schedule(depth, r=r, inflection=inflection).removals == removals


def test_a_list_shorter_than_the_depth_is_padded_with_zeros():
    assert build_schedule(4, r=[5, 3]).removals == (5, 3, 0, 0)
    assert build_schedule(4, r=[5, 3], layers=[1, 2]).removals == (0, 3, 0, 0)
    assert build_schedule(2, r=[]).removals == (0, 0)


def test_inflection_in_a_model_of_one_layer():
    assert build_schedule(1, r=5, inflection=1).removals == (5,)


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        (None, (0, 1, 2, 3, 4)),
        ("first3", (0, 1, 2)),
        ("last2", (3, 4)),
        ("last9", (0, 1, 2, 3, 4)),
        ("every2", (0, 2, 4)),
        ([4, 1, 1], (1, 4)),
        ([], ()),
    ],
)
def test_layers(layers, chosen):
    assert parse_layers(layers, 5) == chosen
    ratios = build_schedule(5, ratio=0.9, layers=layers).ratios
    assert ratios == tuple(0.9 if i in chosen else 1.0 for i in range(5))


@pytest.mark.parametrize("layers", ["1:3", 63, "first0", "lasts", "some", [5], [-1], [True], ["a"], [1.0]])
def test_layers_that_cannot_be_used(layers):
    with pytest.raises(UsageError) as error:
        parse_layers(layers, 5)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ratio", [0, -1, 1.5, float("nan"), float("inf"), "abc", True, [0.9, 2]])
def test_ratios_that_cannot_be_used(ratio):
    with pytest.raises(UsageError, match="share of tokens a layer keeps"):
        Reduction(ratio=ratio)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"ratio": 0.9, "r": 3},
        {"r": -1},
        {"r": 1.5},
        {"r": True},
        {"r": "abc"},
        {"ratio": [0.9]},
        {"r": [1, 2, 3]},
        {"ratio": [0.9, 2.0]},
        {"ratio": 0.9, "inflection": 1},
        {"r": [1, 2], "inflection": 1},
        {"r": 4, "inflection": 1.5},
        {"r": 4, "inflection": float("nan")},
    ],
)
def test_schedules_that_cannot_be_used(arguments):
    with pytest.raises(UsageError) as error:
        build_schedule(2, **arguments)
    assert "\n" not in str(error.value)
