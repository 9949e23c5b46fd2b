"""How many operators a merging layer calls beside those of the layer itself: at batch 1 they are what merging
costs."""

from __future__ import annotations

import os

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from pitome.merge import native, registry
from tests.adapters.tiny import images, patch, vit

# Of a layer on the plain path, in eager mode on a CPU; operators that another one calls are not counted. ATC
# joins one by one, so that its calls grow with what it removes.
BUDGET = {
    "atc": 256,
    "crossget": 114,
    "crossget_repo": 76,
    "dct": 56,
    "dct_repo": 62,
    "diffrate": 70,
    "diffrate_repo": 72,
    "evit": 68,
    "mctf": 134,
    "mctf_repo": 118,
    "none": 0,
    "pitome": 58,
    "pitome_repo": 58,
    "ppt": 88,
    "random": 24,
    "repshift": 50,
    "stride": 24,
    "tofu": 74,
    "tofu_repo": 68,
    "tome": 44,
    "tome_repo": 46,
}
NATIVE = {"pitome": 8, "random": 4, "tofu": 28, "tome": 8}
"""Likewise, where the compiled kernel takes over."""
LAYERS = 4


def calls(model: torch.nn.Module, inputs: torch.Tensor) -> int:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.no_grad():
        model(inputs)  # what is made once is made
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            model(inputs)
    return sum(event.name.startswith("aten::") and event.cpu_parent is None for event in profiled.events())


def added(method: str, batch: int) -> float:
    """Operator calls that merging adds to a layer."""
    model = vit(grid=(8, 8), depth=LAYERS)
    inputs = images(model, batch)
    plain = calls(model, inputs)
    patch(model, method, ratio=0.9)
    return (calls(model, inputs) - plain) / LAYERS


@pytest.fixture
def plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "fits", lambda x: False)


@pytest.mark.parametrize("method", NATIVE)
def test_the_kernel_leaves_few_operators(method: str) -> None:
    if native.kernel() is None:
        pytest.skip(native.state())
    assert added(method, 1) <= NATIVE[method]


@pytest.mark.parametrize("method", BUDGET)
def test_a_layer_calls_few_operators(method: str, plain_path: None) -> None:
    assert added(method, 1) <= BUDGET[method]


def test_every_method_has_a_budget() -> None:
    package = [
        name for name in registry.names("tower") if registry.get(name).plan.__module__.startswith("pitome.")
    ]
    assert list(BUDGET) == package


def test_a_batch_takes_no_more_than_offsets(plain_path: None) -> None:
    """The number of calls does not grow with the batch, but for the offsets of its samples."""
    assert added("pitome", 3) <= added("pitome", 1) + 8
