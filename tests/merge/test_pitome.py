"""`pitome` against Eq. 3-4 and Algorithm 1 of arXiv 2405.16148, written out in plain Python."""

from __future__ import annotations

import math

import pytest
import torch

from pitome.merge import registry
from pitome.merge.energy import energy
from pitome.merge.methods.pitome import PitomeOptions, _protects
from tests.merge.support import groups, make_tokens


def dot(u, v):
    return sum(a * b for a, b in zip(u, v, strict=True))


def cos(u, v):
    norms = math.sqrt(dot(u, u)) * math.sqrt(dot(v, v))
    return dot(u, v) / norms if norms else 0.0


def f_m(x, m, alpha):
    """Eq. 4."""
    return x if x >= m else alpha * (math.exp(x - m) - 1)


def algorithm_1(x, keys, sizes, k, m, alpha):
    """One image. `x`, `keys`: a list of vectors, the class token first -> features, sizes, groups."""
    tokens = range(1, len(x))
    energies = {}
    for i in tokens:
        total = 0.0
        for j in tokens:
            total += f_m(cos(keys[i], keys[j]), m, alpha)
        energies[i] = total / len(tokens)
    ranked = sorted(tokens, key=lambda i: -energies[i])
    merge, protect = ranked[: 2 * k], ranked[2 * k :]
    a, b = merge[::2], merge[1::2]
    groups = {j: [j] for j in [0, *protect, *b]}
    for i in a:
        partner = max(b, key=lambda j: cos(keys[i], keys[j]))
        groups[partner].append(i)
    features, counts = [], []
    for members in groups.values():
        count = sum(sizes[i] for i in members)
        features.append([sum(sizes[i] * x[i][c] for i in members) / count for c in range(len(x[0]))])
        counts.append(count)
    return features, counts, list(groups.values())


@pytest.mark.parametrize("n", [3, 4, 12, 25])
@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize("alpha", [1.0, 0.5, 2.0])
def test_the_equations_loop_by_loop(n, layer, alpha):
    tokens = make_tokens(n, batch=3, layer=layer, seed=n + layer, dtype=torch.float64)
    method = registry.get("pitome")
    options = method.build_options({"alpha": alpha})
    margin = 0.9 - 0.9 * layer / tokens.depth
    for ratio in (0.5, 0.75, 0.9):
        k = method.count(n, 1, ratio, layer)
        if k == 0:
            continue
        plan = method.plan(tokens, k, options)
        features, sizes = plan.apply(tokens.x), plan.sizes(tokens.size)
        rows = plan.assignment().tolist()
        for image in range(3):
            want = algorithm_1(
                tokens.x[image].tolist(),
                tokens.metric[image].tolist(),
                tokens.size[image].tolist(),
                k,
                margin,
                alpha,
            )
            torch.testing.assert_close(features[image], torch.tensor(want[0], dtype=torch.float64))
            assert sizes[image].tolist() == want[1]
            for row, members in enumerate(want[2]):
                assert [i for i in range(n) if rows[image][i] == row] == sorted(members)


def test_the_three_energies_by_hand():
    similarity = torch.tensor([[[1.0, 0.5], [0.5, 1.0]]], dtype=torch.float64)
    below = 0.5 * (math.exp(0.5 - 0.8) - 1)
    for kind, want in (
        ("paper", (1 + below) / 2),
        ("elu", (0.2 + below) / 2),
        ("gaussian", (1 + math.exp(-0.5 * (0.5 / 0.2) ** 2)) / 2 / (0.2 * math.sqrt(2 * math.pi))),
    ):
        got = energy(similarity, kind, 0.8, 0.5)
        torch.testing.assert_close(got, torch.full((1, 2), want, dtype=torch.float64))


def test_informative_tokens_are_protected_and_redundant_ones_merge():
    # Ten near-copies and four directions of their own: the copies have the highest energy.
    copies = torch.tensor([1.0, 0, 0, 0, 0]).expand(10, 5) + 0.01 * torch.randn(10, 5)
    own = torch.eye(5)[1:] * torch.tensor([1.0, -1, 1, -1])[:, None]
    tokens = make_tokens(15, batch=1)
    tokens.metric[0] = torch.cat([own[:1], copies[:5], own[1:], copies[5:], torch.zeros(1, 5)])[:15]
    tokens.metric[0, 14] = -torch.ones(5)
    for split in ("alternate", "high_low"):
        options = PitomeOptions(split=split, energy="elu", margin=0.5)
        plan = registry.get("pitome").plan(tokens, 4, options)
        assert set(plan.source[0].tolist()) <= {1, 2, 3, 4, 5, 9, 10, 11, 12, 13}
        assert {6, 7, 8, 14} <= set(plan.kept[0].tolist())


def test_high_low_merges_the_upper_half_into_the_lower():
    tokens = make_tokens(13, batch=1, seed=3)
    method = registry.get("pitome")
    alternate = method.plan(tokens, 4, PitomeOptions())
    high_low = method.plan(tokens, 4, PitomeOptions(split="high_low"))
    # Both take part with the same eight tokens, in energy order a0 b0 a1 b1 ...
    a, b = alternate.source[0].tolist(), alternate.kept[0, -4:].tolist()
    ranked = [token for pair in zip(a, b, strict=True) for token in pair]
    assert high_low.source[0].tolist() == ranked[:4]
    assert high_low.kept[0, -4:].tolist() == ranked[4:]


