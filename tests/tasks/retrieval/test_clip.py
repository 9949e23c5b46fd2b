"""CLIP models from the configuration, a hub folder or a file; their tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import tokenizers
import torch
import yaml
from open_clip.model import CLIP
from safetensors.torch import save_file

import pitome
from pitome.errors import CheckpointError, DataError, UsageError
from pitome.measure.flops import count_flops
from pitome.merge.costs import closed_form
from pitome.sources import weights as origin
from pitome.tasks.data import Preprocess
from pitome.tasks.retrieval import clip
from pitome.tasks.retrieval.captions import byte_pairs, pieces, word_list
from pitome.tasks.retrieval.clip import ImageText, build_clip, build_model, fit_state
from pitome.tasks.retrieval.scenes_make import describe, layouts
from tests import ROOT
from tests.configs import model_of

CONF = ROOT / "conf" / "model"
WORDS = ["a", "bag", "shirt", ":"]

# blocks, width, tokens, millions of parameters (open_clip's docs/model_profile.csv), QuickGELU
EXPECTED = {
    "clip_b32": (12, 768, 50, 151.28, True),
    "clip_b16": (12, 768, 197, 149.62, True),
    "clip_l": (24, 1024, 257, 427.62, True),
    "clip_l336": (24, 1024, 577, 427.94, True),
    "clip_b32_laion": (12, 768, 50, 151.28, False),
    "clip_b16_laion": (12, 768, 197, 149.62, False),
    "clip_l_laion": (24, 1024, 257, 427.62, False),
}
TINY: dict[str, Any] = {
    "name": "tiny",
    "arch": "CLIP",
    "args": {
        "embed_dim": 6,
        "vision_cfg": {"image_size": 16, "patch_size": 4, "width": 16, "head_width": 8, "layers": 2},
        "text_cfg": {"context_length": 6, "vocab_size": 7, "width": 16, "heads": 2, "layers": 2},
        "words": WORDS,
    },
    "preprocess": {"size": 16, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3},
    "checkpoint": "shipped",
}


def config(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def text_features(model: Any, captions: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return model.encode_text(captions)


# The files of conf/model


@pytest.mark.parametrize("name", EXPECTED)
def test_every_model_builds_as_published(name: str) -> None:
    blocks, width, tokens, millions, quick = EXPECTED[name]
    own = config(name)
    with torch.device("meta"):
        model: Any = build_model(model_of(own)).model
    assert len(model.visual.transformer.resblocks) == blocks
    assert model.visual.positional_embedding.shape == (tokens, width)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    activation = model.visual.transformer.resblocks[0].mlp.gelu
    assert (type(activation).__name__ == "QuickGELU") is quick


@pytest.mark.parametrize("name", EXPECTED)
def test_every_file_agrees_with_open_clip(name: str) -> None:
    """The weights, their activation and preprocessing, as open_clip lists them."""
    own = config(name)
    assert own["name"] == name and own["task"] == "retrieval"
    repository = own["checkpoint"].removeprefix("hub:").partition("@")[0]
    first, second = (CONF / f"{name}.yaml").read_text().splitlines()[:2]
    assert first.startswith("# CLIP ") and repository in second
    arch = own["arch"].removesuffix("-quickgelu")
    tags = [open_clip.get_pretrained_cfg(arch, tag) for tag in open_clip.list_pretrained_tags_by_model(arch)]
    listed = next(tag for tag in tags if tag["hf_hub"].strip("/") == repository)
    assert listed.get("quick_gelu", False) is EXPECTED[name][-1]
    given = own["preprocess"]
    assert (tuple(given["mean"]), tuple(given["std"])) == (listed["mean"], listed["std"])
    assert given["size"] == open_clip.get_model_config(arch)["vision_cfg"]["image_size"]
    assert (listed["interpolation"], listed["resize_mode"]) == ("bicubic", "shortest")


def test_the_offline_model() -> None:
    built = build_clip(model_of(config("clip_scenes")), "random")
    model: Any = built.model
    assert built.preprocess == Preprocess(56, 3, (0.286,) * 3, (0.353,) * 3)
    assert sum(p.numel() for p in model.parameters()) * 4 < 8e6, "the shipped file must stay under 8 MB"
    with torch.no_grad(), pitome.patch(model, "pitome", ratio=0.9) as handle:
        assert model.encode_image(torch.randn(2, 3, 56, 56)).shape == (2, 64)
    assert handle.tokens[0] == 197 and len(handle.tokens) == 13


def test_the_words_of_the_offline_model_are_those_of_the_scenes() -> None:
    kinds = layouts(3000, np.random.RandomState(5), distinct=True)
    captions = [caption for row in kinds for caption in describe(row)]
    own = config("clip_scenes")["args"]
    tokens = build_model(model_of(config("clip_scenes"))).tokenizer(captions)
    assert own["words"] == sorted(own["words"])
    assert set(tokens.flatten().tolist()) == set(range(len(own["words"]) + 3)), "no word stands there in vain"
    assert build_model(model_of(config("clip_scenes"))).count_truncated(captions) == 0


# Building


def test_random_weights_follow_the_seed_and_need_no_hub() -> None:
    torch.manual_seed(3)
    first: Any = build_clip(model_of(TINY), "random")
    torch.manual_seed(3)
    second: Any = build_clip(model_of(TINY), "random")
    assert first.sha256 is None and first.weights.record(None)["random"] and not first.model.training
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        image = first.model.encode_image(x)
        assert torch.equal(image, second.model.encode_image(x))
        assert torch.equal(image, first.model(x))
        want = first.model.image_tower(x)
    torch.testing.assert_close(image.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(image, want / want.norm(dim=-1, keepdim=True))
    text = text_features(first.model, ["a bag", "a shirt: a bag"])
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(2))
    assert not torch.allclose(text[0], text[1])


def test_a_caption_does_not_depend_on_its_batch() -> None:
    model = build_clip(model_of(TINY), "random").model
    alone = text_features(model, ["a bag"])
    torch.testing.assert_close(text_features(model, ["shirt", "a bag"])[1:], alone)


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_a_file_loads_with_the_names_of_open_clip_or_of_training(prefix: str, tmp_path: Path) -> None:
    """A bare open_clip model, what `save_weights` writes, and a checkpoint from several devices."""
    source: Any = build_model(model_of(TINY))
    path = tmp_path / "weights.safetensors"
    save_file({f"{prefix}{key}": value for key, value in source.model.state_dict().items()}, path)
    built = build_clip(model_of(TINY), str(path))
    own = built.model.model.state_dict()  # type: ignore[union-attr, operator]
    assert all(torch.equal(own[key], value) for key, value in source.model.state_dict().items())
    assert built.sha256 is not None and built.weights.source == "file"


def test_a_bare_model_of_the_same_configuration_has_the_same_tensors() -> None:
    """What is trained elsewhere with open_clip loads here."""
    args = {key: value for key, value in TINY["args"].items() if key != "words"}
    bare, own = CLIP(**args).state_dict(), build_model(model_of(TINY)).model.state_dict()
    assert {k: v.shape for k, v in bare.items()} == {k: v.shape for k, v in own.items()}


def test_shipped_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "SHIPPED", tmp_path)
    with pytest.raises(CheckpointError, match="no shipped weights yet"):
        build_clip(model_of(TINY))
    save_file(build_model(model_of(TINY)).model.state_dict(), tmp_path / "tiny.safetensors")
    assert build_clip(model_of(TINY)).weights.source == "shipped"


def test_hub_weights_are_those_of_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(repo: str, names: Sequence[str], *, revision: str, **options: Any) -> Path:
        asked.append((repo, names[0], revision))
        folder = tmp_path / "0123abc"
        folder.mkdir()
        save_file(build_model(model_of(TINY)).model.state_dict(), folder / names[0])
        return folder

    monkeypatch.setattr(origin, "fetch_folder", fetch)
    built = build_clip(model_of(TINY | {"checkpoint": "hub:some/clip@main"}))
    assert asked == [("some/clip", "open_clip_model.safetensors", "main")]
    assert built.weights.record(built.sha256)["name"] == "some/clip@0123abc"


def test_a_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    other = {**TINY["args"], "vision_cfg": {**TINY["args"]["vision_cfg"], "width": 32}}
    save_file(build_model(model_of({**TINY, "args": other})).model.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"does not fit this model: .* more do not fit") as caught:
        build_clip(model_of(TINY), str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arch": "ViT-B-33"}, "did you mean ViT-B-32"),
        ({"arch": "ViT-B-16-SigLIP2", "args": {}}, "nor an English SigLIP"),
        ({"arch": "roberta-ViT-B-32", "args": {}}, "neither a CLIP with open_clip's own text tower"),
        ({"arch": "coca_ViT-B-32", "args": {}}, "neither a CLIP with open_clip's own text tower"),
        ({"args": {**TINY["args"], "words": [*WORDS, "more"]}}, "vocab_size=7 is too small .* give 8"),
    ],
)
def test_what_cannot_be_built(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        build_model(model_of({**TINY, **change}))
    assert "\n" not in str(caught.value)


def test_named_architectures_take_arguments() -> None:
    with torch.device("meta"):
        model: Any = build_model(
            model_of({**TINY, "arch": "ViT-B-32", "args": {"quick_gelu": True}}), patch_size=16
        )
    assert type(model.model.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert model.model.visual.positional_embedding.shape[0] == 197


# Training in stages


def test_a_coarse_stage_hands_its_weights_on() -> None:
    coarse, fine = build_model(model_of(TINY), patch_size=8), build_model(model_of(TINY))
    state = coarse.state_dict()
    assert state["model.visual.positional_embedding"].shape == (5, 16)
    fitted = fit_state(state, fine)
    fine.load_state_dict(fitted)
    for key, value in state.items():
        same = value.shape == fitted[key].shape
        assert torch.equal(value, fitted[key]) if same else "visual" in key
    assert torch.equal(
        fitted["model.visual.positional_embedding"][0], state["model.visual.positional_embedding"][0]
    )
    inner = fit_state(coarse.model.state_dict(), fine.model)
    assert torch.equal(inner["visual.conv1.weight"], fitted["model.visual.conv1.weight"])
    assert fit_state(fitted, fine).keys() == fitted.keys()


def test_training_reaches_every_weight() -> None:
    model = build_model(model_of(TINY))
    images, texts = model.encode_image(torch.randn(2, 3, 16, 16)), model.encode_text(["a bag", "shirt"])
    (model.log_scale.exp() * images @ texts.T).log_softmax(dim=-1).diagonal().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# Cost


def test_text_macs() -> None:
    """Per token and block: projections 4 C^2, MLP 8 C^2, attention 2 N C; then one projection."""
    n, c = 6, 16
    model = build_model(model_of(TINY))
    want = 2 * (n * 12 * c * c + 2 * n * n * c) + c * 6
    assert model.text_macs() == want
    pitome.patch(model, "tome", r=2)
    assert model.text_macs() == want


def test_text_macs_of_vit_l() -> None:
    """open_clip's docs/model_profile.csv, text_gflops: 13.3."""
    with torch.device("meta"):
        model = build_model(model_of(config("clip_l")))
    assert round(2 * model.text_macs() / 1e9, 1) == 13.3


