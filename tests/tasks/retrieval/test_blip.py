"""BLIP and BLIP-2: the files of conf/model, features and matching as transformers computes them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

import pitome
from pitome.errors import CheckpointError, UsageError
from pitome.measure.copies import meta_copy
from pitome.measure.flops import count_flops
from pitome.merge.costs import closed_form
from pitome.tasks.data import Preprocess
from pitome.tasks.retrieval import blip
from pitome.tasks.retrieval.blip import Blip, Blip2, ImageTextMatching, build_blip, build_model
from tests import ROOT
from tests.adapters.tiny_vision import blip2_retrieval, blip_retrieval, images
from tests.configs import model_of
from tests.tasks.text.tiny_text import tokenizer

CONF = ROOT / "conf" / "model"
CAPTIONS = ["a good film", "the bad b", "a film a film a film"]

# layers, width, tokens, millions of parameters, billions of MACs of an image and of a caption
EXPECTED = {
    "blip_base": (12, 768, 577, 223.74, 55.48, 3.00),
    "blip_large": (24, 1024, 577, 446.13, 191.07, 3.00),
    "blip2": (39, 1408, 677, 1172.62, 717.08, 2.74),
}


def tiny(kind: type[ImageTextMatching]) -> Any:
    return kind(blip_retrieval() if kind is Blip else blip2_retrieval(), tokenizer())


both = pytest.mark.parametrize("kind", [Blip, Blip2])


@pytest.mark.parametrize("name", EXPECTED)
def test_every_model_builds_as_published(name: str) -> None:
    layers, width, tokens, millions, image, caption = EXPECTED[name]
    own = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    with torch.device("meta"):
        model = build_model(model_of(own))
    built = (Blip if own["arch"] == "blip" else Blip2)(model, tokenizer())
    with pitome.patch(built, "pitome", ratio=0.95) as handle:
        architecture = handle.architecture()
    assert (len(architecture.layers), architecture.tokens) == (layers, tokens)
    assert architecture.layers[0].hidden_dim == width
    assert handle.family == ("eva" if name == "blip2" else "blip")
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert closed_form(architecture).macs / 1e9 == pytest.approx(image, abs=0.01)
    assert built.text_macs() / 1e9 == pytest.approx(caption, abs=0.01)
    grid = own["preprocess"]["size"] // own["args"]["vision_config"]["patch_size"]
    assert grid**2 + 1 == tokens and own["preprocess"]["squash"]


@both
@torch.no_grad()
def test_scores_are_those_of_transformers(kind: type[ImageTextMatching]) -> None:
    model, pictures = tiny(kind), images(3)
    ids, mask = model.tokens(CAPTIONS)
    inputs = {"pixel_values": pictures, "input_ids": ids, "attention_mask": mask}
    states = model.image_states(pictures)
    found, words = model.encode_states(states), model.encode_text(CAPTIONS)
    assert torch.equal(model.encode_image(pictures), found)
    if kind is Blip:
        want = model.model(**inputs, use_itm_head=False).itm_score
        torch.testing.assert_close(found @ words.T, want)
        ids[:, 0] = model.model.config.text_config.vocab_size - 1  # [ENC]
        want = model.model(**inputs, use_itm_head=True).itm_score[:, 1]
    else:
        want = model.model(**inputs, use_image_text_matching_head=False).logits_per_image
        torch.testing.assert_close((found @ words.T).amax(dim=1), want)
        want = model.model(**inputs, use_image_text_matching_head=True).logits_per_image[:, 1]
    torch.testing.assert_close(model.match(states, CAPTIONS), want)


@both
@torch.no_grad()
def test_the_matching_head_sees_merged_images(kind: type[ImageTextMatching]) -> None:
    model = tiny(kind)
    words, whole = model.encode_text(CAPTIONS), model.match(model.image_states(images(3)), CAPTIONS)
    with pitome.patch(model, "pitome", ratio=0.7):
        states = model.image_states(images(3))
        assert states.shape == (3, 8, 16)
        assert torch.equal(model.encode_text(CAPTIONS), words)
        merged = model.match(states, CAPTIONS)
    assert merged.isfinite().all() and not torch.allclose(merged, whole, atol=1e-4)


@both
def test_long_captions_are_cut_and_counted(kind: type[ImageTextMatching]) -> None:
    model = tiny(kind)
    fits, long = " ".join(["film"] * (kind.context - 2)), " ".join(["film"] * (kind.context - 1))
    assert model.count_truncated([fits, long, "a"]) == 1
    ids, mask = model.tokens([fits, long, "a"])
    assert ids.shape == mask.shape == (3, kind.context)
    assert torch.equal(ids[0], ids[1]) and mask.sum(dim=1).tolist() == [kind.context, kind.context, 3]


# Cost


@pytest.mark.parametrize("tokens", [677, 91])
def test_the_closed_form_of_the_q_former_is_what_is_counted(tokens: int) -> None:
    own = yaml.safe_load((CONF / "blip2.yaml").read_text())
    with torch.device("meta"):
        model = Blip2(build_model(model_of(own)), tokenizer())
    assert model.feature_macs(tokens) == counted(model, tokens)
    assert model.feature_macs(677) / 1e9 == pytest.approx(11.954, abs=0.001)


@both
def test_what_makes_features_of_the_states(kind: type[ImageTextMatching]) -> None:
    model = tiny(kind)
    assert model.feature_macs(17) == counted(model, 17)
    assert (model.feature_macs(5) < model.feature_macs(17)) is (kind is Blip2), "BLIP's are the class token"


def counted(model: Any, tokens: int) -> int:
    """The cost of `encode_states`, operation by operation."""
    states = torch.zeros(1, tokens, model.model.config.vision_config.hidden_size, device="meta")
    twin = meta_copy(model)
    twin.forward = twin.encode_states  # type: ignore[assignment, operator]
    return count_flops(twin, states).macs


@both
def test_a_pair_costs_more_than_the_features_of_its_caption(kind: type[ImageTextMatching]) -> None:
    """By what looks at the image: keys and values of its states, which merging makes fewer."""
    model = tiny(kind)
    assert model.match_macs(5) < model.match_macs(17) and model.text_macs() < model.match_macs(5)


# Building


def config() -> dict[str, Any]:
    own = blip_retrieval().config
    args = {
        "text_config": own.text_config.to_dict(),
        "vision_config": own.vision_config.to_dict(),
        "image_text_hidden_size": 8,
    }
    preprocess = {"size": 16, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "squash": True}
    return {"name": "tiny", "arch": "blip", "args": args, "preprocess": preprocess, "checkpoint": "shipped"}


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blip, "fetch_minilm", lambda: Path("words"))
    monkeypatch.setattr(blip, "load_tokenizer", lambda folder: tokenizer())


def test_a_file_is_loaded_and_known_by_its_checksum(tmp_path: Path) -> None:
    model = blip_retrieval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    # As files of older versions of transformers have it.
    state["text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    save_file(state, tmp_path / "blip.safetensors")
    built = build_blip(model_of(config()), str(tmp_path / "blip.safetensors"))
    assert built.preprocess == Preprocess(16, 3, (0.5,) * 3, (0.5,) * 3, squash=True)
    assert built.sha256 is not None and not built.model.training
    with torch.no_grad():
        want = Blip(model, tokenizer()).encode_image(images())
        assert torch.equal(built.model.encode_image(images()), want)  # type: ignore[operator]
    del state["itm_head.weight"]
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"itm_head\.weight .* is not in the file"):
        build_blip(model_of(config()), str(tmp_path / "other.safetensors"))


def test_random_weights_follow_the_seed() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(build_blip(model_of(config()), "random").model.state_dict())
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_an_unknown_architecture() -> None:
    with pytest.raises(UsageError, match=r"model\.arch=blib"):
        build_model(model_of({**copy.deepcopy(config()), "arch": "blib"}))
