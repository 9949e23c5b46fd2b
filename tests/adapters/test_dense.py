"""Outputs with a row for every token: `patched.unmerge` and `dense=True`, for every kind of model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models._features import FeatureGetterNet
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    Dinov2Backbone,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersBackbone,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    Idefics3VisionConfig,
    InternVLVisionConfig,
    SmolVLMVisionConfig,
)
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer
from transformers.models.internvl.modeling_internvl import InternVLVisionModel
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

import pitome
from pitome.errors import UnsupportedModelError, UsageError
from pitome.merge import registry
from tests.adapters import tiny, tiny_clip, tiny_text, tiny_vision

GRID = (4, 4)
_SIZES = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16, "patch_size": 4,
}  # fmt: skip
_DINO = _SIZES | {"mlp_ratio": 2, "out_indices": [1, 2, 3]}


def vit(**kwargs: Any) -> Any:
    return tiny.vit(GRID, in_chans=3, **kwargs)


def clip(**kwargs: Any) -> Any:
    return tiny_clip.tower(image_size=(16, 16), **kwargs)


def seeded(build: Any, config: Any) -> Any:
    return tiny_vision.seeded(build(config))


def flat(value: Any) -> list[Tensor]:
    """All tensors in an output."""
    if isinstance(value, Tensor):
        return [value]
    values = [value[key] for key in sorted(value)] if isinstance(value, dict) else value
    return [tensor for part in values if part is not None for tensor in flat(part)]


def timm(model: Any, x: Tensor) -> list[Tensor]:
    return flat(
        [
            model.forward_features(x),
            model.forward_intermediates(x, norm=True),
            model.forward_intermediates(x, [2, 0], return_prefix_tokens=True, output_fmt="NLC"),
            model.forward_intermediates(x, [1], stop_early=True, output_dict=True, return_prefix_tokens=True),
            model.get_intermediate_layers(x, 2, reshape=True, return_prefix_tokens=True),
            model.forward_head(model.forward_features(x)),
        ]
    )


def open_clip(model: Any, x: Tensor) -> list[Tensor]:
    found = [
        model.forward_intermediates(x, normalize_intermediates=True, output_extra_tokens=True),
        model.forward_intermediates(x, [0, 2], intermediates_only=True, output_fmt="NLC", stop_early=True),
    ]
    return flat([model(x), *found])


def hf(model: Any, x: Tensor) -> list[Tensor]:
    return flat([model(x, output_hidden_states=True), model(x, return_dict=False)])


def text(model: Any, x: Tensor) -> list[Tensor]:
    mask = torch.ones_like(x)
    mask[1, 9:] = 0
    output = model(input_ids=x, attention_mask=mask, output_hidden_states=True)
    return [found * mask[..., None] for found in flat(output) if found.ndim == 3]


CASES: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], list[Tensor]]]] = {
    "timm": (vit, timm),
    "timm-mean": (lambda: vit(global_pool="avg", fc_norm=True), timm),
    "timm-map": (lambda: vit(class_token=False, global_pool="map"), timm),
    "timm-registers": (lambda: vit(reg_tokens=4, no_embed_class=True, init_values=1.0), timm),
    "timm-no-pool": (lambda: vit(global_pool=""), timm),
    "timm-features-only": (lambda: FeatureGetterNet(vit(), (0, 2)), lambda model, x: model(x)),
    "open_clip": (clip, open_clip),
    "open_clip-mean": (lambda: clip(pool_type="avg", output_tokens=True), open_clip),
    "open_clip-tokens": (lambda: clip(output_tokens=True, final_ln_after_pool=True), open_clip),
    "open_clip-no-pool": (lambda: clip(pool_type="none", output_tokens=True), open_clip),
    "open_clip-custom": (lambda: clip(block_type="custom", qk_norm=True, output_tokens=True), open_clip),
    **{name: (build, hf) for name, build in tiny_vision.BUILD.items()},
    "clip-classifier": (
        lambda: seeded(
            CLIPForImageClassification, CLIPConfig(vision_config=tiny_vision.clip().config.to_dict())
        ),
        hf,
    ),
    "dinov2-classifier": (lambda: seeded(Dinov2ForImageClassification, Dinov2Config(**_DINO)), hf),
    "dinov2-backbone": (lambda: seeded(Dinov2Backbone, Dinov2Config(**_DINO)), hf),
    "dinov2-backbone-flat": (
        lambda: seeded(Dinov2Backbone, Dinov2Config(**_DINO, reshape_hidden_states=False)), hf,
    ),
    "dinov2-registers": (
        lambda: seeded(Dinov2WithRegistersModel, Dinov2WithRegistersConfig(**_DINO, use_swiglu_ffn=True)), hf,
    ),
    "dinov2-registers-backbone": (
        lambda: seeded(Dinov2WithRegistersBackbone, Dinov2WithRegistersConfig(**_DINO)), hf,
    ),
    "internvl": (
        lambda: seeded(
            InternVLVisionModel,
            InternVLVisionConfig(**_SIZES | {"image_size": [16, 16], "patch_size": [4, 4]}, use_qk_norm=True),
        ),
        hf,
    ),
    "idefics3": (lambda: seeded(Idefics3VisionTransformer, Idefics3VisionConfig(**_SIZES)), hf),
    "smolvlm": (lambda: seeded(SmolVLMVisionTransformer, SmolVLMVisionConfig(**_SIZES)), hf),
    **{name: (lambda build=build: build().base_model, text) for name, build in tiny_text.BUILD.items()},
}  # fmt: skip
each_case = pytest.mark.parametrize("case", CASES)


def given(case: str) -> Tensor:
    """Two images [2, 3, 16, 16], or texts [2, 12], of few different patches or words, many times."""
    generator = torch.Generator().manual_seed(3)
    if CASES[case][1] is text:
        return torch.randint(5, 8, (2, 12), generator=generator)
    patches = torch.randn(3, 3, 4, 4, generator=generator)
    kinds = torch.randint(0, 3, (2, *GRID), generator=generator)
    return patches[kinds].permute(0, 3, 1, 4, 2, 5).reshape(2, 3, 16, 16)


def build(case: str, positions: bool = True) -> tuple[Any, Callable[[Tensor], list[Tensor]]]:
    make, outputs = CASES[case]
    model = make().double().eval().requires_grad_(False)
    if not positions:
        for name, parameter in model.named_parameters():
            if "position" in name or name.endswith("pos_embed"):
                parameter.zero_()
    return model, lambda x: outputs(model, x if outputs is text else x.double())


@each_case
def test_dense_outputs_have_all_tokens_and_keeping_all_changes_no_bit(case: str) -> None:
    (model, outputs), x = build(case), given(case)
    want = outputs(x)
    with pitome.patch(model, "pitome", ratio=1.0, dense=True):
        assert all(torch.equal(*pair) for pair in zip(outputs(x), want, strict=True))
    with pitome.patch(model, "pitome", ratio=0.7, dense=True) as handle:
        found = outputs(x)
        # Of the forwards, the last may have stopped early.
        assert 0 < max(handle.tokens) > min(count for count in handle.tokens if count)
        twin = copy.deepcopy(model)
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in want]
    assert not all(torch.allclose(*pair) for pair in zip(found, want, strict=True))
    assert all(torch.equal(*pair) for pair in zip(outputs(x), want, strict=True))
    twin_outputs = CASES[case][1](twin, x if CASES[case][1] is text else x.double())
    assert all(torch.equal(*pair) for pair in zip(twin_outputs, found, strict=True))
    pitome.remove(twin)
    assert vars(twin).keys() == vars(model).keys() and type(twin) is type(model)


@each_case
def test_where_equal_tokens_merge_dense_outputs_are_those_of_the_unmerged_model(case: str) -> None:
    """Without positions, images of three kinds of patches: only equal ones merge, wherever they are."""
    (model, outputs), x = build(case, positions=False), given(case)
    want = outputs(x)
    with pitome.patch(model, "tome", r=2, layers=[0, 1], dense=True) as handle:
        for got, expected in zip(outputs(x), want, strict=True):
            torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
        assert handle.tokens[0] - handle.tokens[2] == 4


@pytest.mark.parametrize("case", ["siglip", "internvl", "bert"])
def test_a_model_whose_configuration_asks_for_tuples_gives_them(case: str) -> None:
    (model, _), x = build(case), given(case)
    x = x if case == "bert" else x.double()
    with pitome.patch(model, "tome", r=2, dense=True):
        want = flat(model(x, return_dict=False))
        model.config.return_dict = False
        found = model(x)
    assert isinstance(found, tuple) and all(
        torch.equal(*pair) for pair in zip(flat(found), want, strict=True)
    )


@pytest.mark.parametrize("case", ["timm", "timm-mean", "timm-map", "open_clip-mean", "clip", "siglip", "vit"])
@pytest.mark.parametrize("method", ["pitome", "pitome_repo", "diffrate"])
def test_what_reads_the_pool_gets_the_same_with_and_without(case: str, method: str) -> None:
    how: dict[str, Any] = {"ratio": 0.8}
    model, _ = build(case.replace("open_clip-mean", "open_clip"))
    if method == "diffrate":
        if case in ("timm-map", "siglip"):
            pytest.skip("no class token")
        how = {"prune_kept": [15, 12, 10, 9][: 4 if "timm" in case or "open" in case else 3]}
        how["merge_kept"] = [count - 1 for count in how["prune_kept"]]
    x, kinds = given(case).double(), []
    for dense in (False, True):
        with pitome.patch(model, method, dense=dense, **how):
            kinds.append(flat(model(x))[0] if case != "siglip" else model(x).pooler_output)
            if dense and case.startswith("timm"):
                assert torch.equal(model.forward_head(model.forward_features(x)), kinds[0])
    assert torch.equal(*kinds) or case == "vit"  # in which this is the class token
    assert torch.allclose(*kinds)


@pytest.mark.parametrize("method", pitome.methods("tower"))
def test_unmerge_follows_the_sources_of_every_method(method: str) -> None:
    model = vit(depth=3).eval()
    x = given("timm")
    how: dict[str, Any] = {"ratio": 0.7}
    if method in ("diffrate", "diffrate_repo"):
        how = {"prune_kept": [15, 12, 10], "merge_kept": [14, 11, 9]}
    with torch.no_grad(), tiny.patch(model, method, trace=True, **how) as handle:
        model(x)
        rows = torch.randn(2, handle.tokens[-1], 3)
        if not registry.get(method).guarantees.groups:
            with pytest.raises(UsageError, match="mixes all tokens"):
                handle.unmerge(rows)
            with pytest.raises(UsageError, match="mixes all tokens"):
                pitome.patch(vit(), method, ratio=0.7, dense=True)
            return
        assert torch.equal(handle.unmerge(rows), handle.sources.mT @ rows)
        if method in ("diffrate", "tofu", "repshift"):  # whose dropped tokens get zeros
            assert bool((handle.unmerge(rows) == 0).all(dim=-1).any())
        for wrong in (rows[:, 1:], rows[0], *([rows[:1]] if method != "none" else [])):
            with pytest.raises(UsageError, match="the last forward left"):
                handle.unmerge(wrong)
        for layer in (-1, 4):
            with pytest.raises(UsageError, match=f"layer={layer} is none of 0 to 3"):
                handle.unmerge(rows, layer)
        entering = torch.randn(2, handle.tokens[1], 3)
        assert handle.unmerge(entering, 1).shape == (2, 17, 3)


def test_what_needs_all_tokens_says_so_and_what_cannot_be_is_refused() -> None:
    for case, says in (
        ("dinov2-backbone", "place for every token; dense=True"),
        ("clip-classifier", "reads every token of its CLIPVisionModel.*; dense=True"),
        ("timm-features-only", "found '' .no pool.*; dense=True"),
        ("open_clip-tokens", "output_tokens=True.*; dense=True"),
    ):
        model, _ = build(case)
        with pytest.raises(UnsupportedModelError, match=says) as caught:
            pitome.patch(model, "tome", ratio=0.7)
        assert "\n" not in str(caught.value) and pitome.patched(model) is None
    with pytest.raises(UsageError, match="dense"):
        pitome.patch(vit(), "divprune", keep=4, dense=True)


def test_dense_is_saved_compiled_and_has_gradients(tmp_path: Path) -> None:
    model = vit(depth=2)
    handle = pitome.patch(model, "tome", r=2, dense=True)
    handle.save(tmp_path)
    again = vit(depth=2)
    assert pitome.load(again, tmp_path).arguments.dense is True
    x = given("timm")
    with torch.no_grad():
        want = model.forward_features(x)
        assert torch.equal(again.forward_features(x), want)
        torch._dynamo.reset()
        compiled = torch.compile(model.forward_features, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), want, rtol=0, atol=tiny.GRAPH_ATOL)
        torch._dynamo.reset()
    model.forward_features(x)[:, -1].sum().backward()
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0
