import dataclasses

import pytest

from pitome.records.groups import group
from pitome.records.settings import point, point_name, setting
from tests.records.examples import example


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


def test_a_point_is_what_was_asked_not_what_was_applied():
    """Each method reaches a share of FLOPs by a ratio of its own."""
    a, b = (example(m, q, asked={"flops": 0.8}) for m, q in (("pitome", 0.94), ("tome", 0.93)))
    assert setting(a) == "FLOPs 0.8, ratio 0.94" and setting(b) == "FLOPs 0.8, ratio 0.93"
    assert point(a) == point(b) and point_name(a) == point_name(b) == "FLOPs 0.8"
    assert point(example("tome", asked={"ratio": 1})) == point(example("pitome", asked={"ratio": 1.0}))
    own = [example(m, q, asked={}) for m, q in (("diffrate", 0.9), ("tome", 0.9), ("tome", 0.8))]
    assert point(own[0]) == point(own[1]) != point(own[2])  # by what is done, there being nothing asked
    others = [{"flops": 0.8, "layers": "first3"}, {"flops": 0.6}, {"ratio": 0.8}, {"r": 8}, {}]
    assert len({point(a), *(point(example(asked=asked)) for asked in others)}) == 6
    assert point(example("none", None)) == "" and point_name(example("none", None)) == "-"


def test_order_puts_equal_settings_side_by_side_and_controls_last():
    asked = [{"flops": 0.6}, {"r": 8}, {"ratio": 0.9}, {"flops": 0.8}, {"ratio": 0.95}, {"r": 4}]
    names = ("tome", "stride", "random", "pitome")
    # applied ratios that would mix the settings up
    runs = [
        example(m, 0.99 - 0.01 * i - 0.002 * j, asked=a)
        for i, a in enumerate(asked)
        for j, m in enumerate(names)
    ]
    (members,) = group([*runs, example("none", None)])
    assert members[0].method.name == "none"
    assert [m.method.asked for m in members[1::4]] == [
        {"ratio": 0.95}, {"ratio": 0.9}, {"r": 4}, {"r": 8}, {"flops": 0.8}, {"flops": 0.6}
    ]  # fmt: skip
    for i in range(1, len(members), 4):
        assert [m.method.name for m in members[i : i + 4]] == ["pitome", "tome", "random", "stride"]
        assert len({point(m) for m in members[i : i + 4]}) == 1
