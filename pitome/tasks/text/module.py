"""Texts and their classes: accuracy, F1, per-sample outcomes; training with merging on or off."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from pitome.tasks.devices import gather, of_whole_batch
from pitome.tasks.measuring import outcome_columns
from pitome.tasks.memory import Parts
from pitome.tasks.optimizers import Trainable
from pitome.tasks.recipe import Recipe
from pitome.tasks.text.data import TextBatch


def rows_of(batch: TextBatch, rows: slice) -> TextBatch:
    """Some of the samples of a batch, with its padding."""
    return {key: values[rows] for key, values in batch.items()}


def logits_of(model: nn.Module, batch: TextBatch) -> Tensor:
    """[B, classes]."""
    logits: Tensor = model(**{key: batch[key] for key in ("input_ids", "attention_mask")}).logits
    return logits


class TextClassification(Trainable):
    """A classifier of transformers: input_ids, attention_mask [B, N] -> logits [B, classes]."""

    monitor = "val_accuracy"

    def __init__(self, model: nn.Module, classes: int, recipe: Recipe | None = None) -> None:
        super().__init__(model, recipe)
        self.smoothing = recipe.smoothing if recipe is not None else 0.0
        # Over all samples, not a mean of batch means, which overweights a short last batch.
        self.accuracy = MulticlassAccuracy(classes, average="micro")
        self.f1 = MulticlassF1Score(classes, average="macro")
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self.parts = Parts()
        self._outcomes: list[dict[str, Tensor]] = []

    def forward(self, batch: TextBatch) -> Tensor:
        return logits_of(self.model, batch)

    def test_step(self, batch: TextBatch, index: int) -> None:
        labels = batch["labels"]
        logits = torch.cat(self.parts(len(labels), lambda rows: self(rows_of(batch, rows)))).float()
        self.accuracy.update(logits, labels)
        self.f1.update(logits, labels)
        tokens = batch["attention_mask"].sum(-1)
        self._outcomes.append(
            {"id": batch["ids"], "label": labels, "prediction": logits.argmax(-1), "tokens": tokens}
        )

    def metrics(self) -> dict[str, float]:
        """Of the last test, over all ranks."""
        return {name: float(getattr(self, name).compute()) for name in ("accuracy", "f1")}

    def outcomes(self) -> dict[str, list[Any]]:
        """Per-sample columns of the last test, of all ranks, in the order of the data set: id, label,
        prediction, tokens (before any merging), correct."""
        return outcome_columns(list(gather(self._outcomes)))

    def training_step(self, batch: TextBatch, index: int) -> Tensor:
        labels = batch["labels"]
        logits = torch.cat(self.in_parts(len(labels), lambda rows: self(rows_of(batch, rows)))).float()
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        loss = self.distilled(loss, logits, lambda teacher: logits_of(teacher, batch))
        self.log("train_loss", loss, prog_bar=True, batch_size=len(labels))
        return of_whole_batch(loss, len(labels))

    def validation_step(self, batch: TextBatch, index: int) -> None:
        self.val_accuracy.update(self(batch).float(), batch["labels"])
        self.log("val_accuracy", self.val_accuracy, prog_bar=True, batch_size=len(batch["labels"]))
