"""`diffrate`: ranking, pruning, merging, and the sizes it hands on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pitome.errors import UsageError
from pitome.merge import registry
from pitome.merge.fast_path import reference_path
from tests.merge.support import make_tokens

BARE, REPO = registry.get("diffrate"), registry.get("diffrate_repo")


@pytest.mark.parametrize("protected", [1, 2])
def test_tokens_of_least_class_attention_join_their_most_similar_token(protected):
    tokens = make_tokens(12, batch=3, protected=protected)
    plan = BARE.plan(tokens, 4, BARE.options())
    for image in range(3):
        attention = tokens.cls_attention[image]
        ranked = sorted(range(protected, 12), key=lambda i: -float(attention[i]))
        stay, gone = ranked[: 8 - protected], ranked[8 - protected :]
        assert plan.kept[image].tolist() == [*range(protected), *stay]
        assert plan.source[image].tolist() == gone
        unit = torch.nn.functional.normalize(tokens.metric[image], dim=-1)
        for token, row in zip(gone, plan.target[image].tolist(), strict=True):
            assert plan.kept[image, row] == max(stay, key=lambda j, i=token: float(unit[i] @ unit[j]))


@pytest.mark.parametrize(("remove", "rows"), [(4, 24), (10, 24 - 1 - 10)])
def test_few_rows_are_compared_with_all_and_many_with_those_that_stay(remove, rows):
    """Whichever is faster; the plan is the same."""
    tokens = make_tokens(24)
    with FlopCounterMode(display=False) as counter:
        plan = BARE.plan(tokens, remove, BARE.options())
    assert counter.get_total_flops() == 2 * tokens.metric[..., 0, :].numel() * remove * rows
    with reference_path():
        plain = BARE.plan(tokens, remove, BARE.options())
    assert torch.equal(plan.kept, plain.kept) and torch.equal(plan.target, plain.target)
    torch.testing.assert_close(plan.mass, plain.mass)


def test_a_uniform_ratio_merges_only():
    assert (BARE.plan(make_tokens(12), 5, BARE.options()).target >= 0).all()


@pytest.mark.parametrize("method", [BARE, REPO])
def test_lists_say_how_many_are_pruned_before_the_rest_merges(method):
    values = {"prune_kept": [12, 10, 20], "merge_kept": [9, 10, 9]}
    options = method.resolve(method.build_options(values), "deit", 3)
    for layer, dropped in ((0, 0), (1, 2), (2, 0)):
        tokens = make_tokens(12, layer=layer)
        plan = method.plan(tokens, 12 - values["merge_kept"][layer], options)
        assert ((plan.target == -1).sum(dim=1) == dropped).all()
        # The tokens of least attention are the ones that are dropped.
        assert (plan.target[:, -dropped:] == -1).all() or dropped == 0


def test_one_list_alone_merges_or_prunes():
    tokens = make_tokens(12)
    merge = BARE.build_options({"merge_kept": [9]})
    prune = BARE.build_options({"prune_kept": [9]})
    assert BARE.kept(merge) == BARE.kept(prune) == [9]
    assert (BARE.plan(tokens, 3, merge).target >= 0).all()
    assert (BARE.plan(tokens, 3, prune).target == -1).all()
    assert BARE.kept(BARE.options()) is None


# Golden cases deit_a-diffrate-r750 and mae_a-diffrate-r750: prune_kept_num, merge_kept_num.
@pytest.mark.parametrize(
    ("family", "n", "prune_kept", "merge_kept"),
    [
        ("deit", 37, [36, 27, 21, 16], [27, 21, 16, 12]),
        ("mae", 26, [24, 18, 14, 11], [19, 15, 12, 9]),
    ],
)
def test_kept_numbers_that_the_preset_derives_from_a_ratio(family, n, prune_kept, merge_kept):
    options = REPO.resolve(REPO.options(), family, 4)
    for layer in range(4):
        tokens = make_tokens(n, layer=layer)
        plan = REPO.plan(tokens, REPO.count(n, 1, 0.75, layer), options)
        assert plan.n_out == merge_kept[layer]
        assert ((plan.target == -1).sum(dim=1) == n - prune_kept[layer]).all()
        n = plan.n_out


def test_sizes_never_shrink_except_in_the_preset():
    tokens = make_tokens(6, batch=1)
    # Every source is opposite to every destination.
    metric = torch.ones(1, 6, 5)
    metric[0, tokens.cls_attention[0, 1:].argsort()[:2] + 1] = -1
    tokens = replace(tokens, metric=metric)
    repo = REPO.plan(tokens, 2, REPO.resolve(REPO.build_options({"merge_kept": [4]}), "deit", 1))
    bare = BARE.plan(tokens, 2, BARE.options())
    own = tokens.size.gather(1, bare.kept)
    assert torch.equal(bare.sizes(tokens.size), own)
    assert repo.sizes(tokens.size).sum() == pytest.approx(
        float(own.sum() - tokens.size.gather(1, repo.source).sum())
    )


def test_gradients_reach_the_sizes_through_the_similarity():
    tokens = make_tokens(8, dtype=torch.float64)
    metric = tokens.metric.clone().requires_grad_()

    def sizes(metric):
        return BARE.plan(replace(tokens, metric=metric), 3, BARE.options()).sizes(tokens.size)

    assert torch.autograd.gradcheck(sizes, (metric,))
    sizes(metric).sum().backward()
    assert metric.grad.abs().sum() > 0


def test_everything_but_the_class_token_can_be_pruned():
    tokens = make_tokens(5)
    plan = BARE.plan(tokens, 4, BARE.build_options({"prune_kept": [1]}))
    assert torch.equal(plan.apply(tokens.x), tokens.x[:, :1])


def test_fewer_tokens_than_are_protected():
    with pytest.raises(UsageError, match="keep at least 2"):
        BARE.plan(make_tokens(5, protected=2), 4, BARE.build_options({"prune_kept": [1]}))


def test_the_preset_is_another_on_clip():
    """Its first layer starts from all tokens, not from the patches, and prunes none of them."""
    clip = REPO.of_family("clip")
    assert REPO.of_family("deit") == replace(REPO, family="deit")
    # 37 tokens at 0.75: 9 go, or by the number of patches one and 9 of 36
    assert (clip.count(37, 1, 0.75, 0), REPO.count(37, 1, 0.75, 0)) == (9, 10)
    assert clip.count(28, 1, 0.75, 1) == REPO.count(28, 1, 0.75, 1) == 7
    assert clip.count(4, 3, 0.5, 0) == 1, "protected tokens stay"
    for layer in (0, 1):
        tokens = make_tokens(12, layer=layer)
        for method, family in ((clip, "clip"), (REPO, "deit")):
            plan = method.plan(tokens, 4, method.resolve(method.options(), family, 2))
            assert ((plan.target == -1).sum(dim=1) == (method is REPO and layer == 0)).all()
