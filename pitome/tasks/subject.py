"""What a task gives to draw: its model, and a few of its samples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pitome.errors import DataError
from pitome.sources.fashion_mnist import CLASSES
from pitome.sources.images import Picture
from pitome.sources.weights import Weights
from pitome.tasks.data import Preprocess
from pitome.tasks.images import normalise


@dataclass(frozen=True)
class TextSample:
    """A text of N word pieces."""

    ids: Tensor  # [1, N] as the model gets them
    pieces: list[str]
    name: str
    label: int | None = None  # None where unknown


@dataclass(frozen=True)
class Subject:
    """What a task gives to draw."""

    model: nn.Module  # what `pitome.patch` takes
    samples: Samples | list[TextSample]
    weights: Weights
    sha256: str | None  # of the weights; None if random
    run: Callable[[Tensor], Any] | None = None  # the part that reads images, where it is not the whole model
    classes: Sequence[str] = ()  # what they are called
    lines: list[str] = field(default_factory=list)  # below the picture


def tower(
    model: nn.Module,
    run: Callable[[Tensor], Any],
    images: np.ndarray,
    names: Sequence[str],
    preprocess: Preprocess,
    weights: Weights,
    sha256: str | None,
    lines: Sequence[str] = (),
) -> Subject:
    """The image tower of a model of images and texts, without predictions. images: [I, C, H, W] uint8 as
    `pitome.tasks.images.prepare` makes them."""
    count = len(images)
    inputs = normalise(np.array(images), preprocess)
    samples = Samples(inputs, list(names), [None] * count, [None] * count, preprocess)
    return Subject(model, samples, weights, sha256, run=run, lines=list(lines))


@dataclass(frozen=True)
class Samples:
    """B images."""

    inputs: Tensor  # [B, C, H, W] as the model gets them
    names: list[str]  # a file, or a place in the test split
    labels: list[int | None]  # None where unknown
    titles: list[str | None]  # what the labels are called
    preprocess: Preprocess
    classes: int = 0  # of the data that the labels belong to, 0 if there are none

    @property
    def pixels(self) -> np.ndarray:
        """The inputs in colours again, [B, H, W, 3] of uint8."""
        shape = (1, -1, 1, 1)
        mean, std = (torch.tensor(v).view(shape) for v in (self.preprocess.mean, self.preprocess.std))
        colours = (self.inputs.cpu() * std + mean).clamp(0, 1).expand(-1, 3, -1, -1)
        return (colours * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def join(parts: Sequence[Samples]) -> Samples:
    """Several samples as one batch."""
    return Samples(
        torch.cat([part.inputs for part in parts]),
        [name for part in parts for name in part.names],
        [label for part in parts for label in part.labels],
        [title for part in parts for title in part.titles],
        parts[0].preprocess,
        max(part.classes for part in parts),
    )


def from_file(picture: Picture, preprocess: Preprocess) -> Samples:
    """An image file as the model wants it: resized and cropped, grey for a model with one channel."""
    from pitome.tasks.images import as_tested

    image = picture.image.convert("L") if preprocess.channels == 1 else picture.image
    name = f"{picture.name} ({', '.join(picture.notes)})" if picture.notes else picture.name
    return Samples(as_tested(image, preprocess)[None], [name], [None], [None], preprocess)


def from_data(data: Any, indices: Sequence[int]) -> Samples:
    """Samples of a data module, by their places in its test split.

    Raises DataError where there is none or it is unreadable.
    """
    dataset = data.test_dataloader().dataset
    return join([_sample(data, dataset, index) for index in indices])


def one_per_class(data: Any) -> Samples:
    """The first test image of every class, in the order of the classes; of as many as are there."""
    dataset = data.test_dataloader().dataset
    first: dict[int, Samples] = {}
    for index in range(len(dataset)):
        sample = _sample(data, dataset, index)
        assert sample.labels[0] is not None
        first.setdefault(sample.labels[0], sample)
        if len(first) == data.info.classes:
            break
    return join([first[label] for label in sorted(first)])


def _sample(data: Any, dataset: Any, index: int) -> Samples:
    if not 0 <= index < len(dataset):
        raise DataError(f"image={index}: {data.info.name} has test samples 0 to {len(dataset) - 1}")
    item = dataset[index]
    if len(item) == 2:
        raise DataError(f"image={index}: this sample of {data.info.name} cannot be read ({item[1]})")
    image, label, number = item
    title, classes = class_names(data.info.name, data.info.classes)[int(label)], data.info.classes
    return Samples(image[None], [f"test {int(number)}"], [int(label)], [title], data.preprocess, classes)


@functools.cache
def class_names(data: str, classes: int) -> list[str]:
    """What `classes` classes are called: by the data set `data` if it has so many, by ImageNet if they
    are 1,000, else by number."""
    if (data, classes) == ("fashion_mnist", len(CLASSES)):
        return list(CLASSES)
    if classes == 1000:
        from timm.data import ImageNetInfo

        names = ImageNetInfo("imagenet-1k")
        return [names.index_to_description(i).split(",")[0] for i in range(classes)]
    return [f"class {i}" for i in range(classes)]
