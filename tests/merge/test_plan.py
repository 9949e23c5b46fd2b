"""`Plan` on a plan small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch

from pitome.merge.plan import Plan, cosine, keep_all, rank
from tests.merge.support import make_tokens

X = torch.tensor([[[1.0, 0.0], [2.0, 4.0], [3.0, 8.0], [5.0, 12.0], [7.0, 0.0]]])
# Tokens 0, 3, 1 stay (in this order); 2 joins token 1, 4 is dropped.
PLAN = Plan(
    kept=torch.tensor([[0, 3, 1]]),
    source=torch.tensor([[2, 4]]),
    target=torch.tensor([[2, -1]]),
)


def test_counts_and_assignment():
    assert (PLAN.n_in, PLAN.n_out) == (5, 3)
    assert PLAN.assignment().tolist() == [[0, 2, 2, 1, -1]]


def test_plain_mean():
    assert PLAN.apply(X).tolist() == [[[1, 0], [5, 12], [2.5, 6]]]


def test_weighted_mean_and_scale():
    weight = torch.tensor([[1.0, 3.0, 1.0, 2.0, 9.0]])
    plan = Plan(PLAN.kept, PLAN.source, PLAN.target, weight=weight, scale=torch.tensor([[1.0, 2.0, 10.0]]))
    assert plan.apply(X).tolist() == [[[1, 0], [10, 24], [22.5, 50]]]


def test_a_group_without_weight_keeps_what_it_starts_from():
    plan = Plan(PLAN.kept, PLAN.source, PLAN.target, weight=torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0]]))
    assert plan.apply(X).tolist() == [[[1, 0], [5, 12], [2, 4]]]


def test_sizes_with_and_without_mass():
    size = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    assert PLAN.sizes(size).tolist() == [[1, 4, 5]]
    plan = Plan(PLAN.kept, PLAN.source, PLAN.target, mass=torch.tensor([[1.0, 1.0, 0.5, 1.0, 1.0]]))
    assert plan.sizes(size).tolist() == [[1, 4, 3.5]]


def test_trace_follows_two_layers():
    first = PLAN.trace(torch.eye(5)[None])
    assert first.tolist() == [[[1, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 1, 1, 0, 0]]]
    second = Plan(torch.tensor([[0, 1]]), torch.tensor([[2]]), torch.tensor([[1]]))
    assert second.trace(first).tolist() == [[[1, 0, 0, 0, 0], [0, 1, 1, 1, 0]]]


def test_unmerge_gives_every_token_the_row_of_its_group():
    rows = torch.tensor([[[1.0], [2.0], [3.0]]])
    assert PLAN.unmerge(rows).tolist() == [[[1], [3], [3], [2], [0]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_features_keep_their_type_and_half_precision_averages_in_float32(dtype):
    # 2049 ones: their sum is not representable in float16 steps of 1, their mean is exactly 1.
    n = 4097
    rows = torch.arange(n)[None]
    plan = Plan(rows[:, :1], rows[:, 1:], torch.zeros(1, n - 1, dtype=torch.long))
    out = plan.apply(torch.ones(1, n, 1, dtype=dtype))
    assert out.dtype == dtype
    assert out.item() == 1


def test_keep_all_changes_nothing():
    tokens = make_tokens(7, batch=3)
    plan = keep_all(tokens)
    assert torch.equal(plan.apply(tokens.x), tokens.x)
    assert torch.equal(plan.sizes(tokens.size), tokens.size)


def test_gradients_reach_features_and_weights():
    x = X.double().requires_grad_()
    weight = torch.rand(1, 5, dtype=torch.float64).add(0.5).requires_grad_()
    scale = torch.rand(1, 3, dtype=torch.float64).requires_grad_()

    def merge(x, weight, scale):
        return Plan(PLAN.kept, PLAN.source, PLAN.target, weight=weight, scale=scale).apply(x)

    assert torch.autograd.gradcheck(merge, (x, weight, scale))


def test_rank_is_descending_and_keeps_the_order_of_ties():
    assert rank(torch.tensor([[1.0, 3.0, 1.0, 3.0, 2.0]])).tolist() == [[1, 3, 4, 0, 2]]


def test_cosine_of_a_zero_row_is_zero():
    unit = cosine(torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]))
    torch.testing.assert_close(unit, torch.tensor([[[0.6, 0.8], [0.0, 0.0]]]))
