"""`random`: a draw that depends on seed and layer alone, and is uniform."""

from __future__ import annotations

import torch

from pitome.merge import registry
from pitome.merge.methods.random import RandomOptions, _mix
from tests.merge.support import make_tokens

RANDOM = registry.get("random")


def draw(seed=0, layer=0, n=21, remove=6, **changes):
    plan = RANDOM.plan(make_tokens(n, layer=layer, **changes), remove, RandomOptions(seed=seed))
    return plan.assignment()[0].tolist()


def test_the_draw_repeats_and_ignores_features_batch_and_global_state():
    first = draw(seed=3, layer=2)
    torch.manual_seed(1)
    assert draw(seed=3, layer=2) == first
    assert draw(seed=3, layer=2) == draw(seed=3, layer=2, batch=5)
    plan = RANDOM.plan(make_tokens(21, batch=5), 6, RandomOptions())
    assert (plan.assignment() == plan.assignment()[:1]).all()


def test_it_is_pinned():
    """The draw is part of every recorded result of this method."""
    plan = RANDOM.plan(make_tokens(11), 4, RandomOptions(seed=0))
    assert plan.source[0].tolist() == [6, 10, 4, 7]
    assert plan.target[0].tolist() == [1, 6, 5, 2]


def test_seeds_and_layers_differ():
    draws = {tuple(draw(seed=seed, layer=layer)) for seed in range(-2, 8) for layer in range(4)}
    assert len(draws) == 40


def test_sources_and_targets_are_uniform():
    sources, targets, trials = torch.zeros(11), torch.zeros(7), 3000
    tokens = make_tokens(11, batch=1)
    for seed in range(trials):
        plan = RANDOM.plan(tokens, 4, RandomOptions(seed=seed))
        sources[plan.source[0]] += 1
        targets += torch.bincount(plan.target[0], minlength=7)
    assert sources[0] == targets[0] == 0  # the class token
    # Five standard deviations of a binomial count.
    for counts, p, draws in ((sources[1:], 0.4, trials), (targets[1:], 1 / 6, 4 * trials)):
        expected = draws * p
        assert (counts - expected).abs().max() < 5 * (expected * (1 - p)) ** 0.5


def test_the_mixing_is_a_bijection_and_equal_for_tensors_and_numbers():
    values = torch.arange(0, 2**32, 2**17 + 1)
    mixed = _mix(values)
    assert mixed.unique().numel() == values.numel()
    assert mixed.tolist() == [_mix(v) for v in values.tolist()]
    assert mixed.min() >= 0
    assert mixed.max() < 2**32
