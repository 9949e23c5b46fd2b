"""Every training transform takes images of every mode, size and seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment

from pitome.tasks.classification.fashion_mnist import draws_of, jitter
from pitome.tasks.data import Preprocess
from pitome.tasks.images import make_transform, normalise, prepare
from pitome.tasks.retrieval.data import _cut

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F")
SIZES = ((40, 36), (33, 64), (1, 5), (64, 2))
COUNT = 4_000
COLOUR = Preprocess(32, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
GREY = Preprocess(28, 1, (0.286,), (0.353,))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Noise and flat colours, in every mode and size."""
    noise = np.random.default_rng(0)
    out = []
    for mode in MODES:
        for width, height in SIZES:
            pixels = noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
            image = Image.fromarray(pixels)
            flat = Image.new("RGB", (width, height), (0, 255, 128))
            out += [
                picture.convert("L" if mode in "IF" else "RGB").convert(mode) for picture in (image, flat)
            ]
    return out


def cut(preprocess: Preprocess) -> Callable[[Image.Image], torch.Tensor]:
    """The random cuts of training for retrieval."""
    state = np.random.RandomState(0)
    return lambda image: normalise(_cut(image, preprocess, state)[None], preprocess)[0]


def shift(preprocess: Preprocess) -> Callable[[Image.Image], torch.Tensor]:
    """The shifts of training on Fashion-MNIST."""
    numbers = itertools.count()

    def shifted(image: Image.Image) -> torch.Tensor:
        draws = draws_of(0, 0, 1000)[next(numbers) % 1000][None]
        return jitter(normalise(prepare(image, preprocess)[None], preprocess), draws)[0]

    return shifted


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    ("transform", "preprocess", "count"),
    [
        (make_transform(COLOUR), COLOUR, COUNT),
        (make_transform(GREY), GREY, COUNT),
        (cut(COLOUR), COLOUR, COUNT // 4),
        (shift(GREY), GREY, COUNT // 10),
    ],
    ids=["colour", "grey", "cut", "shift"],
)
def test_many_images_of_mixed_modes(
    pictures: list[Image.Image],
    transform: Callable[[Image.Image], torch.Tensor],
    preprocess: Preprocess,
    count: int,
    times: int,
) -> None:
    """As decoded: RGB, or grey for a model of one channel."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    mode = "RGB" if preprocess.channels == 3 else "L"
    decoded = [picture.convert(mode) for picture in pictures]
    shape = (preprocess.channels, preprocess.size, preprocess.size)
    for number in range(times * count):
        pixels = transform(decoded[number % len(decoded)])
        assert pixels.shape == shape and pixels.isfinite().all()


def test_only_posterising_differs_from_timms_recipe() -> None:
    """Its strongest form leaves one bit, of timm's magnitudes of up to 10."""
    (augment,) = (s for s in make_transform(COLOUR).transforms if isinstance(s, RandAugment))  # type: ignore[attr-defined]
    limits = {operation.name: operation.magnitude_max for operation in augment.ops}
    assert {name for name, limit in limits.items() if limit is not None} == {"PosterizeIncreasing"}
    assert all((operation.magnitude, operation.magnitude_std) == (9, 0.5) for operation in augment.ops)
    posterise = next(operation for operation in augment.ops if operation.name == "PosterizeIncreasing")
    posterise.magnitude, posterise.magnitude_std, posterise.prob = 10, 0, 1.0
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    assert set(np.asarray(posterise(ramp)).ravel().tolist()) == {0, 128}
