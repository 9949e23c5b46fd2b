"""Copies to measure with: they share weights, leave the original alone, and lose the patch."""

from __future__ import annotations

import pytest
import torch

import pitome
from pitome.errors import UsageError
from pitome.measure.copies import evaluating, meta_copy, unmerged_copy
from tests.adapters.tiny import images, mae, patch, vit


@pytest.mark.parametrize("build", [vit, mae])
@pytest.mark.parametrize("method", pitome.methods())
def test_unmerged_copy_computes_what_the_model_did_before_the_patch(build, method):
    model = build()
    x = images(model)
    with torch.no_grad():
        before = model(x)
        handle = patch(model, method, ratio=0.6)
        merged = model(x)
        tokens = handle.tokens
        twin = unmerged_copy(model)
        assert torch.equal(twin(x), before)
        assert torch.equal(model(x), merged)
    assert handle.tokens == tokens and pitome.patched(model) is handle
    assert pitome.patched(twin) is None


def test_unmerged_copy_shares_every_weight_and_buffer():
    model = vit()
    model.register_buffer("mean", torch.ones(3))
    pitome.patch(model, "tome", ratio=0.6)
    twin = unmerged_copy(model)
    ours, theirs = dict(model.named_parameters()), dict(twin.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(theirs[name] is tensor for name, tensor in ours.items())
    assert twin.mean is model.mean


def test_unmerged_copy_after_a_forward_with_gradients():
    model = vit()
    pitome.patch(model, "tome", ratio=0.6)
    model(images(model)).sum().backward()
    assert pitome.patched(unmerged_copy(model)) is None


def test_unmerged_copy_needs_a_patched_model():
    with pytest.raises(UsageError, match="is not patched"):
        unmerged_copy(vit())


def test_unmerged_copy_of_a_compiled_model_would_not_be_compiled():
    model = vit()
    pitome.patch(model, "tome", ratio=0.6)
    with pytest.raises(UsageError, match="compiled the same way"):
        unmerged_copy(torch.compile(model, backend="eager"))
    model.compile(backend="eager")
    with pytest.raises(UsageError, match="compiled the same way"):
        unmerged_copy(model)


def test_meta_copy_has_shapes_and_the_patch_but_no_memory():
    model = vit()
    handle = pitome.patch(model, "pitome", ratio=0.6)
    twin = meta_copy(model)
    assert {p.device.type for p in twin.parameters()} == {"meta"}
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    out = twin(images(model).to("meta"))
    assert out.shape == (2, 7) and out.device.type == "meta"
    assert handle.tokens == []
    with torch.no_grad():
        model(images(model))
    assert pitome.patched(twin).tokens == handle.tokens


def test_evaluating_gives_every_module_its_own_mode_back():
    model = vit().train()
    model.blocks[1].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError, match="stop"), evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        raise RuntimeError("stop")
    assert [module.training for module in model.modules()] == before
    assert torch.is_grad_enabled()
