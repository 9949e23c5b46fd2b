"""What stands on a page: tokens left, predictions with their marks, energies, the legend."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from pitome.errors import UsageError
from pitome.report.pictures.groups import DROPPED, Followed, Step
from pitome.report.pictures.page import GREEN, RED, Sheet
from pitome.report.pictures.sheet import Shown, lay_out
from pitome.tasks.data import Preprocess
from pitome.tasks.subject import Samples

NAMES = ["Bag", "Coat"]


def samples(count: int) -> Samples:
    labels = list(range(count))
    return Samples(
        torch.zeros(count, 1, 4, 4),
        [f"test {i}" for i in labels],
        list(labels),
        [NAMES[i] for i in labels],
        Preprocess(4, 1, (0.0,), (1.0,)),
        len(NAMES),
    )


def followed(method: str, count: int, *, ranks: bool = False, drops: bool = False) -> Followed:
    """Two layers; the second merges two of four patches. Everything is taken for a coat, 75 %."""
    single = np.arange(1, 5).reshape(1, 2, 2).repeat(count, 0)
    merged = np.array([[[1, 1], [2, DROPPED if drops else 3]]]).repeat(count, 0)
    size = np.array([[[2, 2], [1, 0 if drops else 1]]]).repeat(count, 0)
    energy = np.array([[[0.5, 0.5], [-0.25, 0.0]]]).repeat(count, 0) if ranks else None
    ones = np.ones_like(single)
    steps = [Step(5, single, ones), Step(5, single, ones), Step(4, merged, size, energy)]
    return Followed(method, steps, np.array([[0.25, 0.75]]).repeat(count, 0))


def page(count: int, *methods: Followed, **how: object) -> Sheet:
    shown = [Shown(method, ("ratio 0.9",)) for method in methods]
    return lay_out(samples(count), followed("none", count), shown, NAMES, ["caption"], **how)


def words(lines: object) -> list[str]:
    return [line.words for line in lines]


def test_layers_of_one_image_side_by_side() -> None:
    drawn = page(1, followed("tome", 1))
    assert words(drawn.columns[0]) == ["input", "label: Bag", "unmerged model:", "✗ Coat 75 %"]
    assert [column[0].words for column in drawn.columns[1:]] == ["after 1 of 2 layers", "after 2 of 2 layers"]
    (row,) = drawn.rows
    assert words(row.head) == ["tome", "ratio 0.9", "", "prediction", "✗ Coat 75 %"]
    assert [words(cell.foot) for cell in row.cells] == [["5 tokens"], ["5 tokens"], ["4 tokens"]]


def test_images_side_by_side() -> None:
    drawn = page(2, followed("tome", 2))
    assert [words(column) for column in drawn.columns] == [["Bag", "test 0"], ["Coat", "test 1"]]
    assert words(drawn.rows[1].head) == ["tome", "ratio 0.9", "after 2 of 2 layers", "4 tokens"]
    marks = [cell.foot[0] for cell in drawn.rows[1].cells]
    assert words(marks) == ["✗ Coat 75 %", "✓ Coat 75 %"]
    assert [mark.colour for mark in marks] == [RED, GREEN]
    assert len(page(2, followed("tome", 2), after=[1, 2]).rows) == 3


def test_without_labels_or_classifier_nothing_is_claimed() -> None:
    one = dataclasses.replace(samples(1), labels=[None])
    drawn = lay_out(one, followed("none", 1), [Shown(followed("tome", 1), ())], NAMES, [])
    assert words(drawn.rows[0].head) == ["tome", "", "prediction", "Coat 75 %"]
    backbone = dataclasses.replace(followed("tome", 1), probabilities=None)
    drawn = lay_out(one, backbone, [Shown(backbone, ())], [], [])
    assert "prediction" not in words(drawn.rows[0].head)


def test_energies_stand_below_their_method_where_a_layer_ranked() -> None:
    drawn = page(1, followed("pitome", 1, ranks=True), followed("tome", 1))
    assert [row.head[0].words for row in drawn.rows] == ["pitome", "energy", "tome"]
    blank, first, second = drawn.rows[1].cells
    assert blank is None
    assert words(first.foot) == ["nothing merged here"] and words(second.foot) == ["-0.25 to 0.50"]


def test_the_legend_names_what_is_there() -> None:
    plain = page(1, followed("tome", 1)).legend
    assert [meaning.split()[0] for _, meaning in plain] == ["merged:", "on"]
    full = page(1, followed("pitome", 1, ranks=True), followed("tofu", 1, drops=True)).legend
    assert [meaning.split()[0] for _, meaning in full] == ["merged:", "on", "dropped", "energy,"]


def test_a_depth_the_model_does_not_have() -> None:
    with pytest.raises(UsageError, match="the model has 2 layers"):
        page(1, followed("tome", 1), after=[3])
