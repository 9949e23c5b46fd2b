"""What is timed: models by name, with random weights and random inputs (speed does not depend on them)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import pitome
from pitome.errors import PitomeError, UnsupportedModelError, UsageError
from scripts.bench.groups import BERT, CLIP


@dataclass(frozen=True)
class Subject:
    """What is timed."""

    model: nn.Module  # in eval mode
    inputs: Tensor  # a batch for it
    size: int  # what `pitome.flops` takes as input_size: pixels of an image or tokens of a text


def build(
    name: str, batch: int, size: int, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Subject:
    """The subject `name` for `batch` samples of `size` pixels or tokens.

    `bert_base`: transformers' BERT with a classifier; `clip_l336`: the image tower of CLIP ViT-L/14; any
    other name: a model of timm. Raises UsageError for one that timm does not have.
    """
    torch.manual_seed(0)
    model = _make(name, size).to(device, dtype).eval()
    if name == BERT:
        return Subject(model, torch.randint(1000, 30000, (batch, size), device=device), size)
    return Subject(model, torch.randn(batch, 3, size, size, device=device, dtype=dtype), size)


def check_model(name: str, size: int, methods: Sequence[str], ratio: float, layers: str | None) -> None:
    """Raises UsageError where the model `name` does not exist or takes one of `methods` not. Builds it
    without weights."""
    own_size(name)
    for method in methods:
        try:
            with torch.device("meta"), pitome.patch(_make(name, size), method, ratio=ratio, layers=layers):
                pass
        except PitomeError as problem:
            raise UsageError(f"{name} cannot be timed with {method}, choose others: {problem}") from None


def _make(name: str, size: int) -> nn.Module:
    if name == BERT:
        return _bert(size)
    return clip_tower(size) if name == CLIP else _timm(name, size)


def _bert(tokens: int) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(max_position_embeddings=max(tokens, 512)))


def clip_tower(pixels: int, layers: int = 24) -> nn.Module:
    """The image tower of CLIP ViT-L/14, with random weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=layers,
            num_attention_heads=16,
            image_size=pixels,
            patch_size=14,
        )
    )


def own_size(name: str) -> int:
    """Pixels or tokens that the model `name` was made for. Raises UsageError for one that timm lacks."""
    import timm

    if name in (BERT, CLIP):
        return {BERT: 128, CLIP: 336}[name]
    if not timm.is_model(name):
        raise UsageError(f"unknown model {name!r}; give a name of timm, {BERT} or {CLIP}")
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return 224 if cfg is None else cfg.input_size[1]


def _timm(name: str, pixels: int) -> nn.Module:
    import timm

    own_size(name)  # raises for an unknown one
    try:
        return timm.create_model(name, img_size=pixels)
    except TypeError as problem:  # of no VisionTransformer
        raise UnsupportedModelError(f"it is not made for images of a chosen size ({problem})") from None
