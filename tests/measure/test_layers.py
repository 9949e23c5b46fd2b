"""Where the time goes, layer by layer, told by a clock that ticks once per reading."""

from __future__ import annotations

import itertools

import pytest
import torch

import pitome
from pitome.errors import UsageError
from pitome.measure.layers import layer_times
from tests.adapters.tiny import images, vit


def ticks():
    return map(float, itertools.count()).__next__


@pytest.mark.parametrize("method", ["none", "pitome", "tome", "tofu", "diffrate"])
def test_every_part_of_every_layer_is_timed(method):
    model = vit()
    with pitome.patch(model, method, ratio=0.75) as patched:
        times = layer_times(model, images(model), repeats=3, clock=ticks())
        assert [one.tokens for one in times] == patched.tokens[:-1]
    merging = method != "none"
    for one in times:
        # start, attended, (before and after the plan,) merged, end: one tick from each to the next
        assert (one.attention, one.plan, one.mlp) == (1, float(merging), 1)
        assert one.merge == (2 if merging else 1) and one.total == (5 if merging else 3)


def test_afterwards_the_model_computes_and_removes_as_before():
    model = vit()
    x = images(model)
    want = model(x)
    with torch.no_grad(), pitome.patch(model, "pitome", ratio=0.75):
        merged = model(x)
        layer_times(model, x, repeats=1, clock=ticks())
        assert torch.equal(model(x), merged)
        assert all(not block._forward_hooks and not block._forward_pre_hooks for block in model.blocks)
        assert all(vars(block._pitome).keys().isdisjoint({"merge", "decide"}) for block in model.blocks)
    assert torch.equal(model(x), want)


def test_a_model_that_is_not_patched():
    with pytest.raises(UsageError, match="is not patched; patch it first"):
        layer_times(vit(), torch.zeros(1))
