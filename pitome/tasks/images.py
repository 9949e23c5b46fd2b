"""Images as a model's input: resized, cut, kept in the cache, normalised."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from pitome.errors import Unreadable
from pitome.sources.cache import cached, digest
from pitome.tasks.data import Preprocess
from pitome.tasks.loading import identity


def prepare(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """[C, H, W] uint8: the shorter side resized and the middle cut out, or the whole image squeezed
    into the model's input."""
    mode = v2.InterpolationMode(preprocess.interpolation)
    size = _size(preprocess)
    if preprocess.squash or preprocess.shape is not None:
        image = functional.resize(image, list(size), interpolation=mode, antialias=True)
    else:
        image = functional.resize(
            image, [int(preprocess.size / preprocess.crop_pct)], interpolation=mode, antialias=True
        )
        image = functional.center_crop(image, list(size))
    return _channels(image, preprocess)


def prepare_crop(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """[C, H, W] uint8: the centre crop of timm's transform; with `preprocess.shape`, the region that the
    model's own transform sees, taken from the original at once in another shape."""
    if preprocess.shape is None:
        return prepare(image, preprocess)
    mode = v2.InterpolationMode(preprocess.interpolation)
    side = min(image.size) * preprocess.crop_pct
    left, top = ((length - side) / 2 for length in image.size)
    box, size = [round(top), round(left), round(side), round(side)], list(preprocess.shape)
    image = functional.resized_crop(image, *box, size, interpolation=mode, antialias=True)
    return _channels(image, preprocess)


def as_tested(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """A classifier's input [C, H, W]."""
    return normalise(prepare_crop(image, preprocess)[None], preprocess)[0]


def _channels(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    pixels = np.asarray(image.convert("RGB" if preprocess.channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], preprocess.channels).transpose(2, 0, 1)


def normalise(images: np.ndarray, preprocess: Preprocess) -> Tensor:
    """[B, C, H, W] uint8 -> float, less the mean of each channel, by its deviation."""
    values = torch.from_numpy(np.ascontiguousarray(images, np.float32)).div_(255)
    mean, std = (torch.tensor(given).view(1, -1, 1, 1) for given in (preprocess.mean, preprocess.std))
    return values.sub_(mean).div_(std)


def make_transform(preprocess: Preprocess) -> Callable[[Image.Image], Tensor]:
    """timm's transform for training: random crop, flip and RandAugment, of RGB or, where the model has one
    channel, grey images.

    RandAugment is timm's `rand-m9-mstd0.5-inc1`, the recipe of DeiT and of PiToMe, with one difference:
    posterising leaves at least one bit of a channel. At a magnitude of 10, which 2 % of the draws reach,
    timm asks for none, a black image, and Pillow refuses.
    """
    from timm.data import create_transform
    from timm.data.auto_augment import RandAugment

    augmented = create_transform(
        (preprocess.channels, preprocess.size, preprocess.size),
        is_training=True,
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        auto_augment="rand-m9-mstd0.5-inc1",
    )
    for operation in next(step.ops for step in augmented.transforms if isinstance(step, RandAugment)):
        if operation.name.startswith("Posterize"):
            operation.magnitude_max = 9.99
    transform: Callable[[Image.Image], Tensor] = augmented
    return transform


def prepared_bytes(count: int, preprocess: Preprocess) -> int:
    """What `prepared_images` of so many images take in the cache."""
    height, width = _size(preprocess)
    return count * preprocess.channels * height * width


def _size(preprocess: Preprocess) -> tuple[int, int]:
    return preprocess.shape or (preprocess.size, preprocess.size)


def prepared_images(
    read: Callable[[int], Image.Image],
    indices: Sequence[int],
    preprocess: Preprocess,
    source: Mapping[str, Any],
    *,
    title: str,
    view: Callable[[Image.Image, Preprocess], np.ndarray] = prepare,
    workers: int = 0,
) -> tuple[np.ndarray, dict[int, str]]:
    """The images `indices` [I] as the model's input before it is normalised, [I - lost, C, H, W] uint8,
    memory-mapped from the cache; second: index -> reason of those that cannot be read.

    read: an image in mode RGB, or L for a model with one channel; raises Unreadable. source: JSON that
    changes whenever an image may. title: of the progress bar. workers: processes that decode; `read` and
    `view` are pickled for them where they are not forked.
    """
    height, width = _size(preprocess)
    key = {
        **source,
        "indices": digest({"indices": list(indices)}),
        "size": [height, width],
        "channels": preprocess.channels,
        "crop": preprocess.crop_pct,
        "squash": preprocess.squash,
        "interpolation": preprocess.interpolation,
        "pillow": PIL.__version__,
    }
    if view is not prepare:
        key["view"] = view.__name__

    def fill(folder: Path) -> None:
        from tqdm import tqdm

        shape = (max(len(indices), 1), preprocess.channels, height, width)
        out = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
        images = DataLoader(
            _Views(read, indices, view, preprocess),
            batch_size=16,
            num_workers=workers,
            collate_fn=identity,
            generator=torch.Generator(),  # leaves the seed of the run alone
        )
        bar = tqdm(
            total=len(indices), desc=f"{title}: images", disable=len(indices) < 2000 or None, leave=False
        )
        lost, good = [], 0
        for index, image in itertools.chain.from_iterable(images):
            if isinstance(image, str):
                lost.append([index, image])
            else:
                out[good] = image
                good += 1
            bar.update()
        bar.close()
        out.flush()
        np.save(folder / "good.npy", good)
        np.save(folder / "lost.npy", np.array(lost, dtype=str).reshape(-1, 2))

    folder = cached("images", key, fill)
    images = np.load(folder / "images.npy", mmap_mode="r")[: int(np.load(folder / "good.npy"))]
    return images, {int(index): reason for index, reason in np.load(folder / "lost.npy").tolist()}


class _Views(Dataset[tuple[int, np.ndarray | str]]):
    """Items: an index, and its image as `view` makes it, or why it cannot be read."""

    def __init__(
        self,
        read: Callable[[int], Image.Image],
        indices: Sequence[int],
        view: Callable[[Image.Image, Preprocess], np.ndarray],
        preprocess: Preprocess,
    ) -> None:
        self.read, self.indices, self.view, self.preprocess = read, indices, view, preprocess

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[int, np.ndarray | str]:
        index = int(self.indices[position])
        try:
            return index, self.view(self.read(index), self.preprocess)
        except Unreadable as problem:
            return index, str(problem)
