"""Counted FLOPs against known sums and against the closed form."""

from __future__ import annotations

import functools

import pytest
import timm
import torch
from torch import nn

import pitome
from pitome.errors import UnsupportedModelError, UsageError
from pitome.measure.flops import count_flops, flops
from pitome.merge.costs import closed_form
from tests.adapters.tiny import images, mae, patch, vit

# Counted and closed form agree to 0.1 %.
AGREE = 1e-3


class Attend(nn.Module):
    """Attention of its input with itself, nothing else."""

    def __init__(self, mask=None):
        super().__init__()
        self.mask, self.weight = mask, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        mask = None if self.mask is None else self.mask.to(x.device)
        return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("mask", [None, torch.zeros(2, 1, 1, 16), torch.zeros(2, 3, 16, 16)])
def test_attention_is_counted_with_and_without_a_bias(device, mask):
    x = torch.zeros(2, 3, 16, 8, device=device)
    counted = count_flops(Attend(mask).to(device), x)
    assert counted.macs == 2 * 3 * 16 * 16 * 8
    assert counted.flops == 2 * counted.macs


@pytest.mark.parametrize("batch", [1, 5])
def test_count_is_per_image(batch):
    assert count_flops(nn.Linear(6, 4), torch.zeros(batch, 10, 6)).macs == 10 * 6 * 4


def test_fast_path_of_multihead_attention_is_counted_and_restored():
    layer = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True)
    macs = 5 * 4 * 64 + 2 * 25 * 8 + 5 * 2 * 8 * 32
    for setting in (True, False):
        torch.backends.mha.set_fastpath_enabled(setting)
        try:
            assert count_flops(layer.eval(), torch.zeros(1, 5, 8)).macs == macs
            assert torch.backends.mha.get_fastpath_enabled() is setting
        finally:
            torch.backends.mha.set_fastpath_enabled(True)


def test_settings_come_back_after_an_error():
    model = nn.Linear(6, 4).train()
    with pytest.raises(RuntimeError):
        count_flops(model, torch.zeros(1, 5))
    assert torch.backends.mha.get_fastpath_enabled() and model.training and torch.is_grad_enabled()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_images_take_the_type_of_the_weights(dtype):
    model = vit().to(dtype)
    assert count_flops(model, images(model)).macs == closed_form(architecture(vit())).macs


def architecture(model):
    with pitome.patch(model, "none", ratio=1.0) as handle:
        return handle.architecture()


@pytest.mark.parametrize("build", [vit, mae])
@pytest.mark.parametrize("ratio", [1.0, 0.8, 0.5])
@pytest.mark.parametrize("method", pitome.methods())
def test_counted_and_closed_form_agree_on_tiny_models(method, ratio, build):
    model = build()
    patch(model, method, ratio=ratio)
    cost = flops(model)
    assert cost.macs_closed_form == pytest.approx(cost.macs, rel=AGREE)
    assert cost.macs == count_flops(model, images(model, batch=3)).macs  # as it runs on the CPU
    assert cost.unmerged_macs == closed_form(architecture(build())).macs


@functools.cache
def meta(name):
    """A timm model without memory for weights."""
    with torch.device("meta"):
        return timm.create_model(name).eval()


@pytest.mark.parametrize("name", ["deit_small_patch16_224", "deit_base_patch16_224"])
@pytest.mark.parametrize("method", pitome.methods())
def test_counted_and_closed_form_agree_on_deit(name, method):
    with patch(meta(name), method, ratio=0.925) as handle:
        counted = count_flops(meta(name), handle.example())
        form = closed_form(handle.architecture(), handle.schedule, handle.method, handle.options)
        assert form.macs == pytest.approx(counted.macs, rel=AGREE)
        assert list(form.tokens) == handle.tokens


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("tome", {"r": 3, "inflection": -1}),
        ("tome_repo", {"ratio": 0.8, "layers": "last2"}),
        ("pitome", {"ratio": 0.8, "position": "after_block"}),
        ("pitome", {"ratio": 0.8, "metric": "hidden"}),
        ("pitome", {"flops": 0.8}),
        ("tofu", {"ratio": [0.9, 1.0, 0.7, 0.5]}),
        ("diffrate", {"prune_kept": [15, 12, 9, 7], "merge_kept": [14, 11, 9, 5]}),
    ],
)
def test_counted_and_closed_form_agree_for_every_kind_of_schedule(method, settings):
    model = vit()
    pitome.patch(model, method, **settings)
    cost = flops(model)
    assert cost.macs_closed_form == pytest.approx(cost.macs, rel=AGREE)
    assert cost.macs < cost.unmerged_macs and cost.plan_macs > 0
    assert cost.share == cost.macs / cost.unmerged_macs
    assert cost.flops == 2 * cost.macs


def test_flops_of_a_model_without_a_patch():
    model = vit()
    cost = flops(model)
    assert cost.macs == cost.unmerged_macs == cost.macs_closed_form
    assert (cost.share, cost.plan_macs) == (1.0, 0)
    assert pitome.patched(model) is None


def test_flops_touches_nothing():
    model = vit().train()
    handle = pitome.patch(model, "tome", ratio=0.6)
    model(images(model))
    tokens = handle.tokens
    flops(model)
    assert pitome.patched(model) is handle and handle.tokens == tokens and model.training


def test_flops_at_another_size():
    model = vit(dynamic_img_size=True)
    pitome.patch(model, "tome", ratio=0.8)
    small, large = flops(model), flops(model, (20, 40))
    assert large.macs > small.macs
    assert large.macs_closed_form == pytest.approx(large.macs, rel=AGREE)
    with pytest.raises(UsageError, match="input_size"):
        flops(vit(), 100)


def test_flops_of_a_compiled_model_are_those_of_the_model():
    model = vit()
    pitome.patch(model, "tome", ratio=0.8)
    assert flops(torch.compile(model, backend="eager")) == flops(model)


def test_flops_of_an_unknown_model():
    with pytest.raises(UnsupportedModelError):
        flops(nn.Linear(2, 2))


def test_public_name():
    assert pitome.flops is flops
