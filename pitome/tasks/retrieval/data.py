"""Image-text retrieval: prepared images and their captions, for testing and for training.

Images are decoded and resized once and kept in a bounded cache (`pitome.sources.cache`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pitome.config import DataConfig
from pitome.errors import DataError, Unreadable, UsageError, nearest
from pitome.sources.images import ImageRules
from pitome.tasks.data import DataInfo, Preprocess, permuted_selection
from pitome.tasks.images import normalise, prepare, prepared_images
from pitome.tasks.loading import TrainingData, identity
from pitome.tasks.retrieval.files import custom_pairs, file_pairs
from pitome.tasks.retrieval.pairs import CAPTIONS, Pairs
from pitome.tasks.retrieval.scenes import TrainingScenes, scenes_pairs
from pitome.tasks.retrieval.sets import NAMES, SETS

PairBatch = tuple[Tensor, list[str], Tensor]
"""images [B, C, H, W], one caption of each, [B] numbers that are equal where captions fit both images."""


@dataclass(frozen=True)
class Split:
    """The images of a split, prepared for the model, with their captions."""

    images: np.ndarray  # [I, C, H, W] uint8
    ids: list[int]  # [I] rows in the data set
    captions: list[str]  # [T]
    owner: Tensor  # [T] which of the I images each caption belongs to
    info: DataInfo


class Prepared(Dataset[tuple[Tensor, Tensor]]):
    """Items: image [C, H, W] normalised, its place in the split; asked for many, it makes a batch."""

    def __init__(self, images: np.ndarray, preprocess: Preprocess) -> None:
        self.images, self.preprocess = images, preprocess

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, places: list[int]) -> tuple[Tensor, Tensor]:
        return normalise(self.images[places], self.preprocess), torch.tensor(places)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        images, places = self.__getitems__([place])
        return images[0], places[0]


class SceneBatches(Dataset[PairBatch]):
    """Item n: the n-th training batch of scenes."""

    def __init__(self, scenes: TrainingScenes, preprocess: Preprocess) -> None:
        self.scenes, self.preprocess = scenes, preprocess

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, number: int) -> PairBatch:
        images, captions, same = self.scenes[number]
        prepared = np.stack([prepare(Image.fromarray(image), self.preprocess) for image in images])
        return normalise(prepared, self.preprocess), captions, torch.from_numpy(same)


class FileBatches(Dataset[PairBatch]):
    """Item n: the n-th training batch of captions, each with its photograph, cut out at random (at least half
    of the area). An epoch has every caption once, as in the authors' code (LAVIS,
    datasets/retrieval_datasets.py:8): Flickr30k 145,000, not 29,000. Its order and the cuts follow from the
    seed."""

    def __init__(
        self, pairs: Pairs, preprocess: Preprocess, batch_size: int, seed: int, chosen: np.ndarray
    ) -> None:
        """chosen: the images that are trained on, if they have a caption."""
        self.pairs, self.preprocess, self.batch_size, self.seed = pairs, preprocess, batch_size, seed
        texts = [(index, place) for index in chosen for place in range(len(pairs.captions[index]))]
        self.usable = np.array(texts, dtype=np.int64).reshape(-1, 2)  # [T, 2] image, which of its captions
        if len(np.unique(self.usable[:, 0])) < 2:
            raise DataError("training needs two images with captions at least; give more data")

    def __len__(self) -> int:
        return max(len(self.usable) // self.batch_size, 1)

    def __getitem__(self, number: int) -> PairBatch:
        epoch, step = divmod(number, len(self))
        order = np.random.RandomState([self.seed, epoch]).permutation(self.usable)
        random = np.random.RandomState([self.seed, epoch, step])
        images, captions, ids = [], [], []
        for index, place in order[step * self.batch_size : (step + 1) * self.batch_size].tolist():
            try:
                image = self.pairs.read(index)
            except Unreadable:
                continue  # the test counts and names such images; training goes on without them
            images.append(_cut(image, self.preprocess, random))
            captions.append(self.pairs.captions[index][place])
            ids.append(index)
        if not images:
            raise DataError("none of the images of a training batch can be read; check the folder")
        return normalise(np.stack(images), self.preprocess), captions, torch.tensor(ids)


class RetrievalData(TrainingData):
    """Test batches of a retrieval file of conf/data: images [B, C, H, W] as `preprocess` asks, their places
    in the split [B]; nothing is read or fetched before it is used.

    limit: so many test images, drawn by a permutation seeded with the name. Images that cannot be
    read, and those without a caption, are left out and named in `info`; captions of an image left
    out go with it. seed: of training batches; limit_train: so many training images, drawn likewise (scenes:
    in an epoch). Raises UsageError for an unknown name, DataError, when first
    used, for data that is missing or damaged, and where no image is left.
    """

    def __init__(
        self,
        config: DataConfig,
        preprocess: Preprocess,
        batch_size: int,
        *,
        source: str = "auto",
        limit: int | None = None,
        seed: int = 0,
        workers: int = 0,
        limit_train: int | None = None,
    ) -> None:
        super().__init__()
        if config.name not in NAMES and config.root is None:
            raise UsageError(f"unknown data {config.name!r}; {nearest(config.name, NAMES)}")
        self.name: str = config.name
        self.rules = ImageRules.of(config.max_pixels, config.exif)
        self.preprocess, self.batch_size = preprocess, batch_size
        self.limit, self.seed, self.workers, self.limit_train = limit, seed, workers, limit_train
        self.place: dict[str, Any] = {
            "source": source,
            "root": config.root,
            "repository": config.repository,
            "revision": config.revision,
        }

    @cached_property
    def test(self) -> Split:
        return self._split("test", self.limit)

    @cached_property
    def validation(self) -> Split:
        return self._split("validation", None)

    @property
    def info(self) -> DataInfo:
        """Of the test split."""
        return self.test.info

    def _pairs(self, split: str) -> Pairs:
        if self.name == "scenes":
            return scenes_pairs(split, **self.place)
        if self.name not in SETS:
            root, source = self.place["root"], self.place["source"]
            return custom_pairs(self.name, split, source=source, root=root, rules=self.rules)
        return file_pairs(self.name, split, **self.place, rules=self.rules)

    def _split(self, split: str, limit: int | None) -> Split:
        pairs = self._pairs(split)
        total = len(pairs.names)
        chosen = permuted_selection(self.name, total, limit)
        info = DataInfo.of(self.name, pairs.revision, split, pairs.source, len(chosen), total)
        captions = {int(i): [text for text in pairs.captions[i] if text.strip()][:CAPTIONS] for i in chosen}
        info.skipped.update(
            {i: f"{pairs.names[i]}: no caption" for i, texts in captions.items() if not texts}
        )
        wanted = [i for i, texts in captions.items() if texts]
        images, lost = prepared_images(
            pairs.read,
            wanted,
            self.preprocess,
            {"revision": pairs.revision, "stamp": pairs.stamp, **pairs.settings},
            title=f"{self.name} {split}",
        )
        for i, reason in lost.items():
            info.skipped[i] = f"{reason}, left out with its {len(captions[i])} captions"
        ids = [i for i in wanted if i not in lost]
        if not ids:
            first = min(info.skipped, default=None)
            reason = "" if first is None else f": {info.skipped[first]}"
            raise DataError(
                f"none of the {len(chosen)} images of {self.name} can be used{reason}; give others"
            )
        owner = [place for place, i in enumerate(ids) for _ in captions[i]]
        return Split(images, ids, [text for i in ids for text in captions[i]], torch.tensor(owner), info)

    def _loader(self, split: Split) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(
            Prepared(split.images, self.preprocess),
            batch_size=self.batch_size,
            collate_fn=identity,
            num_workers=0,
        )

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return self._loader(self.test)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return self._loader(self.validation)

    def held_out(self, limit: int) -> tuple[DataLoader[tuple[Tensor, Tensor]], DataInfo]:
        """So many images of the validation split, and where they come from."""
        split = self._split("validation", limit)
        return self._loader(split), split.info

    def train_dataloader(self) -> DataLoader[PairBatch]:
        batches: SceneBatches | FileBatches
        if self.name == "scenes":
            scenes = TrainingScenes(self.batch_size, self.seed, self.limit_train, **self.place)
            batches = SceneBatches(scenes, self.preprocess)
        else:
            pairs = self._pairs("train")
            chosen = permuted_selection(self.name, len(pairs.names), self.limit_train)
            batches = FileBatches(pairs, self.preprocess, self.batch_size, self.seed, chosen)
        return self.step_loader(batches, self.workers)


def _cut(image: Image.Image, preprocess: Preprocess, random: np.random.RandomState) -> np.ndarray:
    """As `prepare`, of a random part of the image with its shape."""
    side = float(np.sqrt(random.uniform(0.5, 1.0)))
    width, height = (max(round(length * side), 1) for length in image.size)
    left, top = random.randint(image.width - width + 1), random.randint(image.height - height + 1)
    return prepare(image.crop((left, top, left + width, top + height)), preprocess)
