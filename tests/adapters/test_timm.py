"""The timm adapter: which models it takes, how it pools, what it says about their cost."""

from __future__ import annotations

import copy
import inspect
import types
from typing import Any

import pytest
import timm
import torch
from timm.layers import Attention, AttentionPoolLatent, Mlp, SwiGLU, SwiGLUPacked
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import (
    Block,
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch import nn

import pitome
from pitome.errors import UnsupportedModelError, UsageError
from pitome.measure.flops import count_flops
from pitome.merge import registry
from pitome.merge.costs import closed_form
from tests.adapters.tiny import GRAPH_ATOL, images, mae, patch, randomise, vit


class OwnBlock(Block):
    def forward(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return x


class OwnHead(VisionTransformer):
    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return x.mean(dim=1)


class OwnFeatures(VisionTransformer):
    def forward_features(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return super().forward_features(x, **kwargs)


class OwnMlp(Mlp):
    """Mixes tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x.mean(dim=1, keepdim=True)


class GatedAttention(Attention):
    """timm's attention with its gate, which no argument of a block switches on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "gated" not in inspect.signature(Attention).parameters:
            pytest.skip("this timm's attention has no gate")
        super().__init__(*args, **kwargs, gated=True)


class SameBlock(Block):
    """A subclass that computes the same."""


def replaced() -> Any:
    model = vit()
    model.blocks[2].forward = types.MethodType(Block.forward, model.blocks[2])
    return model


def distilled() -> Any:
    return randomise(
        VisionTransformerDistilled(
            img_size=16, patch_size=4, in_chans=1, embed_dim=16, depth=2, num_heads=2, num_classes=7
        )
    )


def siglip(**kwargs: Any) -> Any:
    """An attention pool instead of a class token."""
    return vit(**{"class_token": False, "global_pool": "map", **kwargs})


def dinov2(**kwargs: Any) -> Any:
    """Class token and registers without positions, LayerScale."""
    return vit(**{"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5, **kwargs})


def placed_pool() -> Any:
    model = siglip()
    model.attn_pool = AttentionPoolLatent(16, num_heads=2, pos_embed="abs", feat_size=15)
    return model


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
        (lambda: vit(block_fn=DiffParallelScalingBlock), "Block.forward, found .*DiffParallelScalingBlock"),
        (
            lambda: vit(mlp_layer=OwnMlp),
            "Mlp, GluMlp, SwiGLU, GeGluMlp, found .*OwnMlp, which may mix tokens",
        ),
        pytest.param(
            lambda: vit(global_pool="prr"),
            "AttentionPoolLatent.forward, found .*AttentionPoolPrr",
            marks=pytest.mark.skipif(not hasattr(timm.layers, "AttentionPoolPrr"), reason="of a newer timm"),
        ),
        (lambda: vit(global_pool="max"), "found 'max' .a maximum over merged tokens is not"),
        (lambda: vit(global_pool="avgmax"), "found 'avgmax' .a maximum over merged tokens is not"),
        (lambda: vit(global_pool=""), "found '' .no pool"),
        (placed_pool, "found an attention pool with position embeddings of its own"),
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
        lambda: vit(attn_layer=GatedAttention, mlp_layer=SwiGLU, norm_layer="rmsnorm"),
        lambda: siglip(reg_tokens=2, pool_include_prefix=True, mlp_layer=SwiGLUPacked),
        lambda: siglip(reg_tokens=2, qk_norm=True),
        siglip,
        dinov2,
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


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("prefix", [False, True])
def test_attention_pool_adds_the_log_of_the_sizes(prefix: bool, fused: bool) -> None:
    """Equal to a pool over tokens repeated as often as their size says, with any merge method's sizes."""
    model = siglip(reg_tokens=2, pool_include_prefix=prefix)
    model.attn_pool.fused_attn = fused
    handle = pitome.patch(model, "tome", r=3)
    tokens = model.forward_features(images(model, batch=1))
    sizes = handle.sizes
    assert sizes is not None and sizes.max() > 2
    repeated = tokens[0].repeat_interleave(sizes[0].long(), dim=0)[None]
    want = model.attn_pool(repeated if prefix else repeated[:, 2:])
    torch.testing.assert_close(model.pool(tokens), want, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(model.attn_pool(tokens if prefix else tokens[:, 2:]), want, atol=1e-3)


@pytest.mark.parametrize("build", [siglip, dinov2, distilled], ids=["siglip", "dinov2", "distilled"])
def test_autocast_and_double_precision(build: Any) -> None:
    model = build()
    x = images(model)
    handle = pitome.patch(model, "pitome", ratio=0.7)
    with torch.no_grad():
        single, counts = model(x), handle.tokens
        with torch.autocast("cpu", torch.bfloat16):
            assert model(x).isfinite().all()
        assert handle.tokens == counts
        torch.testing.assert_close(model.double()(x.double()).float(), single, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [siglip, dinov2], ids=["siglip", "dinov2"])
def test_two_sizes_in_a_row(build: Any) -> None:
    """Each as in a model of its own size, with the position embeddings resampled by timm."""
    model = build(dynamic_img_size=True)
    prefix = model.num_prefix_tokens
    handle = pitome.patch(model, "pitome", ratio=0.75)
    for rows, columns in ((3, 5), (5, 6), (4, 3), (3, 5)):
        size = (4 * rows, 4 * columns)
        x = images(model, size=size)
        fixed = copy.deepcopy(model)
        pitome.remove(fixed)
        fixed.set_input_size(img_size=size)
        with torch.no_grad(), pitome.patch(fixed, "pitome", ratio=0.75) as own:
            torch.testing.assert_close(model(x), fixed(x))
        assert handle.tokens == own.tokens
        assert handle.tokens[0] == prefix + rows * columns
        assert handle.architecture(size).tokens == handle.tokens[0]
        cost = closed_form(handle.architecture(size), handle.schedule, handle.method, handle.options)
        assert count_flops(model, x).macs == cost.macs


def test_images_that_are_padded_to_whole_patches() -> None:
    model = vit(dynamic_img_size=True, dynamic_img_pad=True)
    handle = pitome.patch(model, "tome", ratio=0.75)
    x = images(model, size=(13, 18))
    model(x)
    assert handle.tokens[0] == 1 + 4 * 5 == handle.architecture((13, 18)).tokens
    cost = closed_form(handle.architecture((13, 18)), handle.schedule, handle.method, handle.options)
    assert count_flops(model, x).macs == cost.macs


@pytest.mark.parametrize(
    "build", [siglip, dinov2, mae, distilled], ids=["siglip", "dinov2", "mae", "distilled"]
)
def test_training_with_drop_path_and_dropped_patches(build: Any) -> None:
    """Dropped patches never enter: the rest merges as if the image had no others."""
    kwargs = {} if build is distilled else {"drop_path_rate": 0.3, "patch_drop_rate": 0.4}
    model = build(**kwargs).train()
    handle = pitome.patch(model, "pitome", ratio=0.75, trace=True)
    torch.manual_seed(0)
    model(images(model)).square().sum().backward()
    t = 16 if build is distilled else 9  # 9 of 15 patches stay
    assert handle.tokens[0] == model.num_prefix_tokens + t
    assert handle.tokens[-1] < handle.tokens[0]
    torch.testing.assert_close(handle.sources.sum(dim=2), handle.sizes)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    model(images(model))
    assert handle.tokens[0] == model.num_prefix_tokens + model.patch_embed.num_patches


def test_an_attention_pool_compiles_copies_and_exports() -> None:
    model = siglip(depth=1)
    x = images(model)
    handle = pitome.patch(model, "tome", ratio=0.75)
    with torch.no_grad():
        want, counts = model(x), handle.tokens
        twin = copy.deepcopy(model)
        assert torch.equal(twin(x), want)
        exported = torch.export.export(model, (x,)).module()(x)
        torch.testing.assert_close(exported, want, rtol=0, atol=GRAPH_ATOL)
        torch._dynamo.reset()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), want, rtol=0, atol=GRAPH_ATOL)
        torch._dynamo.reset()
        assert handle.tokens == counts
        pitome.remove(twin)
        assert torch.equal(twin(x), siglip(depth=1)(x))


def test_counting_leaves_a_pool_trainable() -> None:
    model = siglip()
    model.head.weight.requires_grad_(False)
    count_flops(model, images(model))
    assert not model.head.weight.requires_grad
    assert model.attn_pool.latent.requires_grad and model.head.bias.requires_grad


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
    "build",
    [
        vit,
        mae,
        distilled,
        dinov2,
        siglip,
        lambda: siglip(reg_tokens=3, mlp_ratio=3),
        lambda: siglip(reg_tokens=3, pool_include_prefix=True),
        lambda: vit(reg_tokens=3, qk_norm=True, pre_norm=True, fc_norm=True),
        lambda: vit(mlp_layer=SwiGLU, attn_layer=GatedAttention),
        lambda: vit(mlp_layer=SwiGLUPacked, scale_attn_norm=True, scale_mlp_norm=True, num_classes=0),
    ],
)
@pytest.mark.parametrize("method", pitome.methods())
def test_architecture_foretells_the_counted_flops(build: Any, method: str) -> None:
    model = build()
    if needs_class_token(method) and not model.has_class_token:
        with pytest.raises(
            UnsupportedModelError, match="by the class token, and this VisionTransformer has none"
        ):
            pitome.patch(model, method, ratio=0.7)
        return
    handle = patch(model, method, ratio=0.7)
    cost = closed_form(handle.architecture(), handle.schedule, handle.method, handle.options)
    assert count_flops(model, images(model, batch=1)).macs == cost.macs
    assert list(cost.tokens) == handle.tokens


def needs_class_token(method: str) -> bool:
    return registry.get(method).guarantees.needs_class_token


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