# SigLIP


def vocabulary(folder: Path, words: tuple[str, ...] = ("a", "bag", "shirt")) -> Path:
    """A tokenizer.json in the form of SigLIP's: ids 0 <unk>, 1 </s>, then words, which the end follows."""
    ids = {word: index for index, word in enumerate(("<unk>", "</s>", *words))}
    file = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    file.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    file.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    file.enable_padding(pad_id=1, pad_token="</s>", length=9)
    file.enable_truncation(2)
    file.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def siglip(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """open_clip's SigLIP in small: the same classes and options."""
    own = open_clip.get_model_config("ViT-B-16-SigLIP")
    assert own is not None
    small = {"width": 16, "heads": 2, "layers": 1, "context_length": 6}
    own["embed_dim"] = 96
    own["vision_cfg"] |= {"timm_model_name": "test_vit3", "image_size": 160}
    own["text_cfg"] |= small
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: own)
    return TINY | {"arch": "ViT-B-16-SigLIP", "args": {}, "checkpoint": "hub:some/siglip@main"}


def test_siglip_builds_as_published() -> None:
    """Parameters and GMACs of both towers as in open_clip's docs/model_profile.csv: 203.16 M, 46.44 G."""
    own = config("siglip_b16")
    with torch.device("meta"):
        model = build_model(model_of(own))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(203.16, abs=0.01)
    with pitome.patch(model, "none", ratio=1.0) as handle:
        architecture = handle.architecture()
    assert (len(architecture.layers), architecture.tokens, architecture.protected) == (12, 196, 0)
    image = count_flops(model.image_tower, torch.zeros(1, 3, 224, 224, device="meta")).macs
    assert image == closed_form(architecture).macs
    assert (image + model.text_macs()) / 1e9 == pytest.approx(46.44 / 2, rel=0.01)
    (tag,) = [
        one
        for name in open_clip.list_pretrained_tags_by_model(own["arch"])
        if (one := open_clip.get_pretrained_cfg(own["arch"], name))["hf_hub"].strip("/") in own["checkpoint"]
    ]
    given = own["preprocess"]
    assert (tuple(given["mean"]), tuple(given["std"])) == (tag["mean"], tag["std"])
    assert (tag["interpolation"], tag["resize_mode"], given["squash"]) == ("bicubic", "squash", True)