@pytest.mark.parametrize(
    ("protect", "depth", "layers"),
    [
        ("all", 5, [0, 1, 2, 3, 4]),
        ("none", 5, []),
        ("first_half", 4, [0, 1]),
        ("second_half", 4, [2, 3]),
        ("first_half", 5, [0, 1, 2]),  # the MAE of the authors: math.ceil(5 * 0.5) layers are protected
        ("first_half", 1, [0]),
        ("second_half", 1, []),
        ("second_half", 5, [3, 4]),  # deit_distilled_a of the golden vectors: depth 3, layer 2
        ("second_half", 3, [2]),
    ],
)
def test_layers_with_protection(protect, depth, layers):
    assert [layer for layer in range(depth) if _protects(protect, layer, depth)] == layers


def test_plain_mean_and_size_weighted_mean_differ():
    tokens = make_tokens(9)
    method = registry.get("pitome")
    plain = method.plan(tokens, 3, PitomeOptions(weighted=False)).apply(tokens.x)
    assert not torch.allclose(plain, method.plan(tokens, 3, PitomeOptions()).apply(tokens.x))


@pytest.mark.parametrize(
    ("family", "depth", "margins"),
    [
        ("deit", 4, [0.75, 0.5625, 0.375, 0.1875]),
        ("clip", 4, [0.95, 0.7124999999999999, 0.475, 0.23750000000000004]),
        ("blip", 5, [0.9, 0.72, 0.54, 0.36, 0.17999999999999994]),
        ("eva", 4, [0.75, 0.65, 0.55, 0.44999999999999996]),
        ("bert", 4, [0.9, 0.8375, 0.775, 0.7125]),
    ],
)
def test_margins_of_the_families(family, depth, margins):
    """As `params.margins` of the golden model cases, to the last bit."""
    method = registry.get("pitome_repo")
    options = method.resolve(method.options(), family, depth)
    assert [options.margin - options.margin_slope * (i / depth) for i in range(depth)] == margins


def ablation(tokens, image, k, options, b_of):
    """Algorithm 1 with another order of the tokens, or another split: output row of every token.

    b_of: from the 2k tokens that take part, in order, to those that are destinations."""
    n = tokens.x.shape[1]
    if options.rank_by == "cls_attention":
        received = tokens.cls_attention[image].tolist()
    else:
        heads = tokens.attention[image].tolist()
        received = [sum(row[t] for head in heads for row in head) for t in range(n)]
    ranked = sorted(range(1, n), key=lambda t: received[t])
    if options.rank_by == "energy":
        keys = tokens.metric[image].tolist()
        margin = options.margin - options.margin_slope * tokens.layer / tokens.depth
        ranked = sorted(
            range(1, n), key=lambda i: -sum(f_m(cos(keys[i], keys[j]), margin, 1) for j in range(1, n))
        )
    part = ranked[: 2 * k]
    b = b_of(part)
    goes = {
        i: max(b, key=lambda j: cos(tokens.metric[image, i].tolist(), tokens.metric[image, j].tolist()))
        for i in part
        if i not in b
    }
    return {frozenset([j, *(i for i in goes if goes[i] == j)]) for j in b}


@pytest.mark.parametrize("rank_by", ["cls_attention", "mean_attention"])
def test_ranking_by_attention_merges_what_gets_least(rank_by):
    method = registry.get("pitome")
    options = method.build_options({"rank_by": rank_by})
    for n in (9, 16):
        tokens = make_tokens(n, seed=n, dtype=torch.float64)
        plan = method.plan(tokens, n // 3, options)
        for image in range(2):
            want = ablation(tokens, image, n // 3, options, lambda part: part[1::2])
            assert want <= groups(plan)[image]


def test_a_random_split_takes_the_same_tokens_and_pairs_them_otherwise():
    method = registry.get("pitome")
    splits = set()
    for layer in range(4):
        tokens = make_tokens(17, layer=layer, dtype=torch.float64)
        options = method.build_options({"split": "random"})
        plan = method.plan(tokens, 5, options)
        usual = method.plan(tokens, 5, method.options())
        for image in range(2):
            b = plan.kept[image, 7:].tolist()
            part = [*plan.source[image].tolist(), *b]
            assert set(part) == {*usual.source[image].tolist(), *usual.kept[image, 7:].tolist()}
            assert ablation(tokens, image, 5, options, lambda part, b=b: b) <= groups(plan)[image]
            ranked = [*usual.source[image].tolist(), *usual.kept[image, 7:].tolist()]
            places = sorted(range(10), key=lambda place: place % 5 * 2 + place // 5)  # a and b alternate
            splits.add((layer, tuple(sorted(places.index(ranked.index(t)) for t in b))))
    assert len(splits) == 4, "one split for all images of a layer, another in every layer"
    seeds = [
        method.plan(tokens, 5, method.build_options({"split": "random", "split_seed": s})) for s in (0, 1)
    ]
    assert not torch.equal(seeds[0].source, seeds[1].source)
