"""Image-text models in Lightning: features of images and captions, contrastive training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from pitome.tasks.optimizers import Trainable
from pitome.tasks.recipe import Recipe
from pitome.tasks.retrieval.data import PairBatch, Split
from pitome.tasks.retrieval.recall import Retrieval, rank_features
from pitome.tasks.retrieval.rerank import Reranking

_CHUNK = 250  # captions encoded at once; twice as many take a third longer on a CPU
_PAIRS = 128  # captions that the matching head sees at once
_LARGEST_SCALE = 100.0  # of the similarities in training (Radford et al. 2021, Section 2.5)


def encode_texts(model: Any, captions: Sequence[str]) -> Tensor:
    """Features [T, D] of unit length, float32 on the CPU."""
    parts = [
        model.encode_text(captions[at : at + _CHUNK]).float().cpu() for at in range(0, len(captions), _CHUNK)
    ]
    return torch.cat(parts)


class RetrievalTest(lightning.LightningModule):
    """Encodes the images of the test batches, and the captions through `texts(encode)`, which may
    know the features [T, D] already; `ranks` afterwards."""

    def __init__(
        self,
        model: nn.Module,
        captions: Sequence[str],
        texts: Callable[[Callable[[], Tensor]], Tensor],
    ) -> None:
        super().__init__()
        self.model, self.captions, self.texts = model, captions, texts
        self._images: list[Tensor] = []
        self._text_features = torch.empty(0)

    def on_test_start(self) -> None:
        def encode() -> Tensor:
            with self.trainer.precision_plugin.test_step_context():
                return encode_texts(self.model, self.captions)

        self._text_features = self.texts(encode)

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self._images.append(self.model.encode_image(batch[0]).float().cpu())  # type: ignore[operator]

    def ranks(self, owner: Tensor) -> Retrieval:
        """owner [T]: the image that each caption belongs to."""
        return rank_features(*self.features, owner)

    @property
    def features(self) -> tuple[Tensor, Tensor]:
        """Of the images and of the captions, float32 on the CPU."""
        return torch.cat(self._images), self._text_features


class RerankTest(lightning.LightningModule):
    """Runs the images of the test batches again and lets the matching head see the pairs of
    `reranking`."""

    def __init__(self, model: Any, captions: Sequence[str], reranking: Reranking) -> None:
        super().__init__()
        self.model, self.captions, self.reranking = model, captions, reranking

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.reranking.add(self.model.image_states(batch[0]), self._match, _PAIRS)

    def _match(self, states: Tensor, captions: Sequence[int]) -> Tensor:
        texts = [self.captions[number] for number in captions]
        logits: Tensor = self.model.match(states.expand(len(texts), -1, -1), texts)
        return logits


class RetrievalTraining(Trainable):
    """Trains `model` (encode_image, encode_text, log_scale) contrastively, as CLIP does; measures R@1
    on the validation split, text to image."""

    monitor = "val_ri1"
    betas = (0.9, 0.98)

    def __init__(self, model: nn.Module, validation: Callable[[], Split], recipe: Recipe) -> None:
        super().__init__(model, recipe)
        self.validation = validation
        self._images: list[Tensor] = []

    def training_step(self, batch: PairBatch, index: int) -> Tensor:
        images, captions, same = batch
        loss = contrastive_loss(
            self.model.encode_image(images),  # type: ignore[operator]
            self.model.encode_text(captions),  # type: ignore[operator]
            self.model.log_scale.exp().clamp(max=_LARGEST_SCALE),  # type: ignore[operator]
            same,
        )
        self.log("train_loss", loss, prog_bar=True, batch_size=len(captions))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._images = []

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self._images.append(self.model.encode_image(batch[0]).float().cpu())  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        split, images = self.validation(), torch.cat(self._images)
        # Lightning's check before training sees a few batches only.
        known = split.owner < len(images)
        captions = [text for text, use in zip(split.captions, known.tolist(), strict=True) if use]
        with self.trainer.precision_plugin.val_step_context():
            texts = encode_texts(self.model, captions)
        ranks = rank_features(images, texts, split.owner[known])
        self.log("val_ri1", float((ranks.to_image < 1).double().mean()), prog_bar=True)


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """Symmetric cross entropy of the similarities of images and texts [B, D] of unit length, times
    `scale` (Radford et al. 2021, Figure 3).

    same [B]: where two numbers are equal, either caption fits both images, so neither is a
    negative of the other.
    """
    logits = scale * images @ texts.T
    alike = same[:, None] == same[None, :]
    alike.fill_diagonal_(False)
    logits = logits.float().masked_fill(alike, -torch.inf)
    targets = torch.arange(len(logits), device=logits.device)
    cross = nn.functional.cross_entropy
    return (cross(logits, targets) + cross(logits.T, targets)) / 2
