"""The closed form against sums written out by hand."""

from __future__ import annotations

import dataclasses

import pytest

from pitome.measure.costs import Architecture, LayerCost, closed_form
from pitome.merge.registry import Guarantees, Method, MethodOptions
from pitome.merge.schedule import Schedule, build_schedule, count_unprotected, limit_unprotected


def vit(width, depth, heads, tokens, *, protected=1, patch=16, classes=1000, family="deit"):
    """A ViT of the usual shape: MLP of four widths, class token, square RGB patches."""
    layer = LayerCost(
        attn_token=4 * width * width,
        attn_pair=2 * width,
        mlp_token=8 * width * width,
        metric_dim=width // heads,
        hidden_dim=width,
        heads=heads,
    )
    patches, patch_inputs = tokens - protected, 3 * patch * patch
    return Architecture(
        tokens=tokens,
        protected=protected,
        layers=(layer,) * depth,
        stem=patches * width * patch_inputs,
        head=width * classes,
        patches=patches,
        classes=classes,
        patch_inputs=patch_inputs,
        family=family,
    )


def method(**changes):
    """A method that costs n * dim + remove per plan."""
    base = Method(
        name="test",
        plan=lambda tokens, remove, options: None,
        options=MethodOptions,
        guarantees=Guarantees(),
        source="",
        needs_cls_attention=False,
        count=count_unprotected,
        limit=limit_unprotected,
        macs=lambda n, protected, dim, remove, options: n * dim + remove,
        resolve=lambda options, family, depth: options,
        kept=lambda options: None,
    )
    return dataclasses.replace(base, **changes)


TINY = vit(8, 2, 2, 11, patch=2, classes=5)
HALF = Schedule(ratios=(0.5, 0.5))  # 11 -> 6 -> 4 tokens: 5 of 10, then 2 of 5 are removed


def test_unmerged_is_the_sum_of_its_parts():
    cost = closed_form(TINY)
    assert cost.tokens == (11, 11, 11)
    assert cost.attention_macs == 2 * (4 * 11 * 64 + 2 * 11 * 11 * 8)
    assert cost.mlp_macs == 2 * 8 * 11 * 64
    assert (cost.stem, cost.head, cost.plan_macs) == (10 * 12 * 8, 40, 0)
    assert cost.macs == cost.stem + cost.attention_macs + cost.mlp_macs + cost.head
    assert cost.flops == 2 * cost.macs


def test_attention_is_paid_before_the_merge_and_the_mlp_after():
    cost = closed_form(TINY, HALF, method(), MethodOptions())
    assert cost.tokens == (11, 6, 4)
    assert cost.attention_macs == 4 * (11 + 6) * 64 + 2 * (121 + 36) * 8
    assert cost.mlp_macs == 8 * (6 + 4) * 64
    assert cost.plan_macs == (11 * 4 + 5) + (6 * 4 + 2)
    assert cost.macs == cost.model_macs + cost.plan_macs


def test_after_block_pays_the_whole_block_before_the_merge():
    options = MethodOptions(position="after_block")
    cost = closed_form(TINY, HALF, method(), options)
    assert cost.tokens == (11, 6, 4)
    assert cost.attention_macs == 4 * (11 + 6) * 64 + 2 * (121 + 36) * 8
    assert cost.mlp_macs == 8 * (11 + 6) * 64


def test_metric_on_features_costs_their_width():
    cost = closed_form(TINY, HALF, method(), MethodOptions(metric="hidden"))
    assert cost.plan_macs == (11 * 8 + 5) + (6 * 8 + 2)


def test_class_attention_adds_one_row_per_head():
    with_row = closed_form(TINY, HALF, method(needs_cls_attention=True), MethodOptions())
    without = closed_form(TINY, HALF, method(), MethodOptions())
    assert with_row.plan_macs - without.plan_macs == 2 * 4 * (11 + 6)


def test_own_protected_count_wins():
    cost = closed_form(TINY, HALF, method(), MethodOptions(protected=0))
    assert cost.tokens == (11, 6, 3)  # all 11 count: 5 removed, then 3 of 6


@pytest.mark.parametrize("schedule", [Schedule(ratios=(1.0, 1.0)), Schedule(removals=(0, 0))])
def test_nothing_removed_costs_nothing_more(schedule):
    assert closed_form(TINY, schedule, method(needs_cls_attention=True), MethodOptions()) == closed_form(TINY)


def test_only_chosen_layers_plan():
    schedule = build_schedule(2, ratio=0.5, layers="last1")
    cost = closed_form(TINY, schedule, method(), MethodOptions())
    assert cost.tokens == (11, 11, 6)
    assert cost.plan_macs == 11 * 4 + 5
