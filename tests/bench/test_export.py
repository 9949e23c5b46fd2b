"""A patched model through torch.export and ONNX computes what it computes as it is."""

from __future__ import annotations

import importlib.util

import pytest
import torch

import pitome
from pitome.errors import UsageError
from scripts.bench import export
from tests.adapters.tiny import ONNX_SORTS, images, vit

INSTALLED = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
METHODS = ("pitome", "tome", "tofu", "diffrate")


@pytest.mark.parametrize("method", METHODS)
def test_torch_export(method):
    model = vit(depth=2)
    x = images(model)
    with torch.no_grad(), pitome.patch(model, method, ratio=0.75):
        want = model(x)
        assert torch.equal(torch.export.export(model, (x,)).module()(x), want)


@pytest.mark.skipif(not INSTALLED, reason="the extra `export` is not installed")
@pytest.mark.skipif(not ONNX_SORTS, reason="this torch has no ONNX for a stable sort")
@pytest.mark.parametrize(
    "method", ["pitome", *(pytest.param(m, marks=pytest.mark.nightly) for m in METHODS[1:])]
)
def test_onnxruntime(method):
    model = vit(depth=2)
    x = images(model)
    with pitome.patch(model, method, ratio=0.75) as patched:
        assert export.differences(model, x)["onnxruntime"] < 1e-4
        assert patched.tokens[-1] < patched.tokens[0]


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model = vit(depth=2)
    with pytest.raises(UsageError, match=r"onnx is not installed; .*pip install 'pitome\[export\]'"):
        export.export_onnx(model, images(model))
    with pytest.raises(UsageError, match="onnxruntime is not installed"):
        export.onnx_session(b"", 1)
