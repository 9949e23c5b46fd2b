"""Classified images in files: folders of encoded images or parquet files, every image kept.

Images are read as docs/data.md says, and converted to grey for a model with one channel. Those that
cannot be decoded are skipped and named.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pitome.config import DataConfig
from pitome.errors import DataError, Unreadable
from pitome.sources.cache import limit_bytes
from pitome.sources.folders import check_source
from pitome.sources.hub import fetch_folder
from pitome.tasks.classification.data import ClassData
from pitome.tasks.classification.files import Folder, ImageSet, Parquet, custom_set, open_files
from pitome.tasks.data import DataInfo, Preprocess, permuted_selection
from pitome.tasks.devices import world
from pitome.tasks.images import (
    as_tested,
    make_transform,
    normalise,
    prepare_crop,
    prepared_bytes,
    prepared_images,
)
from pitome.tasks.labels import check_labels
from pitome.tasks.loading import Sample, Tolerant, TolerantLoader, collate_tolerant
from pitome.tasks.randomness import seeded
from pitome.tasks.selection import STRATIFIED, stratified_selection

_VALIDATION = 5_000  # training images at most that are kept for validation
ELSE = "give a folder with data.root=FOLDER, or use data=fashion_mnist, which needs no hub"


class ClassifiedImages(Dataset[Sample]):
    """Items: image [C, H, W], label, sample index; `ids` are the samples of `files` to give. seed: of
    training, whose items are numbers of `pitome.tasks.loading.SampleNumbers`."""

    def __init__(
        self,
        files: Folder | Parquet,
        ids: Sequence[int] | np.ndarray,
        transform: Callable[[Image.Image], Tensor],
        seed: int | None = None,
    ) -> None:
        self.files, self.ids, self.transform, self.seed = files, ids, transform, seed

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> Sample:
        index = int(self.ids[position % len(self)])
        image, label = self.files[index]
        with seeded(self.seed, position) if self.seed is not None else contextlib.nullcontext():
            return self.transform(image), label, index


class TestImages(ClassifiedImages):
    """Images as they are tested: read from their files or, once `fill` was called, from the cache."""

    __test__ = False  # no test of pytest's

    def __init__(
        self, files: Folder | Parquet, ids: Sequence[int] | np.ndarray, preprocess: Preprocess, info: DataInfo
    ) -> None:
        super().__init__(files, ids, partial(as_tested, preprocess=preprocess))
        self.preprocess, self.info = preprocess, info
        self._images: np.ndarray | None = None
        self._lost: dict[int, str] = {}
        self._places: dict[int, int] = {}

    @property
    def fits(self) -> bool:
        """Whether half of the cache holds them, so that what other runs need stays in it."""
        return 2 * prepared_bytes(len(self.ids), self.preprocess) <= limit_bytes()

    def fill(self, workers: int) -> None:
        """Decode them all, if the cache does not hold them. Raises DataError where it cannot be written."""
        files = self.files
        self._images, self._lost = prepared_images(
            self._image,
            [int(index) for index in self.ids],
            self.preprocess,
            {
                "revision": self.info.revision,
                "split": self.info.split,  # those of the hub have one revision
                "stamp": "" if self.info.source == "hub" else files.stamp(),
                "classes": len(files.known),
                **files.rules.settings(),
            },
            title=f"{self.info.name} {self.info.split}",
            view=prepare_crop,
            workers=workers,
        )
        good = (int(index) for index in self.ids if int(index) not in self._lost)
        self._places = {index: place for place, index in enumerate(good)}

    def _image(self, index: int) -> Image.Image:
        return self.files[index][0]

    def __getitem__(self, position: int) -> Sample:
        if self._images is None:
            return super().__getitem__(position)
        index = int(self.ids[position])
        if index in self._lost:
            raise Unreadable(self._lost[index])
        image = normalise(self._images[[self._places[index]]], self.preprocess)[0]
        return image, self.files.labels[index], index


def default_workers() -> int:
    """Processes that decode images: one per available core, at most 8; none on a single core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores //= world()  # which do the same
    return 0 if cores < 2 else min(8, cores)


