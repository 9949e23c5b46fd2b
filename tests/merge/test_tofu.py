"""`tofu`: what early blocks drop and what later ones fuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pitome.merge import registry
from tests.merge.support import dense, make_tokens

TOFU = registry.get("tofu")


@pytest.mark.parametrize(
    ("share", "drops"), [(0.5, [1, 1, 0, 0]), (0.0, [0, 0, 0, 0]), (1.0, [1, 1, 1, 1]), (0.3, [1, 1, 0, 0])]
)
def test_which_blocks_drop_the_source(share, drops):
    options = TOFU.build_options({"prune_share": share})
    for layer, drop in enumerate(drops):
        tokens = make_tokens(9, layer=layer)
        plan = TOFU.plan(tokens, 3, options)
        assert (plan.target == -1).all() == bool(drop)
        if drop:
            assert torch.equal(
                plan.apply(tokens.x), tokens.x.gather(1, plan.kept[..., None].expand(-1, -1, 6))
            )


def test_a_fused_token_has_the_direction_of_the_mean_and_the_largest_norm():
    tokens = make_tokens(13, layer=3, dtype=torch.float64)
    plan = TOFU.plan(tokens, 5, TOFU.options())
    out, member = plan.apply(tokens.x), dense(plan)
    for image in range(2):
        for row in range(plan.n_out):
            x = tokens.x[image][member[image, row] > 0]
            mean = x.mean(dim=0)
            torch.testing.assert_close(out[image, row], mean / mean.norm() * x.norm(dim=-1).max())
    assert not torch.allclose(out, TOFU.plan(tokens, 5, TOFU.build_options({"fuse": "mean"})).apply(tokens.x))


def test_the_presets_fusion_divides_by_the_norm_of_the_destination():
    method = registry.get("tofu_repo")
    tokens = make_tokens(13, layer=3, dtype=torch.float64)
    plan = method.plan(tokens, 5, method.resolve(method.options(), "deit", 4))
    out, member = plan.apply(tokens.x), dense(plan)
    for image in range(2):
        for row in range(plan.n_out):
            x = tokens.x[image][member[image, row] > 0]
            own = tokens.x[image, plan.kept[image, row]]
            torch.testing.assert_close(out[image, row], x.mean(dim=0) / own.norm() * x.norm(dim=-1).max())


def test_opposite_and_zero_tokens_stay_finite():
    tokens = make_tokens(8, batch=1, layer=3)
    for x in (torch.zeros(1, 8, 6), torch.ones(1, 8, 6) * torch.tensor([1.0, -1.0]).repeat(4)[:, None]):
        for name in ("tofu", "tofu_repo"):
            method = registry.get(name)
            options = method.resolve(method.options(), "deit", 4)
            assert method.plan(replace(tokens, x=x), 3, options).apply(x).isfinite().all()


# `params.strategies` of the golden model cases.
@pytest.mark.parametrize(
    ("family", "depth", "strategies"),
    [
        ("deit", 4, "prune prune prune tofu"),
        ("mae", 4, "prune prune prune mean"),
        ("clip", 4, "prune prune prune prune"),
        ("blip", 5, "prune prune prune prune tofu"),
        ("eva", 4, "prune prune prune tofu"),
        ("llava", 16, "prune " * 9 + "tofu " * 7),
        ("bert", 4, "prune prune prune prune"),
        ("distilbert", 4, "prune prune prune prune"),
    ],
)
def test_strategies_of_the_families(family, depth, strategies):
    method = registry.get("tofu_repo")
    options = method.resolve(method.options(), family, depth)
    found = ["prune" if layer < options.prune_layers else options.fuse for layer in range(depth)]
    assert found == strategies.split()
