"""Rounds of a layer method, as one plan, against the same rounds one after the other."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pitome.merge import registry
from pitome.merge.contract import check_plan
from pitome.merge.plan import Tokens
from pitome.merge.rounds import counts


def tokens_of(n: int, seed: int = 0, batch: int = 2) -> Tokens:
    torch.manual_seed(seed)
    x = torch.randn(batch, n, 6, dtype=torch.float64)
    size = torch.randint(1, 4, (batch, n)).double()
    return Tokens(x=x, metric=x, size=size, protected=0, layer=0, depth=0)


@pytest.mark.parametrize(
    ("n", "remove", "expected"),
    [
        (16, 4, [(16, 4)]),
        (16, 8, [(16, 8)]),
        (16, 9, [(16, 8), (8, 1)]),
        (16, 15, [(16, 8), (8, 4), (4, 2), (2, 1)]),
        (7, 6, [(7, 3), (4, 2), (2, 1)]),
        (5, 0, []),
    ],
)
def test_half_at_most_goes_in_a_round(n: int, remove: int, expected: list[tuple[int, int]]) -> None:
    assert list(counts(n, remove)) == expected


@pytest.mark.parametrize("name", ["pitome", "tome"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("n", "remove"), [(16, 4), (16, 12), (17, 13), (16, 15), (2, 1), (9, 0)])
def test_one_plan_is_its_rounds(name: str, weighted: bool, n: int, remove: int) -> None:
    method, tokens = registry.get(name), tokens_of(n)
    options = method.build_options({"weighted": weighted})
    plan = method.plan(tokens, remove, options)
    check_plan(plan, tokens, remove, name, False)
    assert torch.equal(plan.kept, plan.kept.sort(dim=1).values)

    # As layers do it, from one to the next; a layer at the depth has PiToMe's margin after the tower.
    x, size, members = tokens.x, tokens.size, torch.eye(n).expand(2, -1, -1)
    for _, step in counts(n, remove):
        layer = dataclasses.replace(tokens, x=x, metric=x, size=size, layer=4, depth=4)
        one = method.plan(layer, step, options)
        x, size, members = one.apply(x), one.sizes(size), one.trace(members)
    first = members.argmax(dim=2)  # rows by the sets of tokens they hold, in an order of their own
    order, made = first.argsort(dim=1), plan.trace(torch.eye(n).expand(2, -1, -1))
    own = made.argmax(dim=2).argsort(dim=1)
    for rows, expected in ((plan.apply(tokens.x), x), (made, members), (plan.sizes(tokens.size), size)):
        for image in range(2):
            assert torch.allclose(rows[image, own[image]], expected[image, order[image]], atol=1e-12)


@pytest.mark.parametrize("name", ["pitome", "tome"])
def test_its_cost_is_that_of_its_rounds(name: str) -> None:
    method = registry.get(name)
    options = method.build_options({})
    whole = method.macs(64, 0, 8, 56, options)
    assert whole == sum(method.macs(n, 0, 8, n // 2, options) for n in (64, 32, 16))
