"""Batches with padding: every sample merges as if it were alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pitome.merge import registry
from pitome.merge.padding import plan_alone, real_tokens, removals
from pitome.merge.plan import Tokens
from pitome.merge.schedule import build_schedule
from tests.merge.support import DEPTH, make_tokens

RATIOS = (0.5, 0.6, 0.75, 0.8, 0.9, 0.925, 1.0)
# Every method that takes a batch with padding, with the options that change how it does.
CASES = [
    ("tome", {}),
    ("tome", {"weighted": False}),
    ("tofu", {}),
    ("tofu", {"fuse": "mean", "prune_share": 0.25}),
    ("random", {"seed": 3}),
    ("stride", {}),
    ("diffrate", {}),
    ("diffrate", {"prune_kept": [12, 9, 7, 6], "merge_kept": [10, 8, 6, 5]}),
    *(
        ("pitome", {"energy": energy, "split": split, "protect": protect, "margin_slope": 0.25})
        for energy, split, protect in (
            ("paper", "alternate", "all"),
            ("paper", "high_low", "none"),
            ("elu", "alternate", "none"),
            ("gaussian", "high_low", "first_half"),
            ("paper", "random", "all"),
            ("paper", "random", "none"),
        )
    ),
    ("pitome", {"rank_by": "cls_attention"}),
    ("pitome", {"rank_by": "mean_attention", "protect": "second_half"}),
]


def padded(tokens: Tokens, real: torch.Tensor, remove: torch.Tensor, spare: int) -> Tokens:
    n = tokens.x.shape[1]
    padding = torch.arange(n) >= real[:, None]
    rows = min(int((real - remove).max()) + spare, n - int(remove.max()))
    return replace(tokens, padding=padding, size=tokens.size.masked_fill(padding, 0), rows=rows)


def test_every_method_of_this_project_knows_padding():
    rules = {name: registry.get(name).padding for name in registry.names()}
    assert {name for name, rule in rules.items() if rule == "merged"} == {
        name for name in rules if name.endswith("_repo")
    }
    assert {name for name, _ in CASES} == {name for name, rule in rules.items() if rule == "batch"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
@settings(max_examples=25, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_a_batch_with_padding_equals_its_samples_alone(case, data):
    name, values = case
    method = registry.get(name)
    options = method.build_options(values)
    protected, batch = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    n = data.draw(st.integers(protected + 1, 24))
    real = torch.tensor([data.draw(st.integers(protected, n)) for _ in range(batch)])
    layer, seed = data.draw(st.integers(0, DEPTH - 1)), data.draw(st.integers(0, 10**6))
    if method.kept(options) is None:
        ratio = data.draw(st.sampled_from(RATIOS))
        counts = [method.count(t, protected, ratio, layer) for t in real.tolist()]
        remove = torch.tensor(counts)
    else:
        remove = (real - method.kept(options)[layer]).clamp_min(0)
    tokens = make_tokens(n, batch=batch, protected=protected, layer=layer, seed=seed, dtype=torch.float64)
    tokens = padded(tokens, real, remove, spare=data.draw(st.integers(0, 2)))

    together = method.plan(tokens, remove, options)
    alone = plan_alone(lambda sample, k: method.plan(sample, k, options), tokens, remove)

    out, want = together.apply(tokens.x), alone.apply(tokens.x)
    assert out.isfinite().all()
    assert together.n_out == alone.n_out == tokens.rows
    torch.testing.assert_close(together.sizes(tokens.size), alone.sizes(tokens.size))
    for i, left in enumerate((real - remove).tolist()):
        assert torch.equal(together.kept[i, :left], alone.kept[i, :left])
        assert torch.equal(together.assignment()[i, : real[i]], alone.assignment()[i, : real[i]])
        torch.testing.assert_close(out[i, :left], want[i, :left])
        # What follows is padding, and nothing of it in the sample's own rows.
        assert tokens.padding[i, together.kept[i, left:]].all()
    own = torch.eye(n, dtype=torch.float64).expand(batch, -1, -1)
    mixed = together.trace(own * tokens.padding[:, None, :])
    for i, left in enumerate((real - remove).tolist()):
        assert mixed[i, :left].sum() == 0


@settings(max_examples=25, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_what_stands_at_padding_does_not_matter(data):
    name, values = data.draw(st.sampled_from(CASES))
    method = registry.get(name)
    options = method.build_options(values)
    real = torch.tensor([13, 5, 9])
    tokens = make_tokens(16, batch=3, seed=data.draw(st.integers(0, 99)))
    remove = (
        torch.tensor([method.count(t, 1, 0.7, 0) for t in real.tolist()])
        if method.kept(options) is None
        else (real - method.kept(options)[0]).clamp_min(0)
    )
    tokens = padded(tokens, real, remove, 0)
    huge = torch.where(tokens.padding[..., None], 1e4, 1.0)
    other = replace(
        tokens,
        x=tokens.x * huge,
        metric=-tokens.metric * huge * huge.sign(),
        cls_attention=tokens.cls_attention.masked_fill(tokens.padding, 1.0),
    )
    other = replace(other, metric=torch.where(tokens.padding[..., None], other.metric, tokens.metric))
    first, second = (method.plan(t, remove, options) for t in (tokens, other))
    assert torch.equal(first.assignment(), second.assignment())
    for i, left in enumerate((real - remove).tolist()):
        assert torch.equal(first.apply(tokens.x)[i, :left], second.apply(other.x)[i, :left])


@pytest.mark.parametrize("protected", [0, 1, 2])
@pytest.mark.parametrize("ratio", [*RATIOS, 1 / 3, 0.7, 0.95])
def test_removals_are_those_of_the_schedule(ratio, protected):
    method, real = registry.get("tome"), torch.arange(600)
    schedule = build_schedule(2, ratio=ratio)
    want = [schedule.remove(1, n, protected, method.count, method.limit) for n in range(600)]
    assert removals(schedule, 1, real, protected, method).tolist() == want


@pytest.mark.parametrize("name", ["tome", "tome_repo", "none"])
def test_removals_of_other_schedules_and_counts(name):
    method, real = registry.get(name), torch.arange(1, 30)
    for schedule in (
        build_schedule(2, r=[3, 7]),
        build_schedule(2, ratio=0.8),
        replace(build_schedule(2, r=1), removals=None, kept=(9, 4)),
    ):
        want = [schedule.remove(1, n, 1, method.count, method.limit) for n in range(1, 30)]
        assert removals(schedule, 1, real, 1, method).tolist() == want


def test_real_tokens():
    assert real_tokens(torch.tensor([[False, False, True], [False, False, False]])).tolist() == [2, 3]


def test_a_schedule_below_the_protected_tokens_is_refused():
    method = registry.get("diffrate")
    options = method.build_options({"merge_kept": [1]})
    real = torch.tensor([6, 4])
    tokens = padded(make_tokens(6, protected=2), real, real - 1, 0)
    with pytest.raises(ValueError, match="2 are protected"):
        method.plan(tokens, real - 1, options)


def test_gradients_with_padding():
    real, remove = torch.tensor([7, 5]), torch.tensor([2, 1])
    tokens = padded(make_tokens(8, dtype=torch.float64), real, remove, 0)
    for name in ("tome", "pitome", "tofu"):
        method = registry.get(name)

        def merge(x, size, method=method):
            plan = method.plan(replace(tokens, x=x, size=size), remove, method.options())
            return plan.apply(x)[:, :4], plan.sizes(size)

        inputs = tokens.x.clone().requires_grad_(), tokens.size.clone().requires_grad_()
        assert torch.autograd.gradcheck(merge, inputs)
