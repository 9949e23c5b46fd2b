"""DCT: its matrix against the sums of its definition, what a filter keeps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pitome.merge import registry
from pitome.merge.plan import Plan
from tests.merge.support import make_tokens


def cosine_basis(n: int) -> Tensor:
    """The orthonormal DCT-II of length n, [n, n], entry by entry."""
    rows = []
    for k in range(n):
        scale = math.sqrt((1 if k == 0 else 2) / n)
        rows.append([scale * math.cos(math.pi * k * (2 * i + 1) / (2 * n)) for i in range(n)])
    return torch.tensor(rows, dtype=torch.float64)


def by_hand(x: Tensor, protected: int, left: int) -> Tensor:
    """Forth, cut and back, one signal at a time: x [B, N, C] -> [B, protected + left, C]."""
    length = x.shape[1] - protected
    forth, back = cosine_basis(length), cosine_basis(left)
    out = x.new_zeros(x.shape[0], protected + left, x.shape[2])
    for image in range(x.shape[0]):
        out[image, :protected] = x[image, :protected]
        for channel in range(x.shape[2]):
            coefficients = [sum(forth[k] * x[image, protected:, channel]) for k in range(left)]
            for i in range(left):
                out[image, protected + i, channel] = sum(c * back[k, i] for k, c in enumerate(coefficients))
    return out


@pytest.mark.parametrize(("n", "protected", "remove"), [(9, 1, 3), (12, 2, 1), (8, 0, 4), (3, 1, 1)])
def test_transcription(n, protected, remove):
    tokens = make_tokens(n, protected=protected, dtype=torch.float64)
    left = n - protected - remove
    want = by_hand(tokens.x, protected, left)
    for name, gain in (("dct_repo", 1.0), ("dct", math.sqrt(left / (n - protected)))):
        method = registry.get(name)
        got = method.plan(tokens, remove, method.options()).apply(tokens.x)
        torch.testing.assert_close(got[:, :protected], tokens.x[:, :protected], atol=0, rtol=0)
        torch.testing.assert_close(got[:, protected:], gain * want[:, protected:])


def test_the_mean_stays_and_a_slow_signal_passes():
    tokens = make_tokens(33, dtype=torch.float64)
    method = registry.get("dct")
    plan = method.plan(tokens, 12, method.options())
    torch.testing.assert_close(plan.apply(tokens.x)[:, 1:].mean(1), tokens.x[:, 1:].mean(1))
    wave = torch.cos(math.pi * 3 * (2 * torch.arange(32, dtype=torch.float64) + 1) / 64)
    out = plan.apply(torch.cat([torch.zeros(1), wave])[None, :, None].double().expand(2, -1, -1))
    shorter = torch.cos(math.pi * 3 * (2 * torch.arange(20, dtype=torch.float64) + 1) / 40)
    torch.testing.assert_close(out[0, 1:, 0], shorter)


def test_rows_count_once_and_hold_every_token():
    tokens = make_tokens(9)
    method = registry.get("dct")
    plan = method.plan(tokens, 3, method.options())
    assert plan.sizes(tokens.size).tolist() == [[1.0] * 6] * 2
    trace = plan.trace(torch.eye(9).expand(2, -1, -1))
    assert torch.equal(trace[:, :1], torch.eye(1, 9).expand(2, -1, -1)) and (trace[:, 1:, 1:] == 1).all()


def test_a_plan_of_groups_as_a_matrix():
    tokens = make_tokens(9, dtype=torch.float64)
    method = registry.get("tome")
    plan = method.plan(tokens, 3, method.options())
    dense = Plan.dense(plan.matrix(torch.float64))
    torch.testing.assert_close(dense.apply(tokens.x), plan.apply(tokens.x))
    assert torch.equal(
        dense.trace(torch.eye(9).expand(2, -1, -1)), plan.trace(torch.eye(9).expand(2, -1, -1))
    )
