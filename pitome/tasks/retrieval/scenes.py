"""Scenes out of Fashion-MNIST as a retrieval data set: see `pitome.tasks.retrieval.scenes_make`.

1,000 test scenes of test images; 500 validation scenes of the last 5,000 training images; training
scenes, made batch by batch, of the other 55,000.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image

from pitome.errors import DataError
from pitome.sources.cache import cached
from pitome.sources.checksums import checksum, checksum_of_arrays
from pitome.sources.fashion_mnist import VALIDATION, locate, read_split
from pitome.tasks.retrieval.pairs import Pairs
from pitome.tasks.retrieval.scenes_make import (
    KINDS,
    Scenes,
    describe,
    indices_by_label,
    layouts,
    make,
    neighbours,
    place,
)

SCENES = {"test": 1000, "validation": 500}
EPOCH = 25_600  # training scenes
_SEEDS = {"test": 0, "validation": 1}
_VERSION = 1  # raised when the same seed gives other scenes


def scenes_pairs(split: str, *, source: str, root: str | None, repository: str, revision: str) -> Pairs:
    """The `test` or `validation` scenes, of Fashion-MNIST from wherever `pitome.sources.fashion_mnist`
    finds it; cached. Raises DataError."""
    origin, images, labels = _items(split, source, root, repository, revision)
    key = {"items": checksum_of_arrays(images, labels), "split": split, "version": _VERSION}

    def fill(folder: Path) -> None:
        random = np.random.RandomState(_SEEDS[split])
        scenes = make(images, labels, SCENES[split], random, distinct=True)
        np.save(folder / "kinds.npy", scenes.kinds)
        np.save(folder / "images.npy", scenes.images)

    scenes, captions, revision = _read(cached("scenes", key, fill))
    return Pairs(
        source=origin,
        revision=revision,
        names=[f"scene {index}" for index in range(len(captions))],
        captions=captions,
        read=lambda index: Image.fromarray(scenes.images[index]).convert("RGB"),
    )


@functools.lru_cache(maxsize=2)  # for the runs of a sweep; the folder is named after what it holds
def _read(folder: Path) -> tuple[Scenes, list[list[str]], str]:
    """The scenes in a folder of the cache, the captions of each, and a checksum of both."""
    scenes = Scenes(np.load(folder / "kinds.npy"), np.load(folder / "images.npy"))
    captions = [scenes.captions(index) for index in range(len(scenes.kinds))]
    return (
        scenes,
        captions,
        checksum([scenes.images.tobytes(), *(text for texts in captions for text in texts)]),
    )


class TrainingScenes:
    """Batches of training scenes, each determined by its number and the seed.

    Every second scene is the neighbour of another one of the batch, which one item tells apart.
    """

    def __init__(
        self,
        batch_size: int,
        seed: int,
        epoch: int | None = None,
        *,
        source: str,
        root: str | None,
        repository: str,
        revision: str,
    ) -> None:
        """epoch: its scenes, EPOCH by default. Raises DataError where Fashion-MNIST is not available."""
        _, self.images, labels = _items("train", source, root, repository, revision)
        self.by_label = indices_by_label(labels)
        self.batch_size, self.seed, self.epoch = batch_size, seed, epoch or EPOCH

    def __len__(self) -> int:
        """Batches in an epoch."""
        return max(self.epoch // self.batch_size, 1)

    def __getitem__(self, number: int) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Batch `number`, counted over all epochs: images [B, 56, 56] uint8, one caption of each, and the
        scenes they show: equal rows of [B] numbers are equal scenes."""
        random = np.random.RandomState([self.seed, number])
        first = layouts(-(-self.batch_size // 2), random, distinct=False)
        kinds = np.concatenate([first, neighbours(first, random)])[: self.batch_size]
        images = place(self.images, kinds, self.by_label, random)
        captions = [texts[random.randint(len(texts))] for texts in map(describe, kinds)]
        _, same = np.unique(kinds, axis=0, return_inverse=True)
        return images, captions, same.reshape(-1)


def _items(
    split: str, source: str, root: str | None, repository: str, revision: str
) -> tuple[str, np.ndarray, np.ndarray]:
    """Where Fashion-MNIST was found, images and labels that a split of scenes is made of."""
    part = "test" if split == "test" else "train"
    where = locate(source, root, part, repository, revision)
    images, labels = read_split(where, part)
    if split != "test":
        part_of = slice(-VALIDATION, None) if split == "validation" else slice(None, -VALIDATION)
        images, labels = images[part_of], labels[part_of]
    if missing := [kind for label, (kind, _) in enumerate(KINDS) if label not in labels]:
        raise DataError(f"{where.folder} holds no {missing[0]} to make {split} scenes of; use source=package")
    return where.source, images, labels
