"""Every schedule that a search tries can be merged by its method and meets the target of cost."""

from __future__ import annotations

import itertools

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pitome
from pitome.errors import UsageError
from pitome.merge import registry
from pitome.search.probe import Probe
from pitome.search.space import Space, options_of
from tests.search.support import options_for, space_for, tiny_probe

METHODS = sorted(set(registry.names()) - {"none", "mctf_repo"})  # the last is not for DeiT


with torch.device("meta"):
    MODEL = timm.create_model("deit_tiny_patch16_224")


def deit(method: str) -> Space:
    return space_for(Probe(MODEL, [], MODEL, "kl"), method)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_meets_the_target(method: str) -> None:
    """And takes the schedule."""
    space = deit(method)
    options = options_for(space)
    for target, logs in itertools.product((0.8, 0.65), ([0.0] * 12, [1.5 - 0.25 * i for i in range(12)])):
        amount = space.project(target, logs, options)
        assert target - 0.01 < space.share(amount.rule(), options) <= target
        with pitome.patch(MODEL, method, **amount.arguments()) as handle:
            assert handle.schedule.kept == amount.schedule


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-6, 6), min_size=12, max_size=12), st.floats(0.45, 0.95))
def test_any_point_meets_the_target(logs: list[float], target: float) -> None:
    space = deit("tome")
    options = options_for(space)
    amount = space.project(target, logs, options)
    kept = [197, *(amount.schedule or ())]
    assert target - 0.01 < space.share(amount.rule(), options) <= target
    assert all(0 <= a - b <= (a - 1) // 2 for a, b in itertools.pairwise(kept))


def test_shares_instead_of_counts() -> None:
    space = space_for(tiny_probe(), "tome", by_ratio=True)
    options = options_for(space)
    amount = space.project(0.7, [1.0, 0.0, -1.0, 0.0], options)
    assert amount.schedule is None and amount.ratio is not None
    assert amount.ratio[0] < amount.ratio[1] < amount.ratio[2] and min(amount.ratio) >= 0.5
    assert space.share(amount.rule(), options) <= 0.7


def test_the_uniform_schedule_is_that_of_flops() -> None:
    probe = tiny_probe()
    space = space_for(probe, "pitome")
    amount = space.uniform(0.7, options_for(space))
    with pitome.patch(probe.model, "pitome", flops=0.7) as handle:
        assert space.cost(handle.schedule, handle.options).tokens[1:] == amount.schedule


def test_a_target_out_of_reach_names_the_least_share() -> None:
    space = deit("tome")
    options = options_for(space)
    with pytest.raises(UsageError, match=r"cannot be reached with merge=tome.* leaves 0\.\d+ of") as error:
        space.project(0.05, [0.0] * 12, options)
    least = float(str(error.value).partition("leaves ")[2].split()[0])
    assert space.share(space.project(least, [0.0] * 12, options).rule(), options) <= least


def test_options_that_can_be_searched() -> None:
    pitome_ = registry.get("pitome")
    found = {o.name: o for o in options_of(pitome_, ["protect", "margin", "energy", "prop_attn"])}
    assert found["prop_attn"].choices == (True, False) and "elu" in found["energy"].choices
    assert (found["margin"].low, found["margin"].high) == (0.0, 0.9)


@pytest.mark.parametrize(
    ("name", "says"),
    [("protct", "did you mean protect"), ("split_seed", "has no limits"), ("protected", "has no limits")],
)
def test_options_that_cannot(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        options_of(registry.get("pitome"), [name])
