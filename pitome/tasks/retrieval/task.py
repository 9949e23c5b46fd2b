"""task=retrieval: images and their captions, recall at 1, 5 and 10 in both directions, and Rsum."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import lightning
import numpy as np
import torch
from torch import Tensor

from pitome.adapters.patch import AnyPatched
from pitome.config import Config, plain
from pitome.measure.copies import meta_copy
from pitome.measure.flops import count_flops
from pitome.merge.schedule import Reduction
from pitome.records.schema import Cost, Headline, Throughput
from pitome.search.probe import Probe
from pitome.sources.cache import cached
from pitome.sources.checksums import checksum
from pitome.tasks import measuring
from pitome.tasks.base import Evaluation, ImageTask
from pitome.tasks.data import DataInfo
from pitome.tasks.devices import fewest
from pitome.tasks.loggers import OpenLogger
from pitome.tasks.retrieval.blip import ImageTextMatching
from pitome.tasks.retrieval.data import RetrievalData
from pitome.tasks.retrieval.models import build_retrieval_model
from pitome.tasks.retrieval.module import RerankTest, RetrievalTest
from pitome.tasks.retrieval.probe import build_probe
from pitome.tasks.retrieval.recall import KS, Retrieval, check_ks
from pitome.tasks.retrieval.rerank import Reranking
from pitome.tasks.retrieval.training import train_retrieval, train_split
from pitome.tasks.subject import Subject, tower

_COUNTED: dict[str, tuple[int, int]] = {}


class ImageTextRetrieval(ImageTask):
    """A model of images [B, C, H, W] and captions, each to a feature [B, D] of unit length; the image
    tower merges.

    Costs are of one image: the image tower, and in total with what makes features of its states, and
    with the captions that come with it.
    """

    headline: ClassVar[Headline] = Headline(name="mean_recall", outcome="recall")

    def __init__(self, config: Config) -> None:
        self.config = config
        built = build_retrieval_model(config.model, config.weights or "pretrained", config.weights_key)
        self.weights, self.sha256 = built.weights, built.sha256
        self.model: Any = built.model
        self.data = RetrievalData(
            config.data, built.preprocess, config.batch_size, source=config.source, limit=config.limit
        )
        check_ks(KS, len(self.data.test.ids))
        self.architecture = measuring.architecture_of(self.tower)
        self.family = self.architecture.family
        self.shape = (1, built.preprocess.channels, built.preprocess.size, built.preprocess.size)
        # Of these the matching head decides, for every image and every caption.
        self.candidates = config.task.rerank if isinstance(self.model, ImageTextMatching) else 0
        self.unmerged_macs = self.text_macs = 0
        if config.measure != "none":
            self.unmerged_macs, self.text_macs = self._count()

    @property
    def tower(self) -> Any:
        """The image tower, which is what a cost is of: images [B, C, H, W] -> features."""
        return self.model.image_tower

    @staticmethod
    def train(
        config: Config, amount: Reduction, device: torch.device, logger: OpenLogger
    ) -> tuple[Config, Path]:
        return train_retrieval(config, amount, device, logger)

    @staticmethod
    def train_split(config: Config) -> str | None:
        return train_split(config)

    @staticmethod
    def probe(config: Config, device: torch.device) -> Probe:
        return build_probe(config, device)

    @property
    def settings(self) -> dict[str, Any]:
        return {"rerank": self.candidates} if self.candidates else {}

    @property
    def info(self) -> DataInfo:
        info = self.data.info
        if info.n_truncated is None:
            info.n_truncated = self.model.count_truncated(self.data.test.captions)
        return info

    def evaluate(self, trainer: lightning.Trainer) -> Evaluation:
        split = self.data.test
        module = RetrievalTest(self.model, split.captions, self._texts)
        trainer.test(module, self.data, verbose=False)
        ranks = module.ranks(split.owner)
        metrics = ranks.recalls(KS) | self._reranked(trainer, module)
        return Evaluation(
            metrics | {"mean_recall": metrics["rsum"] / (200 * len(KS))},
            outcomes(ranks, split.owner, split.ids),
            fewest(module.parts.size),
        )

    def _reranked(self, trainer: lightning.Trainer, module: RetrievalTest) -> dict[str, float]:
        """Recalls after re-ranking, `reranked_rt1`, ...; none of a model without a matching head."""
        if not self.candidates:
            return {}
        split = self.data.test
        reranking = Reranking(*module.features, self.candidates)
        matching = RerankTest(self.model, split.captions, reranking)
        trainer.test(matching, self.data, verbose=False)
        return {f"reranked_{key}": value for key, value in matching.ranks(split.owner).recalls(KS).items()}

    def cost(self, patched: AnyPatched | None) -> Cost:
        # One blank image more than the test has: less than a forward on the meta device takes.
        image = torch.zeros(self.shape, device=next(self.model.parameters()).device)
        cost = measuring.measure_cost(self.tower, self.architecture, patched, self.unmerged_macs, image)
        captions = len(self.data.test.captions) / len(self.data.test.ids)
        texts = round(captions * self.text_macs)
        left, all_tokens = (measuring.tokens_per_layer(self.architecture, p)[-1] for p in (patched, None))
        return dataclasses.replace(
            cost,
            total_macs=cost.macs + self.model.feature_macs(left) + texts,
            unmerged_total_macs=cost.unmerged_macs + self.model.feature_macs(all_tokens) + texts,
        )

    def subject(self, count: int) -> Subject:
        split = self.data.test
        ids = split.ids[:count]
        first = [split.owner.tolist().index(place) for place in range(len(ids))]
        return tower(
            self.model,
            self.model.encode_image,
            split.images[: len(ids)],
            [f"test {number}" for number in ids],
            self.data.preprocess,
            self.weights,
            self.sha256,
            [f"{number}: {split.captions[at]}" for number, at in zip(ids, first, strict=True)],
        )

    def throughput(self, patched: AnyPatched | None) -> Throughput | None:
        images = next(iter(self.data.test_dataloader()))[0].to(next(self.model.parameters()).device)
        return measuring.measure_throughput(patched, self.tower, images, self.config.precision)

    def _count(self) -> tuple[int, int]:
        """MACs of one image without merging, and of one caption; counted once for all runs of a sweep."""
        key = repr(self.config.model)
        if key not in _COUNTED:
            image = torch.zeros(self.shape, device="meta")
            _COUNTED[key] = count_flops(meta_copy(self.tower), image).macs, self.model.text_macs()
        return _COUNTED[key]

    def _texts(self, encode: Callable[[], Tensor]) -> Tensor:
        """The features of the captions [T, D], which no merging of images changes: from the cache, if
        this model has encoded them before."""
        config = self.config
        key = {
            "model": plain(config.model),
            "weights": self.sha256 or f"random, seed {config.seed}",
            "captions": checksum(self.data.test.captions),
            "precision": str(config.precision),
            "device": next(self.model.parameters()).device.type,
            "torch": torch.__version__,
        }
        folder = cached("texts", key, lambda place: np.save(place / "features.npy", encode().numpy()))
        return torch.from_numpy(np.load(folder / "features.npy"))


def outcomes(ranks: Retrieval, owner: Tensor, ids: list[int]) -> dict[str, list[Any]]:
    """Columns per image: id; recall, whose mean over the images is the mean recall (Rsum / 600);
    text_rank of its best caption; image_rank, the mean over its captions.

    An image and its captions are one sample: what is drawn together in a bootstrap. A caption weighs
    as much as in the recall over all captions, also where images have different numbers of them.
    """
    images, captions = len(ids), len(owner)
    found_text = sum((ranks.to_text < k).double() for k in KS)
    found_image = sum((ranks.to_image < k).double() for k in KS)
    assert isinstance(found_text, Tensor) and isinstance(found_image, Tensor)
    per_image = torch.zeros(images, dtype=torch.double).index_add_(0, owner, found_image) * images / captions
    rank = torch.zeros(images, dtype=torch.double).index_add_(0, owner, ranks.to_image.double())
    return {
        "id": ids,
        "recall": ((found_text + per_image) / (2 * len(KS))).tolist(),
        "text_rank": ranks.to_text.tolist(),
        "image_rank": (rank / torch.bincount(owner, minlength=images)).tolist(),
    }


TASK = ImageTextRetrieval
