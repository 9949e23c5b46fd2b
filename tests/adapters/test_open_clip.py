"""The open_clip adapter: parity with the authors' code, which towers it takes, pools, cost, the patch."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from safetensors.torch import load_file
from torch import Tensor, nn

import pitome
from pitome.adapters.open_clip import OpenClipAdapter, TrunkAdapter
from pitome.errors import UnsupportedModelError, UsageError
from pitome.measure.flops import count_flops
from pitome.merge.costs import authors_macs, closed_form
from tests import GOLDEN
from tests.adapters.tiny import GRAPH_ATOL, randomise
from tests.adapters.tiny_clip import TEXT, VISION, clip, images, tower

INDEX = json.loads((GOLDEN / "clip.json").read_text())
CUSTOM = {
    "qk_norm": True,
    "scale_heads": True,
    "scale_attn_inner": True,
    "scale_attn": True,
    "scale_fc": True,
}
TOWERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mean": {"pool_type": "avg"},
    "mean_before_norm": {"pool_type": "avg", "final_ln_after_pool": True, "ls_init_value": 0.1},
    "attention_pool": {"attentional_pool": True, "attn_pooler_queries": 3, "attn_pooler_heads": 2},
    "no_pre_norm": {"no_ln_pre": True, "pos_embed_type": "learnable", "patch_dropout": 0.4},
    "custom": CUSTOM,
    "custom_mean": {"block_type": "custom", "pool_type": "avg"},
}
each_tower = pytest.mark.parametrize("kind", TOWERS)


def features(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


# The authors' code


@pytest.mark.parametrize("case", INDEX["cases"], ids=lambda case: case["name"])
def test_parity(case: dict[str, Any]) -> None:
    """LAVIS's CLIP tower, with GELU instead of QuickGELU."""
    recorded = INDEX["models"][0]
    config = recorded["config"]
    names = ("image_size", "patch_size", "width", "layers", "heads", "output_dim")
    model: Any = VisionTransformer(**{name: config[name] for name in names}, mlp_ratio=4.0).eval()
    model.load_state_dict(load_file(GOLDEN / recorded["weights"]), strict=True)
    want, x = load_file(GOLDEN / case["file"]), load_file(GOLDEN / recorded["inputs"])["x"]
    blocks: list[Tensor] = []
    for block in model.transformer.resblocks:
        block.register_forward_hook(lambda module, args, output: blocks.append(output))
    ratio = case["params"].get("ratio", 1.0)
    method = "none" if case["method"] == "none" else f"{case['method']}_repo"
    handle = pitome.patch(model, method, ratio=ratio, trace=True)
    got = features(model, x)

    assert handle.tokens == [case["expected"]["tokens_in"], *case["expected"]["token_counts"]]
    if "macs" in case["expected"]:
        assert authors_macs(handle.architecture(), handle.tokens, method) == case["expected"]["macs"]
    for index, block in enumerate(blocks):
        if f"block{index}" in want:
            torch.testing.assert_close(block, want[f"block{index}"], **case["tolerance"])
    torch.testing.assert_close(blocks[-1], want["tokens"], **case["tolerance"])
    torch.testing.assert_close(got, want["features"], **case["tolerance"])
    if "size" in want:
        assert handle.sizes is not None
        torch.testing.assert_close(handle.sizes, want["size"][..., 0], **case["tolerance"])
    if "source" in want:
        assert torch.equal(handle.sources, want["source"])


# What a forward computes


@each_tower
def test_nothing_merged_is_bit_identical_and_so_is_the_model_afterwards(kind: str) -> None:
    model, x = tower(**TOWERS[kind]), images()
    keys = list(model.state_dict())
    before = features(model, x)
    with pitome.patch(model, "pitome", ratio=1.0) as handle:
        assert torch.equal(features(model, x), before)
        assert handle.tokens == [16] * 5
    with pitome.patch(model, "pitome", ratio=0.7) as handle:
        assert not torch.equal(features(model, x), before)
        assert handle.tokens == [16, 12, 9, 7, 6]
        assert list(model.state_dict()) == keys
    assert torch.equal(features(model, x), before)
    for module in model.modules():
        assert "forward" not in vars(module) and not hasattr(module, "_pitome") and not module._forward_hooks


@each_tower
def test_attention_of_our_own_equals_the_blocks(kind: str) -> None:
    """A method that asks for keys everywhere and removes nothing."""
    model, x = tower(**TOWERS[kind]), images()
    before = features(model, x)
    handle = pitome.patch(model, "tome", ratio=0.9999)
    torch.testing.assert_close(features(model, x), before, rtol=1e-5, atol=1e-6)
    assert handle.tokens == [16] * 5


