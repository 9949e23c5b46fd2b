"""Methods for the places after an image tower, each held to its text, token by token; what all promise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pitome.merge import registry
from pitome.merge.contract import check_plan
from pitome.merge.methods.prumerge import outliers
from pitome.merge.plan import Tokens

N, GRID = 12, (3, 4)
AFTER = sorted({*registry.names("projector"), *registry.names("language")})


def tokens(batch: int = 1, seed: int = 0) -> Tokens:
    torch.manual_seed(seed)
    x = torch.randn(batch, N, 6, dtype=torch.float64)
    more = {name: torch.randn(batch, count, 6, dtype=torch.float64) for name, count in
            (("keys", N), ("text", 5), ("text_keys", 5))}  # fmt: skip
    received = torch.randn(batch, N, dtype=torch.float64).softmax(-1)
    size = torch.ones(batch, N, dtype=torch.float64)
    return Tokens(x, x, size, 0, 0, 0, received=received, grid=GRID, **more)


def only(name: str, given: Tokens) -> Tokens:
    """The tokens as an adapter hands them to a method: with what it reads."""
    method = registry.get(name)
    needs = method.needs(method.options())
    unread = {part: None for part in ("received", "keys", "text", "text_keys", "grid") if part not in needs}
    return dataclasses.replace(given, **unread)


def cos(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def divprune(t: Tokens, count: int) -> dict[int, dict[int, float]]:
    x, every = t.x[0], range(N)
    far = [[1 - cos(x[i], x[j]) for j in every] for i in every]
    picked = [max(every, key=lambda i: min(far[i][j] for j in every if j != i))]
    while len(picked) < count:
        picked.append(
            max((i for i in every if i not in picked), key=lambda i: min(far[i][j] for j in picked))
        )
    return {i: {i: 1.0} for i in picked}


def cdpruner(t: Tokens, count: int) -> dict[int, dict[int, float]]:
    """Each step tries every token: the determinant of the kernel of those picked and it."""
    x, picked = t.x[0], []
    kernel = torch.tensor([[cos(a, b) for b in x] for a in x], dtype=torch.float64).fill_diagonal_(1)
    while len(picked) < count:
        rest = [i for i in range(N) if i not in picked]
        picked.append(max(rest, key=lambda i: float(torch.linalg.det(kernel[[*picked, i]][:, [*picked, i]]))))
    return {i: {i: 1.0} for i in picked}


def visionzip(t: Tokens, count: int) -> dict[int, dict[int, float]]:
    few = int(count * 5 / 32)
    order = sorted(range(N), key=lambda i: -float(t.received[0, i]))  # type: ignore[index]
    groups = {i: [i] for i in order[: count - few]}
    rest = sorted(order[count - few :])
    targets = rest[:: len(rest) // few][:few] if few else []
    groups |= {i: [i] for i in targets}
    for i in rest:
        if targets and i not in targets:
            groups[max(targets, key=lambda j: cos(t.keys[0, i], t.keys[0, j]))].append(i)  # type: ignore[index]
    return {i: {j: 1 / len(group) for j in group} for i, group in groups.items()}


def vispruner(t: Tokens, count: int) -> dict[int, dict[int, float]]:
    order = sorted(range(N), key=lambda i: -float(t.received[0, i]))  # type: ignore[index]
    kept, rest = order[: count // 2], order[count // 2 :]
    while len(rest) > count - count // 2:
        even, odd = rest[::2], rest[1::2]
        alike = {i: max(cos(t.x[0, i], t.x[0, j]) for j in odd) for i in even}
        gone = sorted(even, key=lambda i: -alike[i])[: min(8, len(rest) - (count - count // 2))]
        rest = [i for i in rest if i not in gone]
    return {i: {i: 1.0} for i in kept + rest}


def scope(t: Tokens, count: int) -> dict[int, dict[int, float]]:
    x, covered, picked = t.x[0], [0.0] * N, []
    while len(picked) < count:
        gain = {
            i: sum(max(0.0, cos(x[i], x[j]) - covered[j]) for j in range(N)) * float(t.received[0, i])  # type: ignore[index]
            for i in range(N) if i not in picked
        }  # fmt: skip
        picked.append(max(gain, key=lambda i: gain[i]))
        covered = [max(covered[j], cos(x[picked[-1]], x[j])) for j in range(N)]
    return {i: {i: 1.0} for i in picked}


def prumerge(t: Tokens, count: int) -> dict[int, dict[int, float]]:
    attention = t.received[0].tolist()  # type: ignore[index]
    kept = sorted(sorted(range(N), key=lambda i: -attention[i])[: count - 1])
    rows = {}
    for i in kept:
        far = {j: -cos(t.keys[0, i], t.keys[0, j]) for j in range(N) if j != i}  # type: ignore[index]
        near = sorted(far, key=lambda j: far[j])[:32]
        rows[i] = {i: 1.0} | {j: attention[j] for j in near}
    rest = [i for i in range(N) if i not in kept]
    rows[max(rest, key=lambda i: attention[i])] = {i: attention[i] for i in rest}
    return rows


def fastv(t: Tokens, count: int) -> dict[int, dict[int, float]]:
    order = sorted(range(N), key=lambda i: -float(t.received[0, i]))  # type: ignore[index]
    return {i: {i: 1.0} for i in order[:count]}


def dart(t: Tokens, count: int) -> dict[int, dict[int, float]]:
    assert t.keys is not None and t.text_keys is not None and t.text is not None
    norm = [float(sum(abs(v) for v in key)) for key in t.keys[0]]
    words = [float(sum(abs(v) for v in key)) for key in t.text_keys[0]]
    kept = sorted(range(N), key=lambda i: -norm[i])[: min(4, count)]
    pivots = [t.x[0, i] for i in kept] + [t.text[0, i] for i in sorted(range(5), key=lambda i: -words[i])[:4]]
    left = count - len(kept)
    for number, pivot in enumerate(pivots):
        share = math.ceil(left / (len(pivots) - number))
        pool = sorted((i for i in range(N) if i not in kept), key=lambda i: cos(pivot, t.x[0, i]))
        kept, left = kept + pool[:share], left - share
    return {i: {i: 1.0} for i in kept}


def pool(t: Tokens, count: int) -> dict[int, dict[int, float]]:
    h, w = {12: (3, 4), 6: (2, 3), 4: (2, 2), 2: (1, 2), 1: (1, 1)}[count]
    groups: dict[tuple[int, int], list[int]] = {}
    for y in range(3):
        for x in range(4):
            groups.setdefault((y * h // 3, x * w // 4), []).append(y * 4 + x)
    return {group[0]: {i: 1 / len(group) for i in group} for group in groups.values()}


def stride(t: Tokens, count: int) -> dict[int, dict[int, float]]:
    kept = [(2 * j + 1) * N // (2 * count) for j in range(count)]
    return {i: {i: 1.0} for i in kept}


Rows = tuple[list[int], dict[int, int]]  # those that stay, in their new order; source -> the row it joins


def in_rounds(
    t: Tokens, count: int, decide: Callable[[list[Tensor], int], Rows]
) -> dict[int, dict[int, float]]:
    """Groups that join each other, at most half of them at a time."""
    groups = [[i] for i in range(N)]
    while len(groups) > count:
        means = [t.x[0, group].mean(dim=0) for group in groups]
        stay, joined = decide(means, min(len(groups) - count, len(groups) // 2))
        for source, target in joined.items():
            groups[target] = groups[target] + groups[source]
        groups = [groups[i] for i in stay]
    return {group[0]: {i: 1 / len(group) for i in group} for group in groups}


def tome(t: Tokens, count: int) -> dict[int, dict[int, float]]:
    def decide(x: list[Tensor], remove: int) -> Rows:
        even, odd = range(0, len(x), 2), range(1, len(x), 2)
        best = {i: max(odd, key=lambda j: cos(x[i], x[j])) for i in even}
        order = sorted(even, key=lambda i: -cos(x[i], x[best[i]]))
        return [*order[remove:], *odd], {i: best[i] for i in order[:remove]}

    return in_rounds(t, count, decide)


def pitome(t: Tokens, count: int) -> dict[int, dict[int, float]]:
    """With margin 0, as in the last layer."""

    def decide(x: list[Tensor], remove: int) -> Rows:
        energy = [sum(c if (c := cos(a, b)) >= 0 else math.exp(c) - 1 for b in x) for a in x]
        order = sorted(range(len(x)), key=lambda i: -energy[i])
        a, b = order[: 2 * remove : 2], order[1 : 2 * remove : 2]
        return [*order[2 * remove :], *b], {i: max(b, key=lambda j: cos(x[i], x[j])) for i in a}

    return in_rounds(t, count, decide)


TEXTS: dict[str, Callable[[Tokens, int], dict[int, dict[int, float]]]] = {
    "divprune": divprune, "cdpruner": cdpruner, "visionzip": visionzip, "vispruner": vispruner,
    "scope": scope, "prumerge": prumerge, "fastv": fastv, "dart": dart, "pool": pool, "stride": stride,
    "tome": tome, "pitome": pitome,
}  # fmt: skip


def test_every_method_is_held_to_its_text() -> None:
    assert {*TEXTS, "random"} == set(AFTER)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("count", [1, 2, 4, 6, 12])
def test_token_by_token(name: str, count: int) -> None:
    """Row -> what it is a sum of: the same tokens with the same weights."""
    method = registry.get(name)
    for seed in range(4):
        given = tokens(seed=seed)
        if count == N or (name == "prumerge" and count == 1):  # nothing to do; one token has no rest
            continue
        plan: Any = method.plan(only(name, given), N - count, method.options())
        expected = TEXTS[name](given, count)
        kept = plan.kept[0].tolist()
        assert sorted(kept) == sorted(expected)
        for row, at in zip(plan.matrix(torch.float64)[0], kept, strict=True):
            dense = torch.zeros(N, dtype=torch.float64)
            for source, weight in expected[at].items():
                dense[source] = weight
            assert torch.allclose(row, dense)


@pytest.mark.parametrize("name", AFTER)
@pytest.mark.parametrize("count", range(1, N))
def test_what_all_promise(name: str, count: int) -> None:
    """So many rows; a plan that can be carried out; each image as if it were alone; the same twice."""
    method, given = registry.get(name), tokens(3)
    plan: Any = method.plan(only(name, given), N - count, method.options())
    assert plan.n_out == count
    check_plan(plan, given, N - count, name, False)
    matrix = plan.matrix(torch.float64)
    again: Any = method.plan(only(name, given), N - count, method.options())
    assert torch.equal(again.matrix(torch.float64), matrix)
    if method.guarantees.prunes:
        assert ((matrix == 0) | (matrix == 1)).all() and (plan.kept.diff(dim=-1) > 0).all()
    elif method.guarantees.averages:
        assert torch.allclose(matrix.sum(-1), torch.ones(3, count, dtype=torch.float64))
    parts = [
        spec.name for spec in dataclasses.fields(Tokens) if isinstance(getattr(given, spec.name), Tensor)
    ]
    for sample in range(3):
        alone = dataclasses.replace(
            given, **{part: getattr(given, part)[sample : sample + 1] for part in parts}
        )
        lone: Any = method.plan(only(name, alone), N - count, method.options())
        assert torch.allclose(lone.matrix(torch.float64)[0], matrix[sample], atol=1e-12)
    cost = method.macs(N, 0, 6, N - count, method.options())
    assert cost >= 0 and method.macs(N, 0, 6, 0, method.options()) == 0


def test_options_where_paper_and_code_differ() -> None:
    zip_, given = registry.get("visionzip"), tokens(seed=2)
    mean: Any = zip_.plan(given, 4, zip_.options(contextual=0.5))  # type: ignore[call-arg]
    total: Any = zip_.plan(given, 4, zip_.options(contextual=0.5, merge="sum"))  # type: ignore[call-arg]
    both = (plan.matrix(torch.float64)[0] for plan in (total, mean))
    for row, other, kept in zip(*both, total.kept[0], strict=True):
        joined = [j for j in other.nonzero()[:, 0].tolist() if j != int(kept)]
        dense = torch.zeros(N, dtype=torch.float64)
        dense[kept] = 1
        dense[joined] = 1 / max(len(joined), 1)
        assert torch.allclose(row, dense)
    merge = registry.get("prumerge")
    spread: Any = merge.plan(given, 6, merge.options(spread=True))  # type: ignore[call-arg]
    assert {0, 4} <= set(spread.kept[0].tolist())
    few = torch.tensor([[0.01] * 11 + [0.9], [1 / 12] * 12])
    assert outliers(few).tolist() == [1, 0]


def test_relevance_prefers_what_the_words_are_not_like() -> None:
    """As the method has it: minus the mean cosine."""
    method, given = registry.get("cdpruner"), tokens(seed=3)
    words = method.options(relevance="words")  # type: ignore[call-arg]
    relevance = [-sum(cos(x, w) for w in given.text[0]) / 5 for x in given.x[0]]  # type: ignore[index]
    first: Any = method.plan(given, N - 1, words)
    assert first.kept[0].tolist() == [max(range(N), key=lambda i: relevance[i])]
