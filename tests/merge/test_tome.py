"""`tome` against a search over all pairs in plain Python."""

from __future__ import annotations

import pytest
import torch

from pitome.merge import registry
from tests.merge.support import groups, make_tokens


def matching(metric, protected, k):
    """Bipartite soft matching of one image, as a list of (source, destination)."""
    unit = torch.nn.functional.normalize(metric, dim=-1)
    a = [i for i in range(0, len(metric), 2) if i >= protected]
    b = [j for j in range(1, len(metric), 2) if j >= protected]
    best = [(i, max(b, key=lambda j, i=i: float(unit[i] @ unit[j]))) for i in a] if b else []
    return sorted(best, key=lambda pair: -float(unit[pair[0]] @ unit[pair[1]]))[:k]


@pytest.mark.parametrize("protected", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("n", [7, 8, 19])
def test_every_pair(n, protected):
    tokens = make_tokens(n, batch=3, protected=protected, seed=n, dtype=torch.float64)
    method = registry.get("tome")
    for k in range(method.limit(n, protected) + 1):
        plan = method.plan(tokens, k, method.options())
        found = groups(plan)
        for image in range(3):
            want = {j: {j} for j in range(n)}
            for source, target in matching(tokens.metric[image], protected, k):
                want[target].add(source)
                del want[source]
            assert found[image] == {frozenset(group) for group in want.values()}


def test_a_distillation_token_keeps_its_place():
    tokens = make_tokens(10, protected=2)
    plan = registry.get("tome").plan(tokens, 3, registry.get("tome").options())
    assert plan.kept[:, :2].tolist() == [[0, 1]] * 2
    assert torch.equal(plan.apply(tokens.x)[:, :2], tokens.x[:, :2])


def test_the_preset_merges_the_class_token_of_an_even_sequence_at_one_half():
    tokens = make_tokens(10)
    method = registry.get("tome_repo")
    remove = method.count(10, 1, 0.5, 0)
    plan = method.plan(tokens, remove, method.resolve(method.options(), "deit", 4))
    assert remove == 5
    assert (plan.source == 0).any(dim=1).all()
    assert (plan.assignment()[:, 0] == plan.assignment()[:, 1]).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_preset_on_very_short_sequences(n):
    tokens = make_tokens(n)
    method = registry.get("tome_repo")
    plan = method.plan(tokens, 0, method.resolve(method.options(), "mae", 4))
    assert sorted(plan.kept[0].tolist()) == list(range(n))
