"""Whole models against recordings of the authors' code (tests/data/golden/model.json)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

import pitome
from tests import GOLDEN

INDEX = json.loads((GOLDEN / "model.json").read_text())
MODELS = {model["name"]: model for model in INDEX["models"]}


def build(model: dict[str, Any]) -> VisionTransformer:
    config = model["config"]
    names = ("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads")
    kwargs = {name: config[name] for name in names}
    if model["family"] == "mae":
        kwargs |= {"global_pool": "avg", "fc_norm": True}
    cls = VisionTransformerDistilled if config.get("distilled") else VisionTransformer
    built = cls(**kwargs, mlp_ratio=config["mlp_ratio"], qkv_bias=config["qkv_bias"])
    built.load_state_dict(load_file(GOLDEN / model["weights"]), strict=True)
    return built.eval()


def call(case: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method and keywords of `patch` that stand for a recorded case."""
    params, method = case["params"], case["method"]
    if method == "none":
        return "none", {"ratio": 1.0}
    if case.get("variant") == "kept numbers":
        kept = {"prune_kept": params["prune_kept_num"], "merge_kept": params["merge_kept_num"]}
        return "diffrate", kept
    if case.get("variant") == "r":  # the authors' own repository
        r, inflection = params["r"] if isinstance(params["r"], list) else (params["r"], None)
        return "tome", {"r": r, "inflection": inflection, "prop_attn": params["prop_attn"]}
    # `prop_attn` of these cases is recorded as having no effect: the preset is what ran.
    return f"{method}_repo", {"ratio": params["ratio"]}


def close(got: torch.Tensor, want: torch.Tensor, case: dict[str, Any]) -> None:
    torch.testing.assert_close(got, want, **case["tolerance"])


@pytest.mark.parametrize("case", INDEX["cases"], ids=lambda case: case["name"])
def test_parity(case: dict[str, Any]) -> None:
    model = build(MODELS[case["model"]])
    want = load_file(GOLDEN / case["file"])
    x = load_file(GOLDEN / MODELS[case["model"]]["inputs"])["x"]
    blocks: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, output: blocks.append(output))
    method, kwargs = call(case)
    patched = pitome.patch(model, method, trace=True, **kwargs)
    with torch.no_grad():
        logits = model(x)

    assert patched.tokens == [case["expected"]["tokens_in"], *case["expected"]["token_counts"]]
    for index, block in enumerate(blocks):
        if f"block{index}" in want:
            close(block, want[f"block{index}"], case)
    close(blocks[-1], want["tokens"], case)
    close(logits, want["logits"], case)
    if "size" in want and patched.sizes is not None:
        close(patched.sizes, want["size"][..., 0], case)
    if "source" in want:
        assert torch.equal(patched.sources, want["source"])
    pitome.remove(model)
    plain = next(c for c in INDEX["cases"] if c["model"] == case["model"] and c["method"] == "none")
    with torch.no_grad():
        close(model(x), load_file(GOLDEN / plain["file"])["logits"], plain)
