"""What a model is measured on: one tensor, or the keywords of its forward."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Inputs = Tensor | Mapping[str, Tensor]
"""Images [B, C, H, W], token ids [B, N], or the keywords of a forward, e.g. what a tokenizer makes."""


def forward(model: nn.Module, inputs: Inputs) -> object:
    """The model's output for `inputs`."""
    return model(inputs) if isinstance(inputs, Tensor) else model(**inputs)


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """`inputs` with floating point numbers in `dtype`, others as they are."""
    if isinstance(inputs, Tensor):
        return inputs.to(dtype) if inputs.is_floating_point() else inputs
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def batch_size(inputs: Inputs) -> int:
    """The number of samples in `inputs`."""
    return _first(inputs).shape[0]


def device_of(inputs: Inputs) -> torch.device:
    """Where `inputs` are."""
    return _first(inputs).device


def _first(inputs: Inputs) -> Tensor:
    return inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