def test_siglip_from_a_folder_and_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, asked = siglip(monkeypatch), []
    source = build_model(model_of(own))
    save_file(source.model.state_dict(), tmp_path / "open_clip_model.safetensors")
    path = str(tmp_path / "open_clip_model.safetensors")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: no such file; put"):
        build_clip(model_of(own), path)
    vocabulary(tmp_path)
    built: Any = build_clip(model_of(own), path).model
    torch.manual_seed(0)
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(built.encode_image(images), source.eval().encode_image(images))
        plain, whole = built.encode_text(["a bag"]), built.encode_image(images)
        with pitome.patch(built, "tome", ratio=0.7) as handle:
            assert torch.equal(built.encode_text(["a bag"]), plain), "the text tower stays as it is"
            assert not torch.allclose(built.encode_image(images), whole, atol=1e-4)
            assert handle.tokens[-1] < handle.tokens[0]
    torch.testing.assert_close(plain.norm(dim=-1), torch.ones(1))

    def fetch(repo: str, names: str | Sequence[str], *, revision: str, **options: Any) -> Path:
        asked.append((repo, names if isinstance(names, str) else names[0], revision))
        return tmp_path

    monkeypatch.setattr(origin, "fetch_folder", fetch)
    monkeypatch.setattr(clip, "fetch_folder", fetch)
    hub: Any = build_clip(model_of(own)).model
    assert asked == [
        ("some/siglip", "open_clip_model.safetensors", "main"),
        ("some/siglip", "tokenizer.json", tmp_path.name),
    ]
    assert hub.tokenizer(["a bag"]).tolist() == built.tokenizer(["a bag"]).tolist()


