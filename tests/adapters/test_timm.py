"""The timm adapter: which models it takes, how it pools, what it says about their cost."""

from __future__ import annotations

import types
from typing import Any

import pytest
import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import (
    Block,
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import pitome
from pitome.errors import UnsupportedModelError, UsageError
from pitome.measure.costs import closed_form
from tests.adapters.tiny import images, mae, vit


class OwnBlock(Block):
    def forward(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return x


class OwnHead(VisionTransformer):
    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return x.mean(dim=1)


class OwnFeatures(VisionTransformer):
    def forward_features(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return super().forward_features(x, **kwargs)


class SameBlock(Block):
    """A subclass that computes the same."""


def replaced() -> Any:
    model = vit()
    model.blocks[2].forward = types.MethodType(Block.forward, model.blocks[2])
    return model


def distilled() -> Any:
    return VisionTransformerDistilled(
        img_size=16, patch_size=4, in_chans=1, embed_dim=16, depth=2, num_heads=2, num_classes=7
    ).eval()


def of(cls: type[VisionTransformer]) -> VisionTransformer:
    return cls(img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: vit(block_fn=ParallelScalingBlock), "Block.forward, found .*ParallelScalingBlock"),
        (lambda: vit(block_fn=ParallelThingsBlock), "Block.forward, found .*ParallelThingsBlock"),
        (lambda: vit(block_fn=ResPostBlock), "Block.forward, found .*ResPostBlock"),
        (lambda: vit(block_fn=OwnBlock), "Block.forward, found .*OwnBlock"),
        (lambda: vit(attn_layer="diff"), "Attention.forward, found .*DiffAttention"),
        (lambda: vit(global_pool="map"), "found AttentionPoolLatent"),
        (lambda: vit(global_pool="max"), "found global_pool='max'"),
        (lambda: vit(global_pool="avgmax"), "found global_pool='avgmax'"),
        (lambda: vit(global_pool=""), "found global_pool=''"),
        (lambda: of(OwnHead), "OwnHead.* forward_head of its own"),
        (lambda: of(OwnFeatures), "forward_features, found .*OwnFeatures"),
        (replaced, "replaced already"),
        (lambda: timm.create_model("resnet18"), "found timm.models.resnet.ResNet"),
    ],
)
def test_refused_with_what_was_found(build: Any, says: str) -> None:
    model = build()
    with pytest.raises(UnsupportedModelError, match=says) as caught:
        pitome.patch(model, "tome", r=1)
    assert "\n" not in str(caught.value)
    assert pitome.patched(model) is None


@pytest.mark.parametrize(
    "build",
    [
        lambda: vit(block_fn=SameBlock),
        lambda: vit(qk_norm=True),
        lambda: vit(reg_tokens=2),
        lambda: vit(class_token=False, global_pool="avg"),
        lambda: vit(init_values=1e-1, drop_path_rate=0.1),
        lambda: vit(scale_attn_norm=True, scale_mlp_norm=True, pre_norm=True),
        lambda: mae(pool_include_prefix=True),
        distilled,
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_variants(build: Any, fused: bool) -> None:
    model = build()
    for block in model.blocks:
        block.attn.fused_attn = fused
    x = images(model)
    unmerged = model(x)
    with pitome.patch(model, "tome", ratio=1.0):
        assert torch.equal(model(x), unmerged)
    with pitome.patch(model, "tome", ratio=0.7, trace=True) as handle:
        assert model(x).shape == unmerged.shape
    p = model.num_prefix_tokens
    assert torch.equal(handle.sources[:, :p, :p], torch.eye(p).expand(2, -1, -1))
    assert handle.tokens[-1] < handle.tokens[0]
    assert torch.equal(model(x), unmerged)


def test_both_attention_paths_agree() -> None:
    model = vit()
    x = images(model)
    pitome.patch(model, "tome", ratio=0.7)
    fused = model(x)
    for block in model.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(model(x), fused, rtol=1e-4, atol=1e-5)


def test_family() -> None:
    for model, family in ((vit(), "deit"), (mae(), "mae"), (distilled(), "deit")):
        assert pitome.patch(model, "tome", r=1).family == family


def test_mean_pool_weighs_tokens_by_size() -> None:
    model = mae(depth=1)
    x = images(model)
    tokens = []
    model.blocks[0].register_forward_hook(lambda module, args, output: tokens.append(output))
    handle = pitome.patch(model, "tome", r=5)
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    assert handle.sizes is not None
    weight = handle.sizes[:, 1:, None]
    pooled = (tokens[0][:, 1:] * weight).sum(dim=1) / 15
    torch.testing.assert_close(features, model.fc_norm(pooled))


def test_dense_outputs_are_refused_while_patched() -> None:
    model = vit()
    x = images(model)
    handle = pitome.patch(model, "tome", r=1)
    with pytest.raises(UsageError):
        model.forward_intermediates(x)
    with pytest.raises(UsageError):
        model.get_intermediate_layers(x)
    with pytest.raises(UsageError):
        model(x, attn_mask=torch.ones(16, 16, dtype=torch.bool))
    with pytest.raises(UsageError):
        model.pool(model.forward_features(x), "avgmax")
    handle.remove()
    model.forward_intermediates(x)


@pytest.mark.parametrize(
    "build", [vit, mae, distilled, lambda: vit(reg_tokens=3, qk_norm=True), lambda: vit(mlp_ratio=3)]
)
@pytest.mark.parametrize("method", pitome.methods())
def test_architecture_foretells_the_counted_flops(build: Any, method: str) -> None:
    model = build()
    handle = pitome.patch(model, method, ratio=0.7)
    cost = closed_form(handle.architecture(), handle.schedule, handle.method, handle.options)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images(model, batch=1))
    assert counter.get_total_flops() == cost.flops
    assert list(cost.tokens) == handle.tokens


def test_architecture_sizes() -> None:
    handle = pitome.patch(vit(), "none", ratio=1.0)
    assert handle.architecture() == handle.architecture((12, 20))
    with pytest.raises(UsageError, match="input_size"):
        handle.architecture(16)
    anything = pitome.patch(vit(dynamic_img_size=True), "none", ratio=1.0)
    assert anything.architecture(32).patches == 64
    architecture = handle.architecture()
    assert (architecture.tokens, architecture.patches, architecture.protected) == (16, 15, 1)
    assert (architecture.patch_inputs, architecture.classes, architecture.head) == (16, 7, 16 * 7)


def test_architecture_needs_a_known_patch_embedding() -> None:
    model = vit()
    handle = pitome.patch(model, "none", ratio=1.0)
    model.patch_embed = nn.Sequential(model.patch_embed)
    with pytest.raises(UnsupportedModelError, match="PatchEmbed, found Sequential"):
        handle.architecture()


def test_deit_small_costs_what_the_authors_state() -> None:
    """4.5989 GMACs unmerged on torch's counter."""
    with torch.device("meta"):
        model = timm.create_model("deit_small_patch16_224")
    handle = pitome.patch(model, "none", ratio=1.0)
    assert round(closed_form(handle.architecture()).macs / 1e9, 4) == 4.5989
