"""What a task gives to draw: its model, and a few of its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from pitome.sources.weights import Weights
from pitome.tasks.data import Preprocess
from pitome.tasks.retrieval.data import normalise
from pitome.tasks.samples import Samples


@dataclass(frozen=True)
class TextSample:
    """A text: its token ids [1, N] as the model gets them, the N word pieces, what it is called, its label
    (None where unknown)."""

    ids: Tensor
    pieces: list[str]
    name: str
    label: int | None = None


@dataclass(frozen=True)
class Subject:
    """model: what `pitome.patch` takes; samples: images or texts; weights, sha256: of the model (None if
    random); run: the part that reads images, where it is not the whole model; classes: what they are
    called; said: lines below the picture."""

    model: nn.Module
    samples: Samples | list[TextSample]
    weights: Weights
    sha256: str | None
    run: Callable[[Tensor], Any] | None = None
    classes: Sequence[str] = ()
    said: list[str] = field(default_factory=list)


def tower(
    model: nn.Module,
    run: Callable[[Tensor], Any],
    images: np.ndarray,
    names: Sequence[str],
    preprocess: Preprocess,
    weights: Weights,
    sha256: str | None,
    said: Sequence[str] = (),
) -> Subject:
    """The image tower of a model of images and texts, without predictions. images: [I, C, H, W] uint8 as
    `pitome.tasks.retrieval.data.prepare` makes them."""
    count = len(images)
    inputs = normalise(np.array(images), preprocess)
    samples = Samples(inputs, list(names), [None] * count, [None] * count, preprocess)
    return Subject(model, samples, weights, sha256, run=run, said=list(said))
