"""Tiny text encoders with weights large enough for attention to be uneven, and sentences for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

torch.set_num_threads(1)

VOCABULARY = 60
LONGEST = 96
_BERT = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
_DISTILBERT = {"dim": 32, "n_heads": 4, "hidden_dim": 64}


def settings(family: str, depth: int = 4, **kwargs: Any) -> Any:
    """The configuration of a tiny `bert` or `distilbert`."""
    common = {"vocab_size": VOCABULARY, "max_position_embeddings": LONGEST, "num_labels": 3, **kwargs}
    if family == "bert":
        return BertConfig(**_BERT, num_hidden_layers=depth, **common)
    return DistilBertConfig(**_DISTILBERT, n_layers=depth, **common)


def seeded(model: Any, seed: int = 0) -> Any:
    """`model` in eval mode with seeded weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.lower().endswith(("layernorm.weight", "layer_norm.weight")):
                parameter.copy_(1 + 0.1 * noise)
            elif "embeddings" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise * (parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1))
    return model.eval()


def bert(seed: int = 0, **kwargs: Any) -> Any:
    """A BERT classifier of 4 layers, width 32, 3 classes."""
    return seeded(BertForSequenceClassification(settings("bert", **kwargs)), seed)


def distilbert(seed: int = 0, **kwargs: Any) -> Any:
    """A DistilBERT classifier of 4 layers, width 32, 3 classes."""
    return seeded(DistilBertForSequenceClassification(settings("distilbert", **kwargs)), seed)


BUILD = {"bert": bert, "distilbert": distilbert}


def sentence(length: int, seed: int = 0) -> Tensor:
    """Token ids [1, length] without padding."""
    return torch.randint(
        1, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(100 * seed + length)
    )


def batch(sentences: list[Tensor], extra: int = 0) -> dict[str, Tensor]:
    """What a tokenizer makes of `sentences`: padded on the right to the longest, and by `extra`."""
    n = max(s.shape[1] for s in sentences) + extra
    ids, mask = (torch.zeros(len(sentences), n, dtype=torch.long) for _ in range(2))
    for row, s in enumerate(sentences):
        ids[row, : s.shape[1]] = s[0]
        mask[row, : s.shape[1]] = 1
    return {"input_ids": ids, "attention_mask": mask}
