"""Images as a model's input: resized, cut, normalised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from pitome.tasks.data import Preprocess


def prepare(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """[C, H, W] uint8: the shorter side resized and the middle cut out, or the whole image squeezed
    into the model's input."""
    mode = v2.InterpolationMode(preprocess.interpolation)
    size = preprocess.shape or (preprocess.size, preprocess.size)
    if preprocess.squash or preprocess.shape is not None:
        image = functional.resize(image, list(size), interpolation=mode, antialias=True)
    else:
        image = functional.resize(
            image, [int(preprocess.size / preprocess.crop_pct)], interpolation=mode, antialias=True
        )
        image = functional.center_crop(image, list(size))
    return _channels(image, preprocess)


def _channels(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    pixels = np.asarray(image.convert("RGB" if preprocess.channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], preprocess.channels).transpose(2, 0, 1)


def normalise(images: np.ndarray, preprocess: Preprocess) -> Tensor:
    """[B, C, H, W] uint8 -> float, less the mean of each channel, by its deviation."""
    values = torch.from_numpy(np.ascontiguousarray(images)).float().div_(255)
    mean, std = (torch.tensor(given).view(1, -1, 1, 1) for given in (preprocess.mean, preprocess.std))
    return values.sub_(mean).div_(std)


def make_transform(preprocess: Preprocess, *, train: bool) -> Callable[[Image.Image], Tensor]:
    """timm's transform for the model: resize and centre crop, or random crop, flip and RandAugment.

    RandAugment is timm's `rand-m9-mstd0.5-inc1`, the recipe of DeiT and of PiToMe, with one difference:
    posterising leaves at least one bit of a channel. At a magnitude of 10, which 2 % of the draws reach,
    timm asks for none, a black image, and Pillow refuses.

    Takes RGB, or grey images where the model has one channel."""
    from timm.data import create_transform
    from timm.data.auto_augment import RandAugment

    if preprocess.shape is not None and not train:
        return _reshaped(preprocess, preprocess.shape)
    common: dict[str, Any] = {
        "input_size": (preprocess.channels, preprocess.size, preprocess.size),
        "interpolation": preprocess.interpolation,
        "mean": preprocess.mean,
        "std": preprocess.std,
    }
    if train:
        augmented = create_transform(**common, is_training=True, auto_augment="rand-m9-mstd0.5-inc1")
        for operation in next(step.ops for step in augmented.transforms if isinstance(step, RandAugment)):
            if operation.name.startswith("Posterize"):
                operation.magnitude_max = 9.99
        return augmented
    return create_transform(**common, is_training=False, crop_pct=preprocess.crop_pct)


def _reshaped(preprocess: Preprocess, shape: tuple[int, int]) -> Callable[[Image.Image], Tensor]:
    """The centre crop that the model's own transform sees, taken from the original at once in another
    shape (height, width)."""
    mode = v2.InterpolationMode(preprocess.interpolation)

    def crop(image: Image.Image) -> Image.Image:
        side = min(image.size) * preprocess.crop_pct
        left, top = ((length - side) / 2 for length in image.size)
        box = [round(top), round(left), round(side), round(side)]
        return v2.functional.resized_crop(image, *box, list(shape), interpolation=mode, antialias=True)  # type: ignore[arg-type]

    scale = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([crop, *scale, v2.Normalize(preprocess.mean, preprocess.std)])