class ImageData(ClassData):
    """Images of data.root with class folders or parquet files, or of the hub.

    limit: a permutation seeded with the data set's name chooses, because folders are sorted by class;
    sample indices are positions in file order. One in ten training images, 5,000 at most, is kept for
    validation, so that nothing is chosen on the tested split. Raises DataError, when first used.
    """

    def __init__(
        self,
        config: DataConfig,
        preprocess: Preprocess,
        batch_size: int,
        *,
        workers: int | None = None,
        kind: ImageSet | None = None,
        **how: Any,
    ) -> None:
        """kind: how the files are named; None: as of a user's own set."""
        workers = default_workers() if workers is None else workers
        super().__init__(config, preprocess, batch_size, workers=workers, **how)
        self.kind = kind or custom_set(config.name, config.classes, config.split)

    def _open(self, split: str) -> tuple[Folder | Parquet, str, str]:
        """The files of a split, where they were taken from, and their revision."""
        root = check_source(self.source, self.config.root)
        if root is not None:
            files = open_files(self.kind, root, split, self._mode, self.rules)
            return files, "local", files.revision()
        pattern = self.kind.pattern.format(self.kind.splits[split][-1])
        revision = self.config.revision
        folder = fetch_folder(
            self.config.repository,
            pattern,
            kind="dataset",
            revision=revision,
            error=DataError,
            otherwise=ELSE,
        )
        return Parquet(self.kind, folder, split, self._mode, self.rules), "hub", folder.name

    @property
    def _mode(self) -> str:
        return "L" if self.preprocess.channels == 1 else "RGB"

    def _samples(self, split: str, limit: int | None) -> tuple[Folder | Parquet, np.ndarray, DataInfo]:
        files, source, revision = self._open(split)
        ids = permuted_selection(self.kind.name, len(files), limit)
        where = (self.kind.name, revision, self.kind.splits[split][-1], source)
        info = DataInfo.of(
            *where, len(ids), len(files), classes=len(self.kind.labels), left_out=files.left_out
        )
        return files, ids, info

    @cached_property
    def _test(self) -> tuple[Folder | Parquet, np.ndarray, DataInfo]:
        return self._samples("test", self.limit)

    @cached_property
    def _train(self) -> tuple[Folder | Parquet, np.ndarray, DataInfo]:
        return self._samples("train", None)

    @property
    def info(self) -> DataInfo:
        return self._test[2]

    @property
    def train_info(self) -> DataInfo:
        return self._train[2]

    def _loader(self, data: tuple[Folder | Parquet, np.ndarray, DataInfo]) -> TolerantLoader:
        """For testing: out of the cache where that holds so many images, which several processes fill."""
        files, ids, info = data
        samples = TestImages(files, ids, self.preprocess, info)
        return TolerantLoader(
            Tolerant(samples, ids, info, partial(samples.fill, self.workers) if samples.fits else None),
            batch_size=self.batch_size,  # by name: Lightning makes loaders again, with what they were given
            num_workers=0 if samples.fits else self.workers,
            collate_fn=collate_tolerant,
        )

    @cached_property
    def _validation_ids(self) -> np.ndarray:
        files, ids, _ = self._train
        return stratified_selection(self.kind.name, files.labels, min(-(-len(ids) // 10), _VALIDATION))

    @cached_property
    def _train_ids(self) -> np.ndarray:
        """Of the training images, those for validation left out."""
        files, ids, _ = self._train
        rest = np.setdiff1d(ids, self._validation_ids)
        if self.limit_train is None:
            return rest
        labels = np.asarray(files.labels)[rest]
        chosen: np.ndarray = rest[stratified_selection(self.kind.name, labels, self.limit_train)]
        return chosen

    def train_dataloader(self) -> TolerantLoader:
        (files, _, info), ids = self._train, self._train_ids
        check_labels([files.labels[index] for index in ids], self.kind.labels, self.kind.name)
        transform = make_transform(self.preprocess)
        return TolerantLoader(
            Tolerant(ClassifiedImages(files, ids, transform, self.seed), ids, info, fill=True),
            batch_sampler=self.drawn(len(ids), self.batch_size, self.seed),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=collate_tolerant,
            generator=torch.Generator(),
        )

    def val_dataloader(self) -> TolerantLoader:
        files, _, info = self._train
        return self._loader((files, self._validation_ids, info))

    def test_dataloader(self) -> TolerantLoader:
        return self._loader(self._test)

    @cached_property
    def _bank(self) -> tuple[Folder | Parquet, np.ndarray, DataInfo]:
        files, ids, info = self._train
        info = dataclasses.replace(info, skipped={})  # its own: what voters could not be read
        if self.bank is not None and self.bank < len(files):
            ids = stratified_selection(self.kind.name, files.labels, self.bank)
            info = dataclasses.replace(info, n_selected=len(ids), limit=len(ids), selection=STRATIFIED)
        return files, ids, info

    @property
    def bank_info(self) -> DataInfo:
        return self._bank[2]

    def bank_dataloader(self) -> TolerantLoader:
        return self._loader(self._bank)
