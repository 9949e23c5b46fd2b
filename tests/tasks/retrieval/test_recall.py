"""Recall at k against hand-computed cases and a brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pitome.errors import DataError, UsageError
from pitome.tasks.retrieval import recall
from pitome.tasks.retrieval.recall import check_ks, rank, rank_features


def from_matrix(scores: Tensor, owner: list[int]) -> recall.Retrieval:
    """Scores [I, T]."""
    return rank(lambda rows: scores[rows], lambda rows: scores.T[rows], torch.tensor(owner), len(scores))


def brute_force(scores: Tensor, owner: list[int]) -> tuple[list[int], list[int]]:
    """One query at a time, candidates sorted with the wrong ones first among equals."""
    to_text, to_image = [], []
    for i, row in enumerate(scores.tolist()):
        order = sorted(range(len(row)), key=lambda t: (-row[t], owner[t] == i))
        wrong = [t for t in order if owner[t] != i]
        first = next(position for position, t in enumerate(order) if owner[t] == i)
        to_text.append(sum(order.index(t) < first for t in wrong))
    for t, column in enumerate(scores.T.tolist()):
        order = sorted(range(len(column)), key=lambda i: (-column[i], i == owner[t]))
        to_image.append(order.index(owner[t]))
    return to_text, to_image


def test_by_hand() -> None:
    # Two images with two captions each; caption 1 is closer to the wrong image.
    scores = torch.tensor([[0.9, 0.1, 0.3, 0.2], [0.4, 0.6, 0.5, 0.1]])
    found = from_matrix(scores, [0, 0, 1, 1])
    assert found.to_text.tolist() == [0, 1]  # image 1: its 0.5 is behind caption 1's 0.6
    assert found.to_image.tolist() == [0, 1, 0, 1]
    assert found.recalls((1, 2)) == {"rt1": 0.5, "rt2": 1.0, "ri1": 0.5, "ri2": 1.0, "rsum": 300.0}


def test_a_constant_model_finds_nothing() -> None:
    found = rank_features(torch.ones(20, 3), torch.ones(100, 3), torch.arange(100) // 5)
    assert found.recalls()["rsum"] == 0


def test_a_perfect_model_finds_everything() -> None:
    eye = torch.eye(12)
    found = rank_features(eye, eye.repeat_interleave(5, dim=0), torch.arange(60) // 5)
    assert found.recalls()["rsum"] == pytest.approx(600)


def test_a_caption_shared_by_two_images_is_found_for_neither() -> None:
    features = torch.nn.functional.normalize(torch.randn(2, 8, generator=torch.manual_seed(0)), dim=1)
    images, texts = features[[0, 0, 1]], features[[0, 0, 1]]
    assert rank_features(images, texts, torch.arange(3)).to_image.tolist() == [1, 1, 0]


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.integers(0, n - 1), max_size=8),
            st.integers(0, 10_000),
            st.sampled_from([2, 5, 1000]),  # few values: many ties
        )
    )
)
@settings(deadline=None)
def test_against_brute_force(case: tuple[int, list[int], int, int]) -> None:
    n, more, seed, values = case
    owner = [*range(n), *more]
    scores = torch.randint(values, (n, len(owner)), generator=torch.manual_seed(seed)).float()
    found = from_matrix(scores, owner)
    assert (found.to_text.tolist(), found.to_image.tolist()) == brute_force(scores, owner)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, owner = torch.rand(7, 21, generator=torch.manual_seed(1)), [i % 7 for i in range(21)]
    whole = from_matrix(scores, owner)
    monkeypatch.setattr(recall, "_CELLS", 30)
    parts = from_matrix(scores, owner)
    assert torch.equal(whole.to_text, parts.to_text) and torch.equal(whole.to_image, parts.to_image)


def test_scores_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "_CELLS", 100)
    seen = []

    def scores(rows: slice) -> Tensor:
        seen.append(rows.stop - rows.start)
        return torch.rand(rows.stop - rows.start, 20)

    rank(scores, scores, torch.arange(20), 20)
    assert max(seen) * 20 <= 100 and sum(seen) == 40


def test_what_cannot_be_ranked() -> None:
    with pytest.raises(DataError, match="2 images have no caption, the first is 1"):
        from_matrix(torch.rand(3, 1), [0])
    with pytest.raises(DataError, match="not a number"):
        from_matrix(torch.tensor([[0.1, float("nan")], [0.1, 0.2]]), [0, 1])
    with pytest.raises(UsageError, match="recall at 10 means nothing among 4 images"):
        check_ks((1, 10), 4)
