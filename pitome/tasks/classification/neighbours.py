"""task.head=knn: a backbone without a classifier is tested by the vote of similar training images.

The protocol by which self-supervised backbones are compared, with DINO's k of 20 and temperature of
0.07 (see `knn.py`). The images that vote (the bank) go through the very model that is
tested: where it merges tokens, it merges theirs too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from pitome.config import TaskConfig
from pitome.tasks.base import Evaluation
from pitome.tasks.classification.data import ClassData
from pitome.tasks.classification.knn import Bank, check_count, rank, vote
from pitome.tasks.data import DataInfo
from pitome.tasks.devices import fewest, gather, world
from pitome.tasks.loading import ImageBatch, gather_skipped
from pitome.tasks.measuring import outcome_columns
from pitome.tasks.memory import Parts


class NearestNeighbours(lightning.LightningModule):
    """A backbone, images [B, C, H, W] -> features [B, D], and the neighbours' vote.

    Predicting fills the bank with `size` images, testing lets it vote on `classes` classes.
    """

    def __init__(self, backbone: nn.Module, classes: int, *, k: int, temperature: float, size: int) -> None:
        super().__init__()
        self.model = backbone
        self.classes, self.k, self.temperature = classes, k, temperature
        self.bank = Bank(size)
        self.parts = Parts()
        self._voters: list[tuple[Tensor, Tensor]] = []
        self._outcomes: list[dict[str, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Votes [B, classes], on the CPU."""
        features = self._features(images)
        with torch.autocast(features.device.type, enabled=False):
            similarity, labels = self.bank.neighbours(features, self.k)
        return vote(similarity, labels, self.classes, self.temperature)

    def _features(self, images: Tensor) -> Tensor:
        return torch.cat(self.parts(len(images), lambda rows: self.model(images[rows])))

    def predict_step(self, batch: ImageBatch, index: int) -> None:
        images, labels, _ = batch
        features = self._features(images)
        if world() == 1:
            self.bank.add(features, labels)
        else:
            self._voters.append((features.cpu(), labels.cpu()))

    def gather_bank(self, device: torch.device) -> None:
        """Complete the bank with what all ranks have predicted, in the order of one process."""
        for features, labels in gather(self._voters):
            self.bank.add(features.to(device), labels.to(device))
        self._voters = []

    def test_step(self, batch: ImageBatch, index: int) -> None:
        images, labels, ids = batch
        votes, labels = self(images), labels.cpu()
        self._outcomes.append(
            {"id": ids, "label": labels, "prediction": votes.argmax(1), "rank": rank(votes, labels)}
        )

    def evaluation(self) -> Evaluation:
        """The last test, of all ranks; per-sample columns: id, label, prediction, correct."""
        outcomes = list(gather(self._outcomes))
        ranks = torch.cat([part.pop("rank") for part in outcomes])
        metrics = {f"top{n}": (ranks < n).float().mean().item() for n in (1, 5)}
        return Evaluation(metrics, outcome_columns(outcomes), fewest(self.parts.size))


@dataclass(frozen=True)
class Tested:
    """Where the samples of a run came from, and the bank that votes on them."""

    data: DataInfo
    bank: DataInfo

    def record(self) -> dict[str, Any]:
        """The entries of a record."""
        return self.data.record() | {"bank": self.bank.record()}


@dataclass(frozen=True)
class Voters:
    """What `task.head=knn` was asked for."""

    info: DataInfo  # of the images of the bank
    k: int
    temperature: float

    @classmethod
    def choose(cls, task: TaskConfig, info: DataInfo) -> Voters:
        """info: of the bank. Raises UsageError where it has fewer than k images."""
        check_count(task.k, info.n_selected)
        return cls(info, task.k, float(task.temperature))

    @property
    def settings(self) -> dict[str, Any]:
        """What the vote depends on, for the run's identity. The bank's features are the run's own."""
        return {
            "head": "knn",
            "k": self.k,
            "temperature": self.temperature,
            "bank": self.info.n_selected,
            "bank revision": self.info.revision[-12:],
            "bank features": "same model",
        }

    @property
    def note(self) -> str:
        """For tables."""
        warm = "" if self.temperature == TaskConfig.temperature else f", temperature {self.temperature:g}"
        return f" (kNN, k={self.k}{warm}, bank {self.info.n_selected:,})"

    def evaluate(
        self,
        backbone: nn.Module,
        classes: int,
        data: ClassData,
        trainer: lightning.Trainer,
    ) -> Evaluation:
        """Fill the bank, then test. Raises UsageError where fewer than k images can be read."""
        module = NearestNeighbours(
            backbone, classes, k=self.k, temperature=self.temperature, size=self.info.n_selected
        )
        trainer.predict(module, data.bank_dataloader(), return_predictions=False)
        gather_skipped(self.info)
        module.gather_bank(trainer.strategy.root_device)
        check_count(self.k, len(module.bank))
        trainer.test(module, data, verbose=False)
        gather_skipped(data.info)
        return module.evaluation()
