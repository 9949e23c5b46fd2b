"""CLIP, SigLIP, ViT, BLIP and BLIP-2: parity with the authors' code, sizes, the patch, refusals."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    Blip2VisionConfig,
    Blip2VisionModel,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPConfig,
    CLIPForImageClassification,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    SiglipVisionModel,
    ViTForMaskedImageModeling,
)

import pitome
from pitome.errors import UnsupportedModelError, UsageError
from pitome.merge.costs import authors_macs
from tests import GOLDEN
from tests.adapters.tiny_vision import BUILD, blip2_retrieval, blip_retrieval, clip, images, output, vit

INDEX = json.loads((GOLDEN / "vision.json").read_text())
MODELS = {model["name"]: model for model in INDEX["models"]}
BARE = [name for name in pitome.methods() if not name.endswith("_repo")]
IMAGES = images()

each_tower = pytest.mark.parametrize("tower", BUILD)


def layers_of(model: Any) -> Any:
    return next(
        m.layers for m in model.modules() if isinstance(getattr(m, "layers", None), torch.nn.ModuleList)
    )


# The authors' code

# Prefixes of LAVIS' names -> those of transformers, in an EVA and a BLIP tower alike.
NAMES = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "blocks": "encoder.layers",
    "norm": "post_layernorm",
}
PARTS = {"norm1": "layer_norm1", "norm2": "layer_norm2", "attn": "self_attn", "proj": "projection"}


def translate(state: dict[str, Tensor], gamma: tuple[str, ...]) -> dict[str, Tensor]:
    """LAVIS' tensors under transformers' names. EVA's `gamma_1` and `gamma_2` scale the output of
    attention and MLP; those named in `gamma` are multiplied into the last projection."""
    state = dict(state)
    for name in [name for name in state if name.rpartition(".")[2].startswith("gamma")]:
        factor, block = state.pop(name), name.rpartition(".")[0]
        last = {"gamma_1": "attn.proj", "gamma_2": "mlp.fc2"}[name.rpartition(".")[2]]
        if name.rpartition(".")[2] in gamma:
            state[f"{block}.{last}.weight"] = factor[:, None] * state[f"{block}.{last}.weight"]
            state[f"{block}.{last}.bias"] = factor * state[f"{block}.{last}.bias"]
    for name in [name for name in state if name.endswith("q_bias")]:
        query, value = state.pop(name), state.pop(name.replace("q_bias", "v_bias"))
        state[name.replace("q_bias", "qkv.bias")] = torch.cat([query, torch.zeros_like(query), value])
    out = {}
    for name, tensor in state.items():
        if name.startswith(("norm.", "head.", "fc_norm.")):
            continue  # the official EVA never applies them; BLIP's is looked at below
        start = next(key for key in NAMES if name.startswith(key))
        rest = [PARTS.get(part, part) for part in name.removeprefix(start).split(".")]
        out[NAMES[start] + ".".join(rest)] = tensor
    return out


def build(recorded: dict[str, Any], gamma: tuple[str, ...] = ("gamma_1", "gamma_2")) -> Any:
    config, weights = recorded["config"], load_file(GOLDEN / recorded["weights"])
    if recorded["family"] == "clip":
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**config)).eval()
        model.load_state_dict(weights, strict=True)
        return model
    settings = {
        "hidden_size": config["embed_dim"],
        "intermediate_size": int(config["embed_dim"] * config["mlp_ratio"]),
        "num_hidden_layers": config["depth"],
        "num_attention_heads": config["num_heads"],
        "image_size": config["img_size"],
        "patch_size": config["patch_size"],
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
    }
    if recorded["family"] == "lavis_eva_vit":
        model = Blip2VisionModel(Blip2VisionConfig(**settings, qkv_bias=True)).eval()
    else:
        model = BlipVisionModel(BlipVisionConfig(**settings)).eval()
    report = model.load_state_dict(translate(weights, gamma), strict=False)
    assert not report.unexpected_keys
    assert {name.partition(".")[0] for name in report.missing_keys} == {"post_layernorm"}
    if "norm.weight" in weights:
        model.post_layernorm.load_state_dict({key: weights[f"norm.{key}"] for key in ("weight", "bias")})
    return model


def call(case: dict[str, Any], depth: int) -> tuple[str, dict[str, Any]]:
    """The method and keywords of `patch` that stand for a recorded case."""
    params, method = case["params"], case["method"]
    if method == "none":
        return "none", {"ratio": 1.0}
    kwargs: dict[str, Any] = {"ratio": params["ratio"]}
    if "ratio_per_block" in params:
        kwargs["layers"] = [layer for layer, ratio in enumerate(params["ratio_per_block"]) if ratio < 1]
    if case["model"] == "hf_clip_a":  # patched as the tower of LLaVA
        kwargs["family"] = "llava"
    return f"{method}_repo", kwargs


@pytest.mark.parametrize("case", INDEX["cases"], ids=lambda case: case["name"])
def test_parity(case: dict[str, Any]) -> None:
    recorded = MODELS[case["model"]]
    inputs, want = load_file(GOLDEN / recorded["inputs"]), load_file(GOLDEN / case["file"])
    # What the authors' patch computes on a tower with gamma_1, which it leaves out.
    dropped = case["model"] == "eva_vit_gamma_a" and case["method"] == "pitome"
    model = build(recorded, ("gamma_2",) if dropped else ("gamma_1", "gamma_2"))
    blocks: list[Tensor] = []
    for layer in layers_of(model):
        layer.register_forward_hook(lambda module, args, output: blocks.append(output))
    method, kwargs = call(case, len(layers_of(model)))
    patched = pitome.patch(model, method, trace=True, **kwargs)
    with torch.no_grad():
        found = model(next(iter(inputs.values())))

    def close(value: Tensor, name: str) -> None:
        torch.testing.assert_close(value, want[name], **case["tolerance"])

    expected = case["expected"]
    if "token_counts" in expected:
        assert patched.tokens == [expected["tokens_in"], *expected["token_counts"]]
    else:  # compressed behind the block
        assert patched.tokens == [*expected["token_counts_block_output"], expected["tokens_out"]]
    if case["model"] == "hf_clip_a":
        close(found.image_embeds, "image_embeds")
        close(blocks[-1], "last_hidden_state")
    else:
        close(blocks[-1], "tokens")
        for index, block in enumerate(blocks):
            if f"block{index}" in want:
                close(block, f"block{index}")
    if "size" in want and patched.sizes is not None:
        torch.testing.assert_close(patched.sizes, want["size"].flatten(1), **case["tolerance"])
    if "source" in want:
        assert torch.equal(patched.sources, want["source"])
    if "macs" in expected:
        assert authors_macs(patched.architecture(), patched.tokens, method) == expected["macs"]


# Sizes


@each_tower
@pytest.mark.parametrize("method", ["tome", "pitome"])
def test_equal_tokens_may_merge_without_a_trace(tower: str, method: str) -> None:
    """With positions taken away, the patches of a grey image are one token many times: attention and
    pool must count them as often as they were."""
    model = BUILD[tower]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "position" in name:
                parameter.zero_()
    grey = torch.full_like(IMAGES, 0.7)
    want = output(model, grey)
    with pitome.patch(model, method, ratio=0.6) as handle:
        torch.testing.assert_close(output(model, grey), want, atol=1e-5, rtol=1e-5)
        assert handle.tokens[-1] < handle.tokens[0] / 2
    if tower != "siglip":  # whose pool counts sizes in any case
        with pitome.patch(model, method, ratio=0.6, prop_attn=False):
            assert not torch.allclose(output(model, grey), want, atol=1e-3)


@each_tower
@pytest.mark.parametrize("method", BARE)
def test_every_method_and_kind_of_attention(tower: str, method: str) -> None:
    found = []
    for kind in ("sdpa", "eager"):
        if kind == "sdpa" and tower == "blip":
            continue  # BLIP's attention is written out
        model = BUILD[tower](attn_implementation=kind)
        if pitome.merge.registry.get(method).guarantees.needs_class_token and tower == "siglip":
            with pytest.raises(UnsupportedModelError, match="class token"):
                pitome.patch(model, method, ratio=0.7)
            return
        handle = pitome.patch(model, method, ratio=0.7)
        found.append(output(model, IMAGES))
        start = 16 if tower == "siglip" else 17
        assert handle.tokens == (
            [start] * 4 if method == "none" else [start, start - 4, start - 7, start - 9]
        )
        assert handle.sizes is None or handle.sizes.shape == (2, handle.tokens[-1])
    torch.testing.assert_close(found[0], found[-1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tower", ["clip", "vit", "eva"])
def test_class_attention_is_one_row_of_the_whole_map(tower: str) -> None:
    model, seen = BUILD[tower](attn_implementation="eager"), []
    entry = pitome.merge.registry.get("diffrate")
    with torch.no_grad():
        whole = model(IMAGES, output_attentions=True).attentions[0]
    handle = pitome.patch(model, "diffrate", ratio=0.7, layers=[0])
    handle.state.method = replace(entry, plan=lambda *args: seen.append(args[0]) or entry.plan(*args))
    output(model, IMAGES)
    torch.testing.assert_close(seen[0].cls_attention, whole.mean(dim=1)[:, 0])


def test_attention_that_takes_no_bias_is_refused() -> None:
    model = clip()
    model.vision_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UsageError, match="prop_attn=false"):
        pitome.patch(model, "pitome", ratio=0.7)
    assert pitome.patched(model) is None


# The patch


@each_tower
def test_ratio_1_is_bit_identical(tower: str) -> None:
    model = BUILD[tower]()
    want = output(model, IMAGES)
    for method in ("pitome", "tome"):
        with pitome.patch(model, method, ratio=1.0):
            assert torch.equal(output(model, IMAGES), want)


@each_tower
def test_remove_deepcopy_and_keys(tower: str) -> None:
    model = BUILD[tower]()
    unmerged, keys = output(model, IMAGES), list(model.state_dict())

    def traces() -> list[Any]:
        return [(set(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]

    before = traces()
    handle = pitome.patch(model, "pitome" if tower == "siglip" else "diffrate", ratio=0.7)
    merged = output(model, IMAGES)
    assert list(model.state_dict()) == keys
    twin = copy.deepcopy(model)
    handle.remove()
    assert traces() == before
    assert torch.equal(output(model, IMAGES), unmerged)
    assert torch.equal(output(twin, IMAGES), merged)
    pitome.remove(twin)
    assert torch.equal(output(twin, IMAGES), unmerged)


@pytest.mark.parametrize("tower", ["clip", "blip", "eva"])
def test_gradient_checkpointing(tower: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = BUILD[tower]().train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        pitome.patch(model, "tome", ratio=0.7)
        model(IMAGES)[0].square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) > 20
    for got, want in zip(*gradients, strict=True):
        assert torch.equal(got, want)


@each_tower
def test_autocast(tower: str) -> None:
    model = BUILD[tower]()
    handle = pitome.patch(model, "pitome", ratio=0.7)
    output(model, IMAGES)
    counts = handle.tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert output(model, IMAGES).isfinite().all()
    assert handle.tokens == counts
    assert handle.sizes is not None and handle.sizes.dtype == torch.float32


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.nightly
@pytest.mark.usefixtures("fresh_compiler")
@each_tower
def test_compiled(tower: str) -> None:
    model = BUILD[tower]()
    pitome.patch(model, "pitome", ratio=0.7)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(output(compiled, IMAGES), output(model, IMAGES), atol=1e-5, rtol=0)


# Models around a tower


@pytest.mark.parametrize("build", [blip_retrieval, blip2_retrieval])
def test_matching_heads_take_merged_images(build: Any) -> None:
    model = build()
    inputs = {
        "pixel_values": IMAGES,
        "input_ids": torch.randint(1, 50, (2, 6), generator=torch.Generator().manual_seed(2)),
        "attention_mask": torch.ones(2, 6, dtype=torch.long),
    }
    flag = "use_itm_head" if build is blip_retrieval else "use_image_text_matching_head"
    for matching in (True, False):
        with torch.no_grad():
            whole = model(**inputs, **{flag: matching})[0]
            with pitome.patch(model, "pitome", ratio=0.7) as handle:
                merged = model(**inputs, **{flag: matching})[0]
        assert handle.tokens == [17, 13, 10, 8]
        assert merged.shape == whole.shape
        assert not torch.equal(merged, whole)


def test_the_text_encoder_of_clip_stays_as_it_is() -> None:
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = CLIPModel(
        CLIPConfig(
            text_config=CLIPTextConfig(vocab_size=50, eos_token_id=49, **text).to_dict(),
            vision_config=clip().config.to_dict(),
            projection_dim=6,
        )
    ).eval()
    ids = torch.tensor([[1, 5, 9, 49]])
    with torch.no_grad():
        want = model.get_text_features(input_ids=ids).pooler_output
        with pitome.patch(model, "tome", ratio=0.7) as handle:
            assert torch.equal(model.get_text_features(input_ids=ids).pooler_output, want)
            assert handle.tokens == []
            model.get_image_features(pixel_values=IMAGES)
            assert handle.tokens == [17, 13, 10, 8]
            tower = pitome.flops(model)
    assert tower.macs == pytest.approx(tower.macs_closed_form, rel=1e-3)


# Costs


@each_tower
@pytest.mark.parametrize("method", ["none", "pitome", "tome"])
def test_the_closed_form_is_what_is_counted(tower: str, method: str) -> None:
    model = BUILD[tower]()
    with pitome.patch(model, method, ratio=0.8):
        cost = pitome.flops(model)
    assert cost.macs == pytest.approx(cost.macs_closed_form, rel=1e-3)
    assert (cost.share < 1) == (method != "none")


def test_a_share_of_the_cost() -> None:
    model = vit()
    with pitome.patch(model, "tome", flops=0.8):
        assert 0.7 < pitome.flops(model).share <= 0.8


def test_sizes_that_are_refused() -> None:
    with pitome.patch(clip(), "tome", ratio=0.7) as handle, pytest.raises(UsageError, match="input_size"):
        handle.example(24)


# Refusals


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (
            lambda: CLIPForImageClassification(CLIPConfig(vision_config=clip().config.to_dict())),
            "every token",
        ),
        (lambda: ViTForMaskedImageModeling(vit().config), "every token"),
        (lambda: torch.nn.ModuleList([clip(), clip()]), "found 2 of them"),
        (
            lambda: type("Own", (CLIPVisionModel,), {"forward": lambda self, x: x})(clip().config),
            "with its own",
        ),
    ],
    ids=["mean", "pixels", "two", "own-forward"],
)
def test_models_that_are_refused(build: Any, says: str) -> None:
    model = build()
    with pytest.raises(UnsupportedModelError, match=says) as caught:
        pitome.patch(model, "tome", ratio=0.7)
    assert "\n" not in str(caught.value)
    assert pitome.patched(model) is None


def test_inputs_that_are_refused() -> None:
    model = BUILD["siglip"]()
    assert isinstance(model, SiglipVisionModel)
    pitome.patch(model, "tome", ratio=0.7)
    with pytest.raises(UsageError, match="attention_mask"):
        model.encoder(torch.zeros(1, 16, 16), torch.zeros(1, 1, 16, 16))