@pytest.mark.parametrize("kind", ["plain", "mean", "attention_pool", "custom"])
def test_merging_equal_tokens_changes_nothing(kind: str) -> None:
    """The size bias, the weighted mean and the bias of the attention pool, end to end."""
    model = tower(**TOWERS[kind])
    with torch.no_grad():
        model.positional_embedding[1:] = model.positional_embedding[1]
    columns = images()[:, :, :4, :4].repeat(1, 1, 3, 5)
    before = features(model, columns)
    handle = pitome.patch(model, "tome", r=3)
    torch.testing.assert_close(features(model, columns), before, rtol=1e-4, atol=1e-5)
    assert handle.tokens == [16, 13, 10, 7, 4]


def test_the_bias_is_broadcast_and_the_metric_is_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = tower(layers=2), images()
    masks, seen = [], []
    original = nn.functional.scaled_dot_product_attention

    def spy(*args: Any, **kwargs: Any) -> Tensor:
        masks.append(kwargs.get("attn_mask"))
        return original(*args, **kwargs)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    entry = pitome.merge.registry.get("diffrate")

    def plan(tokens: Any, remove: Any, options: Any) -> Any:
        seen.append(tokens)
        return entry.plan(tokens, remove, options)

    block, inputs = model.transformer.resblocks[0], []
    block.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with pitome.patch(model, "diffrate", r=4, metric="keys") as handle:
        handle.state.method = replace(entry, plan=plan)
        features(model, x)
    assert masks[0] is None
    assert masks[1].shape == (2, 1, 1, 12)
    normed = block.ln_1(inputs[0])
    _, keys, _ = nn.functional.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(
        3, dim=-1
    )
    torch.testing.assert_close(seen[0].metric, keys.unflatten(-1, (2, 8)).mean(dim=2))
    _, attention = block.attn(normed, normed, normed, need_weights=True)
    torch.testing.assert_close(seen[0].cls_attention, attention[:, 0])


def test_layers_that_need_no_keys_keep_the_blocks_attention() -> None:
    model, calls = tower(), []
    for layer, block in enumerate(model.transformer.resblocks):
        block.attn.register_forward_hook(lambda module, args, output, layer=layer: calls.append(layer))
    with pitome.patch(model, "tome", r=3, layers=[2]):
        features(model, images())
    assert calls == [0, 1]
    calls.clear()
    with pitome.patch(model, "pitome", r=3, metric="hidden", prop_attn=False):
        features(model, images())
    assert calls == [0, 1, 2, 3]


