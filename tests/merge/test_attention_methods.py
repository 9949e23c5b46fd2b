"""E-ViT, PPT, Representation Shift, ATC and CrossGET, loop by loop from their texts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import scipy.cluster.hierarchy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pitome.merge import registry
from pitome.merge.plan import Plan, Tokens
from tests.merge.support import groups, make_tokens

Rows = list[tuple[dict[int, float], float]]
"""Output rows in order: token -> weight in the row's mean, and a factor on the row."""


def one(tokens: Tokens, i: int, name: str) -> list:
    return getattr(tokens, name)[i].tolist()


def evit(tokens: Tokens, i: int, remove: int, *, fuse: bool = True) -> Rows:
    p, n = tokens.protected, tokens.x.shape[1]
    score = one(tokens, i, "cls_attention")
    ranked = sorted(range(p, n), key=lambda token: -score[token])
    kept, rest = ranked[: n - p - remove - fuse], ranked[n - p - remove - fuse :]
    rows: Rows = [({token: 1.0}, 1.0) for token in [*range(p), *kept]]
    if fuse:
        rows.append(({token: score[token] for token in rest}, sum(score[token] for token in rest)))
    return rows


def tome(tokens: Tokens, i: int, remove: int) -> Rows:
    p, n, size = tokens.protected, tokens.x.shape[1], one(tokens, i, "size")
    unit = torch.nn.functional.normalize(tokens.metric[i], dim=-1)
    a, b = ([t for t in range(n) if t % 2 == side and t >= p] for side in (0, 1))
    best = {s: max(b, key=lambda d, s=s: float(unit[s] @ unit[d])) for s in a}
    gone = sorted(a, key=lambda s: -float(unit[s] @ unit[best[s]]))[:remove]
    rows: Rows = []
    for token in [*range(p), *(t for t in a if t not in gone), *b]:
        rows.append(({t: size[t] for t in [token, *(s for s in gone if best[s] == token)]}, 1.0))
    return rows


def ppt(tokens: Tokens, i: int, remove: int, *, threshold: float) -> Rows:
    p, n, score = tokens.protected, tokens.x.shape[1], []
    for token in range(n):
        square = sum(float(v) ** 2 for head in tokens.values[i] for v in head[token])
        score.append(float(tokens.cls_attention[i, token]) * math.sqrt(square))
    mean = sum(score[p:]) / (n - p)
    if sum((s - mean) ** 2 for s in score[p:]) / (n - p) < threshold:
        return tome(tokens, i, remove)
    kept = sorted(sorted(range(p, n), key=lambda token: -score[token])[: n - p - remove])
    return [({token: 1.0}, 1.0) for token in [*range(p), *kept]]


def repshift(tokens: Tokens, i: int, remove: int) -> Rows:
    p, n = tokens.protected, tokens.x.shape[1]
    step = [math.sqrt(sum(v**2 for v in row)) for row in one(tokens, i, "mlp")]
    kept = sorted(sorted(range(p, n), key=lambda token: -step[token])[: n - p - remove])
    return [({token: 1.0}, 1.0) for token in [*range(p), *kept]]


def atc(tokens: Tokens, i: int, remove: int) -> Rows:
    """By scipy, as the authors do."""
    p, n, size = tokens.protected, tokens.x.shape[1], one(tokens, i, "size")
    unit = torch.nn.functional.normalize(tokens.metric[i, p:].double(), dim=-1)
    pairs = [1 - float(unit[a] @ unit[b]) for a, b in itertools.combinations(range(n - p), 2)]
    tree = scipy.cluster.hierarchy.linkage(pairs, method="average")
    labels = scipy.cluster.hierarchy.fcluster(tree, t=n - p - remove, criterion="maxclust")
    clusters = [[p + t for t in range(n - p) if labels[t] == label] for label in set(labels)]
    rows: Rows = [({token: 1.0}, 1.0) for token in range(p)]
    return rows + [({t: size[t] for t in cluster}, 1.0) for cluster in sorted(clusters)]


def crossget(tokens: Tokens, i: int, remove: int) -> Rows:
    p, n, size = tokens.protected, tokens.x.shape[1], one(tokens, i, "size")
    heads = tokens.attention[i].mean(dim=0).tolist()
    importance = [sum(row[t] for row in heads) / n + heads[n - 1][t] for t in range(n)]
    unit = torch.nn.functional.normalize(tokens.metric[i], dim=-1)
    last = n - 1 if n - p > 2 else None

    def cosine(a: int, b: int) -> float:
        return -math.inf if a == b or last in (a, b) else float(unit[a] @ unit[b])

    everyone = range(p, n)
    ranked = sorted(everyone, key=lambda t: -max(cosine(t, o) for o in everyone))
    masked = {
        t: max([cosine(t, o) for o in ranked[place + 1 :]], default=-math.inf)
        for place, t in enumerate(ranked)
    }
    gone = sorted(everyone, key=lambda t: importance[t] - masked[t])[:remove]
    rest = [t for t in everyone if t not in gone]
    goes = {s: max(rest, key=lambda d, s=s: cosine(s, d)) for s in gone}
    rows: Rows = [({token: 1.0}, 1.0) for token in range(p)]
    for token in rest:
        sources = [s for s in gone if goes[s] == token]
        weights = {t: math.exp(importance[t]) * size[t] for t in [token, *sources]}
        if len(sources) == 1:  # a pair, as the text has it
            both = torch.tensor([importance[sources[0]], importance[token]]).softmax(dim=0).tolist()
            weights = {sources[0]: 2 * both[0] * size[sources[0]], token: 2 * both[1] * size[token]}
        rows.append((weights, 1.0))
    return rows


