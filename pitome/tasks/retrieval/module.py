"""Image-text models in Lightning: features of images and captions, contrastive training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from pitome.tasks.devices import gather, gather_rows, own_rows, row_order
from pitome.tasks.memory import Parts
from pitome.tasks.optimizers import Trainable
from pitome.tasks.recipe import Recipe
from pitome.tasks.retrieval.data import PairBatch, Split
from pitome.tasks.retrieval.recall import Retrieval, rank_features
from pitome.tasks.retrieval.rerank import Reranking

_PAIRS = 128  # captions that the matching head sees at once
_CHUNK = 250  # captions encoded at once; twice as many take a third longer on a CPU
_LARGEST_SCALE = 100.0  # of the similarities in training (Radford et al. 2021, Section 2.5)


def encode_texts(model: Any, captions: Sequence[str]) -> Tensor:
    """Features [T, D] of unit length, float32 on the CPU."""
    parts = Parts(_CHUNK)
    return torch.cat(parts(len(captions), lambda rows: model.encode_text(captions[rows]).float().cpu()))


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
        self.parts = Parts()
        self._images: list[Tensor] = []
        self._text_features = torch.empty(0)

    def on_test_start(self) -> None:
        def encode() -> Tensor:
            with self.trainer.precision_plugin.test_step_context():
                return encode_texts(self.model, self.captions)

        self._text_features = self.texts(encode)

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, encode = batch[0], self.model.encode_image
        parts = self.parts(len(images), lambda rows: encode(images[rows]).float().cpu())  # type: ignore[operator]
        self._images.append(torch.cat(parts))

    def ranks(self, owner: Tensor) -> Retrieval:
        """owner [T]: the image that each caption belongs to."""
        return rank_features(*self.features, owner)

    @cached_property
    def features(self) -> tuple[Tensor, Tensor]:
        """Of the images of all ranks and of the captions, float32 on the CPU; after the test."""
        return torch.cat(list(gather(self._images))), self._text_features


class RerankTest(lightning.LightningModule):
    """Runs the images of the test batches again and lets the matching head see the pairs of
    `reranking`."""

    def __init__(self, model: Any, captions: Sequence[str], reranking: Reranking) -> None:
        super().__init__()
        self.model, self.captions, self.reranking = model, captions, reranking
        self.parts, self.pairs = Parts(), Parts(_PAIRS)
        self._logits: list[list[tuple[int, Tensor]]] = []

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, places = batch
        states = torch.cat(self.parts(len(images), lambda rows: self.model.image_states(images[rows])))
        self._logits.append(
            [
                (place, self.reranking.logits(place, state, self._match, self.pairs))
                for place, state in zip(places.tolist(), states, strict=True)
            ]
        )

    def ranks(self, owner: Tensor) -> Retrieval:
        """owner [T]: the image that each caption belongs to."""
        for batch in gather(self._logits):
            for image, logits in batch:
                self.reranking.fill(image, logits)
        return self.reranking.ranks(owner)

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
        count = len(batch[1])
        images, captions = (samples[own_rows(count)] for samples in batch[:2])
        model: Any = self.model
        seen = self.in_parts(len(captions), lambda rows: model.encode_image(images[rows]))
        read = self.in_parts(len(captions), lambda rows: model.encode_text(captions[rows]))
        loss = contrastive_loss(
            gather_rows(torch.cat(seen), count),
            gather_rows(torch.cat(read), count),
            model.log_scale.exp().clamp(max=_LARGEST_SCALE),
            batch[2][row_order(count)],
        )
        self.log("train_loss", loss, prog_bar=True, batch_size=count)
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
