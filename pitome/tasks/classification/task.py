"""task=classification: images and their classes, top-1 and top-5; by the model's classifier or by the
vote of the nearest neighbours."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import lightning
import torch

from pitome.adapters.patch import AnyPatched
from pitome.config import Config
from pitome.measure.flops import count_flops
from pitome.merge.costs import Architecture, authors_macs, closed_form
from pitome.merge.schedule import Reduction
from pitome.records.identity import UNMERGED
from pitome.records.schema import Cost, Headline, Throughput
from pitome.search.probe import Probe
from pitome.tasks import measuring
from pitome.tasks.base import Evaluation, ImageTask, Info
from pitome.tasks.classification.data import build_image_data
from pitome.tasks.classification.models import build_vision_model
from pitome.tasks.classification.module import Classification
from pitome.tasks.classification.neighbours import Tested, Voters
from pitome.tasks.classification.probe import build_probe
from pitome.tasks.classification.training import train_from_config
from pitome.tasks.devices import fewest
from pitome.tasks.loading import gather_skipped
from pitome.tasks.loggers import OpenLogger
from pitome.tasks.subject import Subject, from_data


class ImageClassification(ImageTask):
    """A classifier on the test split: images [B, C, H, W] -> logits [B, classes]; with
    task.head=knn its backbone, images -> pooled features [B, D] (see `neighbours.py`)."""

    headline: ClassVar[Headline] = Headline(name="top1", outcome="correct")

    def __init__(self, config: Config) -> None:
        self.config = config
        built = build_vision_model(config.model, config.weights or "pretrained", config.weights_key)
        self.model, self.weights, self.sha256 = built.model, built.weights, built.sha256
        self.data = build_image_data(
            config.data,
            built.preprocess,
            config.batch_size,
            source=config.source,
            limit=config.limit,
            workers=config.workers,
            bank=config.task.bank,
        )
        self.voters: Voters | None = None
        if config.task.head == "knn":
            self.voters = Voters.choose(config.task, self.data.bank_info)
            self.note, self.classes = self.voters.note, self.data.info.classes
            self.model.reset_classifier(0)  # type: ignore[operator]  # what is left is timm's pre_logits
        else:
            self.classes = int(built.model.num_classes)  # type: ignore[arg-type]
            measuring.check_classes(
                self.classes,
                self.data.info.classes,
                random=built.weights.source == "random",
                model=config.model.name,
                data=config.data.name,
            )
        self.architecture = measuring.architecture_of(built.model)
        self.family = self.architecture.family
        self.original: Architecture | None = None  # of the model at its own size, once resized
        size = built.preprocess.size
        self.shape = (1, built.preprocess.channels, size, size)
        self.unmerged_macs = 0
        if config.measure != "none":
            self.unmerged_macs = count_flops(built.model, torch.zeros(self.shape)).macs

    @staticmethod
    def train(
        config: Config, amount: Reduction, device: torch.device, logger: OpenLogger
    ) -> tuple[Config, Path]:
        return train_from_config(config, amount, device, logger)

    @staticmethod
    def probe(config: Config, device: torch.device) -> Probe:
        return build_probe(config, device)

    @property
    def info(self) -> Info:
        return self.data.info if self.voters is None else Tested(self.data.info, self.voters.info)

    @property
    def settings(self) -> dict[str, Any]:
        settings = {} if self.voters is None else self.voters.settings
        # Before the second reader, 16-bit, transparent and turned images of a custom set had other pixels.
        return settings | ({"image_reader": 2} if self.config.data.classes else {})

    def resize(self, height: int, width: int) -> None:
        self.original = self.original or self.architecture
        self.model.set_input_size(img_size=(height, width))  # type: ignore[operator]
        self.data.preprocess = dataclasses.replace(self.data.preprocess, shape=(height, width))
        self.architecture = measuring.architecture_of(self.model)
        self.shape = (*self.shape[:2], height, width)

    def evaluate(self, trainer: lightning.Trainer) -> Evaluation:
        if self.voters is not None:
            return self.voters.evaluate(self.model, self.classes, self.data, trainer)
        module = Classification(self.model, self.classes)
        trainer.test(module, self.data, verbose=False)
        gather_skipped(self.data.info)
        return Evaluation(module.metrics(), module.outcomes(), fewest(module.parts.size))

    def cost(self, patched: AnyPatched | None) -> Cost:
        image = torch.zeros(self.shape, device=next(self.model.parameters()).device)
        cost = measuring.measure_cost(self.model, self.architecture, patched, self.unmerged_macs, image)
        if self.original is not None:
            tokens = closed_form(self.original).tokens
            unmerged = authors_macs(self.original, tokens, UNMERGED)
            cost = dataclasses.replace(cost, unmerged_authors_macs=unmerged)
        return cost

    def subject(self, count: int) -> Subject:
        chosen = range(min(count, self.data.info.n_selected))
        return Subject(self.model, from_data(self.data, chosen), self.weights, self.sha256)

    def throughput(self, patched: AnyPatched | None) -> Throughput | None:
        images = next(iter(self.data.test_dataloader()))[0].to(next(self.model.parameters()).device)
        return measuring.measure_throughput(patched, self.model, images, self.config.precision)


TASK = ImageClassification
