"""The contract of `pitome.patch`."""

from __future__ import annotations

import doctest
import logging
from dataclasses import replace
from typing import Any

import lightning
import pytest
import timm
import torch
from open_clip.transformer import VisionTransformer as OpenClipTower
from peft import LoraConfig, get_peft_model
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import (
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

import pitome
from pitome.adapters import patch as patch_module
from pitome.errors import PitomeError, UnsupportedModelError, UsageError
from pitome.merge.costs import closed_form
from tests.adapters.tiny import GRAPH_ATOL, images, vit
from tests.adapters.tiny_clip import clip
from tests.adapters.tiny_text import bert, distilbert
from tests.tasks.vqa.tiny_llava import llava

TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


class Wrapper(nn.Module):
    """Holds parts as people's own modules do."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def tokens(model: Any, **kwargs: Any) -> list[int]:
    with torch.no_grad(), pitome.patch(model, "tome", **kwargs) as handle:
        model(images(model))
        return handle.tokens


# How much is removed: 16 tokens enter, 15 of them patches


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"ratio": 0.8}, [16, 13, 11, 9, 8]),  # T = 15, 12, 10, 8: floor(T - 0.8 T) = 3, 2, 2, 1
        ({"ratio": [1.0, 0.5, 1.0, 0.5]}, [16, 16, 9, 9, 5]),
        ({"r": 3}, [16, 13, 10, 7, 4]),
        ({"r": [0, 4, 0, 1]}, [16, 16, 12, 12, 11]),
        ({"r": 2, "inflection": -1}, [16, 12, 10, 9, 9]),
        ({"r": 100}, [16, 9, 5, 3, 2]),
        ({"ratio": 0.5, "layers": [1, 3]}, [16, 16, 9, 9, 5]),
        ({"ratio": 0.5, "layers": "first1"}, [16, 9, 9, 9, 9]),
        ({"r": 3, "layers": "last2"}, [16, 16, 16, 13, 10]),
        ({"r": 3, "layers": "every2"}, [16, 13, 13, 10, 10]),
        ({"r": 3, "protected": 9}, [16, 13, 11, 10, 10]),
    ],
)
def test_counts(kwargs: dict[str, Any], expected: list[int]) -> None:
    assert tokens(vit(), **kwargs) == expected


def test_own_schedule() -> None:
    model = vit()
    kept = {"prune_kept": [16, 12, 12, 8], "merge_kept": [14, 12, 9, 8]}
    with torch.no_grad(), pitome.patch(model, "diffrate", **kept) as handle:
        model(images(model))
    assert handle.tokens == [16, 14, 12, 9, 8]


@pytest.mark.parametrize("share", [0.95, 0.8, 0.7, 0.6])
@pytest.mark.parametrize("method", ["tome", "pitome", "pitome_repo"])
def test_flops_finds_the_largest_affordable_ratio(method: str, share: float) -> None:
    handle = pitome.patch(vit(grid=(6, 6), dim=32), method, flops=share)
    architecture = handle.architecture()

    def cost(ratio: float) -> float:
        schedule = type(handle.schedule)(ratios=(ratio,) * 4)
        return closed_form(architecture, schedule, handle.method, handle.options).macs

    assert handle.schedule.ratios is not None
    ratio = handle.schedule.ratios[0]
    budget = share * closed_form(architecture).macs
    assert cost(ratio) <= budget
    assert all(cost(step / 2000) > budget for step in range(1001, 2001) if step / 2000 > ratio)


def test_flops_of_one_removes_nothing() -> None:
    assert pitome.patch(vit(), "tome", flops=1.0).schedule.ratios == (1.0,) * 4


def test_flops_needs_a_size_where_the_model_takes_any() -> None:
    model = vit(dynamic_img_size=True)
    handle = pitome.patch(model, "tome", flops=0.8, input_size=(20, 40))
    assert handle.architecture((20, 40)).tokens == 51


def test_ratio_below_one_half_is_clamped_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert tokens(vit(), ratio=[0.3, 1.0, 0.5, 0.1]) == tokens(vit(), ratio=[0.5, 1.0, 0.5, 0.5])
    assert len(caplog.messages) == 1  # 0.5 does not warn
    assert "\n" not in caplog.messages[0]


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({}, "exactly one"),
        ({"ratio": 0.9, "r": 4}, "ratio and r"),
        ({"ratio": 0.9, "flops": 0.5}, "ratio and flops"),
        ({"r": 4, "flops": 0.5}, "r and flops"),
        ({"ratio": 0}, "outside"),
        ({"ratio": 1.5}, "outside"),
        ({"ratio": float("nan")}, "outside"),
        ({"ratio": "abc"}, "not a number"),
        ({"ratio": [0.9, 0.9]}, "4 layers"),
        ({"r": -1}, "whole number"),
        ({"r": 2.5}, "whole number"),
        ({"r": [1, 2, 3, 4, 5]}, "4 layers"),
        ({"r": 4, "inflection": 2}, "outside"),
        ({"ratio": 0.9, "inflection": 1}, "inflection"),
        ({"flops": 0.9, "inflection": 1}, "inflection"),
        ({"flops": 0}, "share"),
        ({"flops": 1.5}, "share"),
        ({"flops": float("nan")}, "share"),
        ({"flops": 0.01}, "cannot be reached"),
        ({"ratio": 0.9, "layers": "1:3"}, "first3"),
        ({"ratio": 0.9, "layers": [4]}, "not a layer"),
        ({"ratio": 0.9, "layers": 3}, "a list"),
        ({"ratio": 0.9, "famly": "mae"}, "famly"),
        ({"ratio": 0.9, "family": "meta"}, "family"),
        ({"ratio": 0.9, "prop_atn": False}, "prop_attn"),
        ({"ratio": 0.9, "metric": "queries"}, "metric"),
    ],
)
def test_bad_arguments_leave_the_model_alone(kwargs: dict[str, Any], says: str) -> None:
    model = vit()
    with pytest.raises(UsageError, match=says) as caught:
        pitome.patch(model, "tome", **kwargs)
    assert "\n" not in str(caught.value)
    assert pitome.patched(model) is None
    assert "forward" not in vars(model.blocks[0])


def test_own_schedule_refuses_what_contradicts_it() -> None:
    kept = {"prune_kept": [16, 12, 12, 8], "merge_kept": [14, 12, 9, 8]}
    for extra in ({"ratio": 0.9}, {"r": 2}, {"flops": 0.5}, {"layers": [0]}):
        with pytest.raises(UsageError):
            pitome.patch(vit(), "diffrate", **kept, **extra)
    with pytest.raises(UsageError, match="3 layers"):
        pitome.patch(vit(depth=3), "diffrate", **kept)


def test_unknown_method_offers_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean"):
        pitome.patch(vit(), "pitomee", ratio=0.9)


# The handle


def test_handle_says_what_was_resolved() -> None:
    handle = pitome.patch(vit(), "pitome_repo", ratio=0.9)
    assert handle.method.name == "pitome_repo"
    assert handle.family == "deit"
    assert handle.schedule.ratios == (0.9,) * 4
    assert handle.options.prop_attn is False
    assert handle.tokens == []
    with pytest.raises(UsageError, match="trace=True"):
        _ = handle.sources


@pytest.mark.parametrize(
    ("build", "method", "how", "family", "layers"),
    [
        (bert, "pitome_repo", {}, "bert", (0, 1, 2)),
        (bert, "tofu_repo", {}, "bert", (0, 1, 2)),
        (distilbert, "tome_repo", {}, "distilbert", (0, 1, 2)),
        (bert, "pitome_repo", {"layers": "every1"}, "bert", (0, 1, 2, 3)),
        (bert, "pitome_repo", {"layers": [3]}, "bert", (3,)),
        (bert, "pitome", {}, "bert", (0, 1, 2, 3)),
        (vit, "pitome_repo", {}, "deit", (0, 1, 2, 3)),
        (llava, "pitome_repo", {}, "llava", (0, 1, 2)),
        (vit, "tome_repo", {"family": "bert"}, "bert", (0, 1, 2)),
    ],
)
@pytest.mark.parametrize("amount", [{"ratio": 0.8}, {"flops": 0.97}, {"r": 2}], ids=str)
def test_presets_merge_where_the_authors_do(
    build: Any, method: str, how: dict[str, Any], family: str, layers: tuple[int, ...], amount: dict[str, Any]
) -> None:
    size = {"input_size": 16} if "flops" in amount and build in (bert, distilbert) else {}
    handle = pitome.patch(build(), method, **how, **amount, **size)
    assert (handle.family, handle.layers) == (family, layers)
    depth = handle.schedule.depth
    assert [layer for layer in range(depth) if handle.schedule.may_remove(layer)] == list(layers)
    where = "all layers" if len(layers) == depth else f"layers {', '.join(map(str, layers))}"
    assert (
        repr(handle).startswith(f"<{method}, ")
        and f" in {where} of a " in repr(handle)
        and f"family {family}" in repr(handle)
    )


def test_family_is_overridden_by_name() -> None:
    derived = pitome.patch(vit(), "pitome_repo", ratio=0.9).options
    assert pitome.patch(vit(), "pitome_repo", ratio=0.9, family="deit").options == derived
    handle = pitome.patch(vit(), "pitome_repo", ratio=0.9, family="mae")
    assert handle.options != derived
    assert handle.family == handle.architecture().family == "mae"


def test_sources_follow_tokens_through_all_layers() -> None:
    model = vit()
    handle = pitome.patch(model, "tome", ratio=0.7, trace=True)
    model(images(model))
    assert handle.sources.shape == (2, handle.tokens[-1], 16)
    assert torch.equal(handle.sources.sum(dim=1), torch.ones(2, 16))
    assert handle.sizes is not None
    torch.testing.assert_close(handle.sources.sum(dim=2), handle.sizes)


def test_with_statement_removes_even_after_an_error() -> None:
    model = vit()
    with pytest.raises(ZeroDivisionError), pitome.patch(model, "tome", r=2):
        _ = 1 / 0
    assert pitome.patched(model) is None


def test_remove_touches_no_later_patch() -> None:
    model = vit()
    first = pitome.patch(model, "tome", r=2)
    first.remove()
    second = pitome.patch(model, "tome", r=3)
    first.remove()
    assert pitome.patched(model) is second
    pitome.remove(model)
    with pytest.raises(UsageError, match="not patched"):
        pitome.remove(model)


def test_a_model_inside_a_module_is_found() -> None:
    model = vit()
    outer = nn.Sequential(nn.Identity(), model)
    handle = pitome.patch(outer, "tome", r=2)
    assert pitome.patched(outer) is pitome.patched(model) is handle
    pitome.remove(outer)
    assert pitome.patched(model) is None


# What a forward computes


def test_no_bias_before_the_first_merge() -> None:
    model, seen = vit(), []
    for block in model.blocks:
        block.attn.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["attn_mask"]), with_kwargs=True
        )
    pitome.patch(model, "tome", r=3, layers=[1])
    model(images(model))
    assert seen[0] is None
    assert seen[1] is None
    assert seen[2].shape == (2, 1, 1, 13)
    sizes = seen[2].exp()
    torch.testing.assert_close(sizes.sum(dim=-1), torch.full((2, 1, 1), 16.0))


def test_proportional_attention_can_be_switched_off() -> None:
    model = vit()
    x = images(model)
    with pitome.patch(model, "tome", r=3):
        proportional = model(x)
    with pitome.patch(model, "tome", r=3, prop_attn=False):
        plain = model(x)
    assert not torch.allclose(proportional, plain, atol=1e-4)


def test_after_block_merges_behind_the_mlp() -> None:
    model, widths = vit(), []
    for block in model.blocks:
        block.mlp.register_forward_hook(lambda module, args, output: widths.append(output.shape[1]))
    for position, expected in (("before_mlp", [13, 10, 7, 4]), ("after_block", [16, 13, 10, 7])):
        widths.clear()
        with pitome.patch(model, "tome", r=3, position=position) as handle:
            model(images(model))
        assert widths == expected
        assert handle.tokens == [16, 13, 10, 7, 4]


def test_the_metric_reaches_the_method() -> None:
    """Head-mean of the keys, or the features at the merge point."""
    model, seen = vit(depth=1), []
    x = images(model)
    block = model.blocks[0]
    h = model.norm_pre(model._pos_embed(model.patch_embed(x)))
    keys = block.attn.qkv(block.norm1(h)).unflatten(-1, (3, 2, 8))[:, :, 1].mean(dim=2)
    hidden = h + block.attn(block.norm1(h))
    entry = pitome.merge.registry.get("tome")

    def spy(tokens: Any, remove: int, options: Any) -> Any:
        seen.append(tokens)
        return entry.plan(tokens, remove, options)

    for metric, expected in (("keys", keys), ("hidden", hidden)):
        with pitome.patch(model, "tome", r=2, metric=metric) as handle:
            handle.state.method = replace(entry, plan=spy)
            model(x)
        torch.testing.assert_close(seen[-1].metric, expected)
        torch.testing.assert_close(seen[-1].x, hidden)
        assert torch.equal(seen[-1].size, torch.ones(2, 16))
        assert (seen[-1].layer, seen[-1].depth, seen[-1].protected) == (0, 1, 1)
        assert seen[-1].cls_attention is None


def test_class_attention_is_one_row_of_the_whole_map() -> None:
    model, seen = vit(depth=2), []
    x = images(model)
    entry = pitome.merge.registry.get("diffrate")
    assert entry.needs_cls_attention

    def spy(tokens: Any, remove: int, options: Any) -> Any:
        seen.append(tokens)
        return entry.plan(tokens, remove, options)

    block, inputs = model.blocks[1], []
    block.attn.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with pitome.patch(model, "diffrate", ratio=0.75, prop_attn=True) as handle:
        handle.state.method = replace(entry, plan=spy)
        model(x)
    query, key, _ = block.attn.qkv(inputs[0]).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    logits = query @ key.transpose(-2, -1) * block.attn.scale
    logits = logits + seen[1].size.clamp_min(1).log()[:, None, None, :]
    torch.testing.assert_close(seen[1].cls_attention, logits.softmax(dim=-1)[:, :, 0].mean(dim=1))


def test_sizes_stay_float32_and_the_bias_has_the_models_type() -> None:
    for dtype, wide in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        model, seen = vit().to(dtype), []
        model.blocks[1].attn.register_forward_pre_hook(
            lambda module, args, kwargs, seen=seen: seen.append(kwargs["attn_mask"]), with_kwargs=True
        )
        handle = pitome.patch(model, "tome", r=3)
        model(images(model).to(dtype))
        assert seen[0].dtype == dtype
        assert handle.sizes is not None
        assert handle.sizes.dtype == wide


def test_training_moves_every_weight() -> None:
    model = vit().train()
    pitome.patch(model, "tome", ratio=0.7)
    model(images(model)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_two_sizes_compile_to_one_graph_each() -> None:
    torch._dynamo.reset()
    model = vit(depth=1, dynamic_img_size=True)
    handle = pitome.patch(model, "tome", ratio=0.75)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for size in ((12, 20), (20, 24), (28, 16)):
        x = images(model, size=size)
        with torch.no_grad():
            want, counts = model(x), handle.tokens
            torch.testing.assert_close(compiled(x), want, rtol=0, atol=GRAPH_ATOL)
        assert handle.tokens == counts
        assert all(type(count) is int for count in handle.tokens)
    torch._dynamo.reset()


def test_distributed_data_parallel() -> None:
    model = vit().train()
    x = images(model)
    handle = pitome.patch(model, "pitome", ratio=0.75)
    model(x).square().sum().backward()
    want = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        replica = nn.parallel.DistributedDataParallel(model)
        replica(x).square().sum().backward()
        assert pitome.patched(replica) is handle
    finally:
        torch.distributed.destroy_process_group()
    for parameter, gradient in zip(model.parameters(), want, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_runs_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = VisionTransformer(img_size=12, patch_size=4, in_chans=1, embed_dim=16, depth=4, num_heads=2)
        handle = pitome.patch(model, "tome", ratio=0.8)
        model(torch.zeros(1, 1, 12, 12))
    assert handle.tokens == tokens(vit(grid=(3, 3)), ratio=0.8)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "method",
    ["pitome", "diffrate", *(pytest.param(m, marks=pytest.mark.nightly) for m in ("none", "tome", "tofu"))],
)
def test_graphs_hold_for_another_batch(method: str) -> None:
    """Deployed once, with whatever batch comes: by torch.export and by torch.jit.trace."""
    model = vit(depth=2)
    few, many = images(model, 2), images(model, 5)
    with torch.no_grad(), pitome.patch(model, method, ratio=0.8):
        size = {0: torch.export.Dim("batch", min=2, max=64)}
        exported = torch.export.export(model, (few,), dynamic_shapes=(size,)).module()
        traced = torch.jit.trace(model, (few,), check_trace=False)
        for x in (few, many):
            torch.testing.assert_close(exported(x), model(x))
            torch.testing.assert_close(traced(x), model(x))


def test_export_equals_eager() -> None:
    model = vit(depth=2)
    x = images(model)
    pitome.patch(model, "tome", ratio=0.75)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x), rtol=0, atol=GRAPH_ATOL)


# Refusals


class Lit(lightning.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


def lora(model: nn.Module, *names: str) -> nn.Module:
    return get_peft_model(model, LoraConfig(target_modules=list(names)))


@pytest.mark.parametrize(
    ("build", "host"),
    [
        (lambda: lora(vit(), "qkv"), VisionTransformer),
        (lambda: lora(bert(), "query", "value"), BertModel),
        (lambda: lora(clip(), "c_fc"), OpenClipTower),
        (lambda: nn.Sequential(nn.Identity(), vit(), nn.Linear(5, 2)), VisionTransformer),
        (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(vit())), VisionTransformer),
        (lambda: nn.DataParallel(vit()), VisionTransformer),
        (lambda: Lit(vit()), VisionTransformer),
        (lambda: Lit(bert()), BertModel),
        (lambda: Wrapper(text=nn.Linear(2, 2), vision=vit()), VisionTransformer),
        (lambda: Wrapper(text=CLIPTextModel(CLIPTextConfig(**TINY)), vision=vit()), VisionTransformer),
        (lambda: timm_in_transformers(), VisionTransformer),
        (lambda: clip(), OpenClipTower),
        (lambda: llava(), CLIPVisionModel),
    ],
)
def test_the_one_candidate_is_patched_whatever_is_around_it(build: Any, host: type) -> None:
    model = build()
    handle = pitome.patch(model, "tome", r=2)
    assert isinstance(handle._adapter.host, host)
    assert pitome.patched(model) is handle
    pitome.remove(model)


def test_lora_on_timm_computes_and_counts() -> None:
    plain = vit()
    x, want = images(plain), None
    with torch.no_grad(), pitome.patch(plain, "tome", r=2):
        want = plain(x)
    model = lora(plain, "qkv")  # which begins as the model that it adapts
    with torch.no_grad(), pitome.patch(model, "tome", r=2):
        assert torch.equal(model(x), want)
    assert pitome.flops(model).macs_closed_form == pitome.flops(model).macs


def timm_in_transformers() -> nn.Module:
    config = TimmWrapperConfig(
        architecture="vit_tiny_patch16_224", num_labels=3, model_args={"depth": 2, "img_size": 32}
    )
    return TimmWrapperForImageClassification(config)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: Wrapper(text=bert(), vision=vit()), ("text.bert", "vision")),
        (lambda: Wrapper(a=vit(), b=vit(), c=vit()), ("a", "b", "c")),
        (lambda: nn.Sequential(vit(), vit()), ("0", "1")),
        (lambda: Wrapper(one=clip(), other=llava()), ("one.visual", "other.model.model.vision_tower")),
        (
            lambda: Lit(Wrapper(text=distilbert(), vision=clip())),
            ("net.text.distilbert", "net.vision.visual"),
        ),
    ],
)
def test_several_candidates_are_named_with_the_way_to_choose(build: Any, names: tuple[str, ...]) -> None:
    model = build()
    with pytest.raises(UnsupportedModelError, match=f"found {len(names)} of them") as caught:
        pitome.patch(model, "tome", r=2)
    assert all(f" {name} (" in str(caught.value) for name in names) and "\n" not in str(caught.value)
    assert f'pitome.patch(model.get_submodule("{names[0]}"), ...)' in str(caught.value)
    assert pitome.patched(model) is None
    pitome.patch(model.get_submodule(names[1]), "tome", r=2)
    assert pitome.patched(model) is not None


def test_patching_twice_is_refused() -> None:
    model = vit()
    pitome.patch(model, "tome", r=2)
    with pytest.raises(UsageError, match="patched already, with tome"):
        pitome.patch(model, "random", r=2)


def test_a_compiled_model_is_refused() -> None:
    model = vit(depth=1)
    with pytest.raises(UsageError, match="patch first"):
        pitome.patch(torch.compile(model, backend="eager"), "tome", r=2)
    model.compile(backend="eager")
    with pytest.raises(UsageError, match="patch first"):
        pitome.patch(model, "tome", r=2)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Linear(2, 2), "looked for a model of .*timm.*; found torch"),
        (nn.ModuleList([vit(depth=1), vit(depth=1)]), "found 2 of them"),
        ("vit_tiny_patch16_224", "a str"),
        (
            nn.Sequential(timm.create_model("resnet10t", num_classes=2)),
            r"looked for timm VisionTransformer; found timm.models.resnet.ResNet \(0\)",
        ),
        (
            Wrapper(net=timm.create_model("resnet10t"), head=CLIPTextModel(CLIPTextConfig(**TINY))),
            r"looked for .*BertModel.*; found timm.models.resnet.ResNet \(net\), \S+CLIPTextModel \(head\)",
        ),
    ],
)
def test_models_without_a_match_are_refused(model: Any, says: str) -> None:
    with pytest.raises(UnsupportedModelError, match=says) as caught:
        pitome.patch(model, "tome", r=2)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, PitomeError)


def test_the_example_in_the_docstring() -> None:
    finder = doctest.DocTestFinder()
    runner = doctest.DocTestRunner()
    for example in finder.find(patch_module.patch, "patch", module=patch_module):
        runner.run(example)
    assert runner.summarize(verbose=False).attempted > 0
    assert runner.failures == 0