def test_siglip_with_random_weights_needs_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = build_clip(model_of(siglip(monkeypatch)), "random").model
    ids = model.tokenizer(["A bag!", "a bag", "a bag a bag a bag"])
    assert torch.equal(ids[0], ids[1]) and ids[0, 2:].tolist() == [1] * 4
    assert ids[2, -1] == 1 and ids.max() < 32_000
    assert model.count_truncated(["a bag a bag a", "a bag a bag a bag"]) == 1


def test_pieces_of_siglip(tmp_path: Path) -> None:
    """Lower case without punctuation; the end stands behind a text, and fills the context."""
    tokenizer = pieces(vocabulary(tmp_path), 6, 5)
    assert tokenizer(["A bag, a shirt.", "shirt a bag a bag a bag", "car"]).tolist() == [
        [2, 3, 2, 4, 1, 1],
        [4, 2, 3, 2, 3, 1],
        [0, 1, 1, 1, 1, 1],
    ]
    assert tokenizer.count_truncated(["a a a a a", "a a a a a a"]) == 1
    with pytest.raises(CheckpointError, match="holds 5 pieces with </s>, the model embeds 4"):
        pieces(tmp_path / "tokenizer.json", 6, 4)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        pieces(tmp_path / "tokenizer.json", 6, 5)
    assert "\n" not in str(caught.value)


# Captions


def test_byte_pairs_are_those_of_open_clip() -> None:
    own, theirs = byte_pairs(77), open_clip.get_tokenizer("ViT-B-32")
    captions = ["A dog runs, fast!", "  two\tCATS & a café…", "", "word " * 100]
    assert torch.equal(own(captions), theirs(captions))
    assert own.count_truncated(captions) == 1
    exactly = "dog " * 75
    assert own.count_truncated([exactly, exactly + "dog"]) == 1


def test_word_list() -> None:
    tokenizer = word_list(WORDS, 6, "tiny")
    assert tokenizer(["a bag", "A shirt: a bag a bag", ""]).tolist() == [
        [5, 1, 2, 6, 0, 0],
        [5, 1, 3, 4, 1, 6],
        [5, 6, 0, 0, 0, 0],
    ]
    assert tokenizer.count_truncated(["a bag a bag", "a bag a bag a"]) == 1


@pytest.mark.parametrize(
    ("caption", "names"),
    [
        ("a blue bag, and a car", "not ,, and, blue, car;"),
        ("2 bags", "not 2, bags;"),
        ("a bäg", "not b, g, ä;"),
        (" ".join("bcdefghijklm"), "not b, c, d, e, f, g, h, i, j, k and 2 more;"),
    ],
)
def test_unknown_words_are_named(caption: str, names: str) -> None:
    with pytest.raises(DataError, match=names) as caught:
        word_list(WORDS, 6, "tiny")([caption])
    assert "\n" not in str(caught.value) and "model=tiny" in str(caught.value)


def test_cost_of_the_image_tower() -> None:
    model: Any = build_clip(model_of(TINY), "random").model
    assert isinstance(model, ImageText)
    with pitome.patch(model, "pitome", ratio=0.75):
        cost = pitome.flops(model)
    assert cost.macs == cost.macs_closed_form < cost.unmerged_macs
