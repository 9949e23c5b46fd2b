"""Re-ranking against a brute-force implementation and a case computed by hand."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from pitome.tasks.memory import Parts
from pitome.tasks.retrieval.recall import rank, rank_features
from pitome.tasks.retrieval.rerank import Match, Reranking


def unit(*shape: int, seed: int) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=-1)


def brute_force(scores: Tensor, logits: Tensor, k: int) -> Tensor:
    """Rows of scores [R, C]: the k highest plus their logits, all others -inf."""
    out = torch.full_like(scores, -torch.inf)
    for row in range(len(scores)):
        for column in scores[row].argsort(descending=True, stable=True)[:k].tolist():
            out[row, column] = scores[row, column] + logits[row, column]
    return out


def fill(reranking: Reranking, images: Iterable[int], match: Match, at_once: int) -> None:
    for image in images:
        reranking.fill(image, reranking.logits(image, torch.tensor(image), match, Parts(at_once)))


@pytest.mark.parametrize("queries", [None, 3])
@pytest.mark.parametrize("k", [1, 4, 100])
def test_equals_brute_force(k: int, queries: int | None) -> None:
    n, each = 9, 3
    owner = torch.arange(n * each) % n
    images = unit(n, 6, seed=0) if queries is None else unit(n, queries, 6, seed=0)
    texts = unit(n * each, 6, seed=1)
    logits = torch.randn(n, n * each, generator=torch.Generator().manual_seed(2))
    seen: list[int] = []

    def match(state: Tensor, captions: list[int]) -> Tensor:
        assert len(captions) <= 4
        seen.append(len(captions))
        return logits[int(state), captions]

    reranking = Reranking(images, texts, k)
    fill(reranking, reversed(range(n)), match, 4)
    scores = (images @ texts.T if queries is None else (images @ texts.T).amax(dim=1)).float()
    by_image, by_text = brute_force(scores, logits, k), brute_force(scores.T, logits.T, k)
    want = rank(lambda rows: by_image[rows], lambda rows: by_text[rows], owner, n)
    got = reranking.ranks(owner)
    assert torch.equal(got.to_text, want.to_text)
    assert torch.equal(got.to_image, want.to_image)
    pairs = (by_image > -torch.inf) | (by_text > -torch.inf).T
    assert sum(seen) == int(pairs.sum()), "a pair is seen once, if it is in either list"


def test_the_head_can_only_choose_from_the_short_list() -> None:
    """Two images, a caption each. The contrastive scores are wrong, the matching head is right; with
    k=1 it sees the wrong pairs alone."""
    images, texts, owner = torch.eye(2), torch.eye(2).flip(0), torch.tensor([0, 1])
    assert rank_features(images, texts, owner).recalls((1,))["rsum"] == 0
    head = 10 * torch.eye(2)
    for k, rsum in ((1, 0.0), (2, 200.0)):
        reranking = Reranking(images, texts, k)
        fill(reranking, range(2), lambda one, captions: head[int(one), captions], 8)
        assert reranking.ranks(owner).recalls((1,))["rsum"] == rsum


def test_a_head_that_finds_everything_alike_changes_nothing() -> None:
    images, texts, owner = unit(8, 4, seed=3), unit(16, 4, seed=4), torch.arange(16) % 8
    reranking = Reranking(images, texts, 100)
    fill(reranking, range(8), lambda one, captions: torch.zeros(len(captions)), 3)
    want, got = rank_features(images, texts, owner), reranking.ranks(owner)
    assert torch.equal(got.to_text, want.to_text) and torch.equal(got.to_image, want.to_image)


def test_an_image_that_was_forgotten_is_an_error() -> None:
    reranking = Reranking(unit(3, 4, seed=0), unit(3, 4, seed=1), 2)
    fill(reranking, range(2), lambda one, captions: torch.zeros(len(captions)), 3)
    with pytest.raises(AssertionError, match="2 of 3 images"):
        reranking.ranks(torch.arange(3))