def test_double_precision_and_autocast() -> None:
    for kind in ("plain", "mean", "attention_pool", "custom"):
        model, x = tower(**TOWERS[kind]), images()
        handle = pitome.patch(model, "pitome", ratio=0.7)
        single, counts = features(model, x), handle.tokens
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert model(x).isfinite().all()
        assert handle.tokens == counts
        assert handle.sizes is not None and handle.sizes.dtype == torch.float32
        twice = features(model.double(), x.double())
        torch.testing.assert_close(twice.float(), single, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "attention_pool", "custom", "no_pre_norm"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training(kind: str, checkpointing: bool) -> None:
    model = tower(**TOWERS[kind]).train()
    model.set_grad_checkpointing(checkpointing)
    handle = pitome.patch(model, "pitome", ratio=0.75, trace=True)
    torch.manual_seed(0)
    model(images()).square().sum().backward()
    assert handle.tokens[0] == (10 if kind == "no_pre_norm" else 16)
    assert handle.tokens[-1] < handle.tokens[0]
    torch.testing.assert_close(handle.sources.sum(dim=2), handle.sizes)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_checkpointing_gives_the_same_gradients() -> None:
    grads = []
    for checkpointing in (False, True):
        model = tower().train()
        model.set_grad_checkpointing(checkpointing)
        pitome.patch(model, "tome", ratio=0.75)
        model(images()).square().sum().backward()
        grads.append(model.conv1.weight.grad)
    torch.testing.assert_close(*grads)


@each_tower
def test_deepcopy(kind: str) -> None:
    model, x = tower(**TOWERS[kind]), images()
    handle = pitome.patch(model, "pitome", ratio=0.75)
    want, counts = features(model, x), handle.tokens
    twin = copy.deepcopy(model)
    pitome.remove(model)
    assert torch.equal(features(twin, x), want)
    own = pitome.patched(twin)
    assert own is not None and own is not handle and own.tokens == counts
    pitome.remove(twin)
    assert torch.equal(features(twin, x), features(model, x))


def test_compile() -> None:
    model, x = tower(layers=1), images()
    handle = pitome.patch(model, "tome", ratio=0.75)
    want, counts = features(model, x), handle.tokens
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.equal(features(compiled, x), want)
    torch._dynamo.reset()
    assert handle.tokens == counts


def test_export() -> None:
    model, x = tower(**TOWERS["attention_pool"], layers=1), images()
    pitome.patch(model, "tome", ratio=0.75)
    with torch.no_grad():
        exported = torch.export.export(model, (x,)).module()(x)
        torch.testing.assert_close(exported, model(x), rtol=0, atol=GRAPH_ATOL)


# Whole models


def test_a_clip_keeps_its_text_tower() -> None:
    model, x = clip(), images()
    text = torch.tensor([[18, 3, 4, 19, 0, 0, 0, 0], [18, 5, 19, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        words, before = model.encode_text(text), model.encode_image(x)
        handle = pitome.patch(model, "pitome", ratio=0.7)
        assert torch.equal(model.encode_text(text), words)
        assert not torch.equal(model.encode_image(x), before)
    assert handle.family == "clip"
    assert pitome.patched(model) is pitome.patched(model.visual) is handle
    assert not any(hasattr(block, "_pitome") for block in model.transformer.resblocks)
    pitome.remove(model)
    with torch.no_grad():
        assert torch.equal(model.encode_image(x), before)


def test_flops_of_a_clip_are_those_of_its_image_tower() -> None:
    model = clip()
    with pitome.patch(model, "pitome", ratio=0.7):
        whole = pitome.flops(model)
        assert whole == pitome.flops(model.visual)
    assert whole.macs == whole.macs_closed_form < whole.unmerged_macs


def timm_clip(pool: str = "avg", name: str = "vit_tiny_patch16_224", **kwargs: Any) -> Any:
    vision = {"timm_model_name": name, "timm_pool": pool, "timm_proj": "linear", **kwargs}
    return CustomTextCLIP(embed_dim=6, vision_cfg=vision, text_cfg=TEXT).eval()


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_a_tower_of_timm_goes_through_the_timm_adapter(pool: str) -> None:
    model = timm_clip(pool)
    x = images(1, size=(224, 224))
    before = features(model.visual, x)
    handle = pitome.patch(model, "pitome_repo", ratio=0.7)
    assert isinstance(handle._adapter, TrunkAdapter)
    assert handle.family == handle.architecture().family == "clip"
    assert handle.options.metric == "hidden"
    features(model.visual, x)
    assert handle.tokens[0] == 197 and handle.tokens[-1] < 10
    cost = pitome.flops(model)
    assert cost.macs == cost.macs_closed_form
    pitome.remove(model)
    assert torch.equal(features(model.visual, x), before)


def test_the_right_library_is_found_where_a_model_has_modules_of_both() -> None:
    holder = nn.ModuleDict({"text": nn.Identity(), "both": timm_clip()})
    assert isinstance(pitome.patch(holder, "tome", r=1)._adapter, TrunkAdapter)
    assert isinstance(pitome.patch(nn.Sequential(clip()), "tome", r=1)._adapter, OpenClipAdapter)


def test_coca() -> None:
    """Its captions are made of the pool's outputs, whose number does not change."""
    vision = {**VISION, **TOWERS["attention_pool"], "output_tokens": True}
    text = {**TEXT, "embed_cls": True, "output_tokens": True, "heads": 2}
    decoder = {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}
    model: Any = CoCa(embed_dim=16, multimodal_cfg=decoder, text_cfg=text, vision_cfg=vision)
    model = randomise(model)
    x, words = images(), torch.randint(1, 19, (2, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(x, words)
        handle = pitome.patch(model, "tome", r=3)
        after = model(x, words)
    assert handle.tokens == [16, 13, 10, 7, 4]
    assert {key: value.shape for key, value in after.items()} == {k: v.shape for k, v in before.items()}
    assert not torch.equal(after["logits"], before["logits"])


# Cost


@each_tower
@pytest.mark.parametrize("method", ["none", "pitome", "tome_repo", "diffrate"])
def test_architecture_foretells_the_counted_flops(kind: str, method: str) -> None:
    model = tower(**TOWERS[kind])
    handle = pitome.patch(model, method, ratio=1.0 if method == "none" else 0.7)
    cost = closed_form(handle.architecture(), handle.schedule, handle.method, handle.options)
    assert count_flops(model, images(1)).macs == cost.macs
    features(model, images())
    assert list(cost.tokens) == handle.tokens


def test_architecture_sizes() -> None:
    handle = pitome.patch(tower(), "none", ratio=1.0)
    one = handle.architecture()
    assert one == handle.architecture((12, 20))
    assert (one.tokens, one.patches, one.protected, one.patch_inputs, one.classes) == (16, 15, 1, 48, 6)
    assert one.head == 16 * 6
    assert handle.example().shape == (1, 3, 12, 20)
    for ask in (handle.architecture, handle.example):
        with pytest.raises(UsageError, match=r"takes \(12, 20\) only"):
            ask(224)


@pytest.mark.parametrize(
    ("arch", "gflops"),
    [
        ("ViT-B-32", 8.82),
        pytest.param("ViT-B-16", 35.13, marks=pytest.mark.nightly),
        pytest.param("ViT-L-14", 162.03, marks=pytest.mark.nightly),
        ("ViT-L-14-336", 381.92),
    ],
)
def test_real_towers_on_the_meta_device(arch: str, gflops: float) -> None:
    """As in open_clip's docs/model_profile.csv, image_gflops."""
    with torch.device("meta"):
        model = CLIP(**open_clip.get_model_config(arch))
    cost = pitome.flops(model)
    assert cost.macs == cost.macs_closed_form
    assert round(cost.flops / 1e9, 2) == gflops


# Refusals


class OwnBlock(ResidualAttentionBlock):
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return args[0]


class OwnAttention(nn.MultiheadAttention):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


def with_block(make: Any) -> Any:
    model = tower()
    model.transformer.resblocks[1] = make()
    return model


def with_attention(attention: nn.Module) -> Any:
    model = tower()
    model.transformer.resblocks[1].attn = attention
    return model


def replaced() -> Any:
    model = tower()
    model.transformer.resblocks[2].forward = lambda x: x
    return model


def resnet() -> Any:
    vision = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}
    return CLIP(embed_dim=6, vision_cfg=vision, text_cfg=TEXT)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (
            lambda: with_block(lambda: OwnBlock(16, 2)),
            "open_clip's ResidualAttentionBlock.forward, found .*OwnBlock",
        ),
        (
            lambda: with_attention(OwnAttention(16, 2, batch_first=True)),
            "MultiheadAttention.forward, found .*OwnAtt",
        ),
        # what a later open_clip has in the same place
        (
            lambda: with_attention(tower(**CUSTOM).transformer.resblocks[0].attn),
            "found .*transformer.Attention",
        ),
        (lambda: with_attention(nn.MultiheadAttention(16, 2)), "batch_first=False"),
        (lambda: with_block(nn.Identity), "open_clip's ResidualAttentionBlock.forward, found .*Identity"),
        (lambda: tower(scaled_cosine_attn=True), "scaled_cosine_attn"),
        (lambda: tower(attentional_pool="parallel", attn_pooler_heads=2), "'parallel', which are unfinished"),
        (lambda: tower(pool_type="none"), "found no pool: merged tokens come out"),
        (lambda: tower(output_tokens=True), "found output_tokens=True: merged tokens come out"),
        (replaced, "replaced already"),
        (resnet, "found open_clip.modified_resnet.ModifiedResNet"),
        (lambda: nn.ModuleList([tower(), tower()]), "found 2 of them"),
        (lambda: timm_clip("", "resnet18", image_size=32), "found timm.models.resnet.ResNet"),
    ],
)
def test_refused_with_what_was_found(build: Any, says: str) -> None:
    model = build()
    with pytest.raises(UnsupportedModelError, match=says) as caught:
        pitome.patch(model, "tome", r=1)
    assert "\n" not in str(caught.value)
    assert pitome.patched(model) is None


def test_dense_outputs_and_masks_are_refused_while_patched() -> None:
    model, x = clip(), images()
    handle = pitome.patch(model, "tome", r=1)
    with pytest.raises(UsageError, match="remove"):
        model.forward_intermediates(x)
    with pytest.raises(UsageError, match="remove"):
        model.visual.forward_intermediates(x)
    handle.remove()
    model.forward_intermediates(x)
    for kind in ("plain", "custom"):
        model = tower(**TOWERS[kind])
        with pitome.patch(model, "tome", r=1), pytest.raises(UsageError, match="attn_mask"):
            model.transformer.resblocks[0](torch.zeros(1, 16, 16), attn_mask=torch.zeros(16, 16))
