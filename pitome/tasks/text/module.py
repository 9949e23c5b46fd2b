"""Texts and their classes: accuracy, F1, per-sample outcomes; training with merging on or off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from pitome.tasks.text.data import Batch

SCHEDULES = ("linear", "plateau")


@dataclass(frozen=True)
class TextRecipe:
    """How training runs.

    epochs: passes over the training texts; batch_size: texts in a step; lr: peak learning rate of
    AdamW; warmup: epochs of linear warm-up; schedule: after it `linear` to zero, or `plateau`, a
    tenth of the rate whenever an epoch brings no better validation accuracy; clip: maximal norm of
    the gradient.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup: float
    schedule: str
    clip: float


class TextClassification(lightning.LightningModule):
    """A classifier of transformers: input_ids, attention_mask [B, N] -> logits [B, classes]."""

    def __init__(self, model: nn.Module, classes: int, recipe: TextRecipe | None = None) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        # Over all samples, not a mean of batch means, which overweights a short last batch.
        self.accuracy = MulticlassAccuracy(classes, average="micro")
        self.f1 = MulticlassF1Score(classes, average="macro")
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self._outcomes: list[dict[str, Tensor]] = []

    def forward(self, batch: Batch) -> Tensor:
        return self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    def test_step(self, batch: Batch, index: int) -> None:
        logits, labels = self(batch).float(), batch["labels"]
        self.accuracy.update(logits, labels)
        self.f1.update(logits, labels)
        columns = {
            "id": batch["ids"],
            "label": labels,
            "prediction": logits.argmax(-1),
            "tokens": batch["attention_mask"].sum(-1),
        }
        self._outcomes.append({key: value.cpu() for key, value in columns.items()})

    def on_test_epoch_end(self) -> None:
        self.log_dict({"accuracy": self.accuracy, "f1": self.f1})

    def outcomes(self) -> dict[str, list[Any]]:
        """Per-sample columns of the last test in the order of the data set: id, label, prediction,
        tokens (before any merging), correct."""
        columns = {key: torch.cat([part[key] for part in self._outcomes]) for key in self._outcomes[0]}
        order = columns["id"].argsort()
        lists = {key: values[order].tolist() for key, values in columns.items()}
        lists["correct"] = [a == b for a, b in zip(lists["label"], lists["prediction"], strict=True)]
        return lists

    def training_step(self, batch: Batch, index: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch).float(), batch["labels"])
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch["labels"]))
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        self.val_accuracy.update(self(batch).float(), batch["labels"])
        self.log("val_accuracy", self.val_accuracy, prog_bar=True, batch_size=len(batch["labels"]))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        assert self.recipe is not None, "training needs a recipe"
        recipe = self.recipe
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        # Biases and norms are not decayed.
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=recipe.lr)
        if recipe.schedule == "plateau":
            # patience 0: from the first epoch without improvement on
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor=0.1, patience=0)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": plateau, "interval": "epoch", "monitor": "val_accuracy"},
            }
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = max(int(steps * recipe.warmup / recipe.epochs), 1)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return max(steps - step, 0) / max(steps - warmup, 1)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