def mctf(tokens: Tokens, i: int, remove: int, *, t: tuple[float, float, float] = (1, 20, 40)) -> Rows:
    p, n, size = tokens.protected, tokens.x.shape[1], one(tokens, i, "size")
    maps = tokens.attention[i].tolist()
    received = [sum(row[k] for head in maps for row in head) / (len(maps) * n) for k in range(n)]
    unit = torch.nn.functional.normalize(tokens.metric[i], dim=-1)
    scarce = [1 / value / max(1 / other for other in received) for value in received]
    small = [1 / value / max(1 / other for other in size) for value in size]

    def score(a: int, b: int) -> float:
        alike = (float(unit[a] @ unit[b]) + 1) / 2
        factors = (alike, scarce[a] * scarce[b], small[a] * small[b])
        return math.prod(f ** (1 / temperature) for f, temperature in zip(factors, t, strict=True))

    a, b = ([k for k in range(p, n) if k % 2 == side] for side in (0, 1))
    groups_of = {k: [k] for k in range(n)}
    best = {k: max(b, key=lambda other, k=k: score(k, other)) for k in a}
    gone = sorted(a, key=lambda k: -score(k, best[k]))[: remove // 2]
    for k in gone:
        groups_of[best[k]] += groups_of.pop(k)
    left = [k for k in a if k not in gone]
    back = {k: max(left, key=lambda other, k=k: score(other, k)) for k in b}
    ranked = sorted(b, key=lambda k: -score(back[k], k))
    for k in ranked[: remove - remove // 2]:
        groups_of[back[k]] += groups_of.pop(k)
    order = [*range(p), *left, *ranked[remove - remove // 2 :]]
    largest = max(size)
    return [({k: received[k] * size[k] / largest for k in groups_of[row]}, 1.0) for row in order]


def expected(tokens: Tokens, i: int, rows: Rows) -> Tensor:
    out = []
    for weights, scale in rows:
        total = sum(weights.values())
        out.append(scale * sum(w / total * tokens.x[i, t] for t, w in weights.items()))
    return torch.stack(out)


TEXTS: list[tuple[str, dict, Callable[..., Rows]]] = [
    ("evit", {}, evit),
    ("evit", {"fuse": False}, lambda *args: evit(*args, fuse=False)),
    ("ppt", {"threshold": 0.0}, lambda *args: ppt(*args, threshold=0.0)),
    ("ppt", {"threshold": 0.05}, lambda *args: ppt(*args, threshold=0.05)),
    ("ppt", {"threshold": 1e9}, tome),
    ("repshift", {}, repshift),
    ("atc", {}, atc),
    ("crossget", {}, crossget),
    ("mctf", {}, mctf),
    ("mctf", {"t_sim": 2.0, "t_info": 1.0, "t_size": 3.0}, lambda *args: mctf(*args, t=(2, 1, 3))),
]


@pytest.mark.parametrize("case", TEXTS, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
@settings(max_examples=25, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_transcription(case, data):
    name, values, by_hand = case
    method = registry.get(name)
    protected = data.draw(st.integers(1, 2))
    n = data.draw(st.integers(protected + 2, 16))
    remove = data.draw(st.integers(1, (n - protected) // 2))
    seed = data.draw(st.integers(0, 10**6))
    tokens = make_tokens(n, protected=protected, seed=seed, dtype=torch.float64)
    plan = method.plan(tokens, remove, method.build_options(values))
    assert isinstance(plan, Plan)
    for i in range(2):
        rows = by_hand(tokens, i, remove)
        torch.testing.assert_close(plan.apply(tokens.x)[i], expected(tokens, i, rows))
        held = {frozenset(weights) for weights, _ in rows}
        gone = frozenset(range(n)) - frozenset().union(*held)
        assert groups(plan)[i] == held | ({gone} if gone else set())


def test_ppt_decides_for_every_image():
    """Two images of one batch, one pruned and one pooled."""
    tokens, method = make_tokens(9), registry.get("ppt")
    even = torch.full_like(tokens.cls_attention[:1], 1 / 9)
    values = tokens.values.clone()
    values[0] = 1

    tokens = replace(tokens, values=values, cls_attention=torch.cat([even, tokens.cls_attention[1:]]))
    plan = method.plan(tokens, 3, method.build_options({"threshold": 1e-10}))
    assert (plan.target[0] >= 0).all() and (plan.target[1] == -1).all()
    pooled = registry.get("tome").plan(tokens, 3, registry.get("tome").options())
    assert torch.equal(plan.kept[0], pooled.kept[0]) and torch.equal(plan.target[0], pooled.target[0])


@pytest.mark.parametrize("name", ["atc", "crossget"])
def test_ties_follow_the_sequence(name):
    tokens, method = make_tokens(9), registry.get(name)

    plan = method.plan(replace(tokens, metric=torch.ones_like(tokens.metric)), 3, method.options())
    again = method.plan(replace(tokens, metric=torch.ones_like(tokens.metric)), 3, method.options())
    assert torch.equal(plan.assignment(), again.assignment())
    if name == "atc":
        assert plan.assignment()[0].tolist() == [0, 1, 1, 1, 1, 2, 3, 4, 5]
