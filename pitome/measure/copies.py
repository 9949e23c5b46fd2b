"""Copies of a model that cost no memory, to measure with."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pitome.adapters.patch import patched, remove
from pitome.errors import UsageError


def unmerged_copy(model: nn.Module) -> nn.Module:
    """A copy of the patched `model` without the patch; parameters and buffers are the same tensors.

    Raises UsageError for a model that is not patched, and for a compiled one: its copy would run
    uncompiled.
    """
    if patched(model) is None:
        raise UsageError(
            f"this {type(model).__name__} is not patched; patch it, or give the model to compare with"
        )
    if any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules()):
        raise UsageError(
            "the model is compiled; give the model to compare with as well, compiled the same way"
        )
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in _weights(model)})
    remove(copied)
    return copied


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy of `model`, patched if it is, on the meta device: shapes without memory or arithmetic."""
    memo = {}
    for tensor in _weights(model):
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(model, memo)


@contextlib.contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """`models` in evaluation mode and without gradients; every module gets its own mode back."""
    before = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training


def _weights(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
