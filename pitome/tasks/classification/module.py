"""Image classification: top-1, top-5, per-sample outcomes; training with merging on or off."""

from __future__ import annotations

from typing import Any

import torch
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from pitome.tasks.devices import gather, of_whole_batch
from pitome.tasks.measuring import outcome_columns
from pitome.tasks.memory import Parts
from pitome.tasks.optimizers import Trainable
from pitome.tasks.recipe import Recipe


class Classification(Trainable):
    """A classifier with images [B, C, H, W] -> logits [B, classes]."""

    monitor = "val_top1"

    def __init__(self, model: nn.Module, classes: int, recipe: Recipe | None = None) -> None:
        super().__init__(model, recipe)
        self.top1 = MulticlassAccuracy(classes, top_k=1, average="micro")
        self.top5 = MulticlassAccuracy(classes, top_k=min(5, classes), average="micro")
        self.val_top1 = MulticlassAccuracy(classes, top_k=1, average="micro")
        self.parts = Parts()
        self._outcomes: list[dict[str, Tensor]] = []
        self._mixup: Mixup | None = None
        self._loss: nn.Module = nn.CrossEntropyLoss()
        if recipe is not None:
            if recipe.mixup > 0 or recipe.cutmix > 0:
                self._mixup = Mixup(
                    mixup_alpha=recipe.mixup,
                    cutmix_alpha=recipe.cutmix,
                    label_smoothing=recipe.smoothing,
                    num_classes=classes,
                )
                self._loss = SoftTargetCrossEntropy()
            else:
                self._loss = LabelSmoothingCrossEntropy(recipe.smoothing)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> None:
        images, labels, ids = batch
        logits = torch.cat(self.parts(len(images), lambda rows: self(images[rows]).float()))
        self.top1.update(logits, labels)
        self.top5.update(logits, labels)
        self._outcomes.append({"id": ids, "label": labels, "prediction": logits.argmax(-1)})

    def metrics(self) -> dict[str, float]:
        """Of the last test, over all ranks."""
        return {name: float(getattr(self, name).compute()) for name in ("top1", "top5")}

    def outcomes(self) -> dict[str, list[Any]]:
        """Per-sample columns of the last test, of all ranks: id, label, prediction, correct."""
        return outcome_columns(list(gather(self._outcomes)))

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> Tensor:
        images, labels, _ = batch
        if self._mixup is not None:
            if len(labels) % 2:  # an image could not be read; pairs are mixed
                images, labels = torch.cat([images, images[:1]]), torch.cat([labels, labels[:1]])
            images, labels = self._mixup(images, labels)
        logits = torch.cat(self.in_parts(len(images), lambda rows: self(images[rows])))
        loss: Tensor = self._loss(logits, labels)
        loss = self.distilled(loss, logits, lambda teacher: teacher(images))
        self.log("train_loss", loss, prog_bar=True)
        return of_whole_batch(loss, len(labels))

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> None:
        images, labels, _ = batch
        self.val_top1.update(self(images).float(), labels)
        self.log("val_top1", self.val_top1, prog_bar=True)
