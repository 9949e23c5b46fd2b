import argparse

import huggingface_hub.constants
import pytest
import torch
import yaml
from safetensors.torch import save_file

from pitome.errors import CheckpointError
from pitome.sources import hub
from pitome.sources import weights as origin
from pitome.tasks.classification import models as vision
from pitome.tasks.data import Preprocess
from tests import ROOT
from tests.configs import model_of

CONF = ROOT / "conf" / "model"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# blocks, width, heads, tokens, millions of parameters (DeiT: Table 1 of its paper; MAE, ViT: ViT's Table 1)
# or, without positions of the class token, patches
EXPECTED = {
    "deit_t": (12, 192, 3, 197, 5.7),
    "deit_s": (12, 384, 6, 197, 22.1),
    "deit_b": (12, 768, 12, 197, 86.6),
    "mae_b": (12, 768, 12, 197, 86.6),
    "mae_l": (24, 1024, 16, 197, 304.3),
    "mae_h": (32, 1280, 16, 257, 632.0),
    "vit_s_augreg": (12, 384, 6, 197, 22.1),
    "vit_b_augreg": (12, 768, 12, 197, 86.6),
    "vit_l_augreg": (24, 1024, 16, 197, 304.3),
    "vit_l384_augreg": (24, 1024, 16, 577, 304.7),
    "dinov2_s": (12, 384, 6, 256, 21.6),  # registers and class token have no position; 22.1 at 518 pixels
    "siglip_b": (12, 768, 12, 196, 92.9),  # with its attention pool
    "vit_fmnist": (12, None, None, 197, None),
}

BACKBONES = ("dinov2_s", "siglip_b")  # without a classifier


def config(name: str) -> dict:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def test_all_models_are_there():
    assert set(EXPECTED) <= set(NAMES)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_model_builds_as_published(name):
    with torch.device("meta"):
        model = vision.build_timm(config(name)["arch"], config(name)["args"])
    blocks, width, heads, tokens, millions = EXPECTED[name]
    assert len(model.blocks) == blocks
    assert model.pos_embed.shape[1] == tokens
    if width is None:
        size = sum(p.numel() for p in model.parameters()) * 4
        assert size < 8e6, "the shipped file must stay under 8 MB"
    else:
        assert (model.embed_dim, model.blocks[0].attn.num_heads) == (width, heads)
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.15)
        assert model.num_classes == (0 if name in BACKBONES else 1000)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_file_says_what_it_is(name):
    path = CONF / f"{name}.yaml"
    first, second = path.read_text().splitlines()[:2]
    assert first.startswith("# ")
    assert config(name)["name"] == name
    assert config(name)["task"] == "classification"
    if name != "vit_fmnist":
        assert second.startswith("# timm ") and config(name)["arch"] in second


@pytest.mark.parametrize("name", ["mae_b", "mae_l", "mae_h"])
def test_mae_classifiers_have_their_authors_names(name):
    with torch.device("meta"):
        keys = set(vision.build_timm(config(name)["arch"], config(name)["args"]).state_dict())
    assert {"fc_norm.weight", "fc_norm.bias", "cls_token", "pos_embed", "head.weight"} <= keys
    assert not any(key.startswith("norm.") for key in keys)


def test_preprocessing_is_the_models_own():
    meta = {}
    for name in ("deit_s", "mae_b", "vit_b_augreg", "dinov2_s", "siglip_b", "vit_fmnist"):
        with torch.device("meta"):
            model = vision.build_timm(config(name)["arch"], config(name)["args"])
        meta[name] = vision.preprocess_of(model, model_of(config(name)).preprocess)
    assert meta["deit_s"] == Preprocess(224, 3, *IMAGENET, 0.9, "bicubic")
    assert meta["mae_b"] == Preprocess(224, 3, *IMAGENET, 0.875, "bicubic")
    assert meta["vit_b_augreg"] == Preprocess(224, 3, (0.5,) * 3, (0.5,) * 3, 0.9, "bicubic")
    assert meta["dinov2_s"] == Preprocess(224, 3, *IMAGENET, 0.875, "bicubic")
    assert meta["siglip_b"] == Preprocess(224, 3, (0.5,) * 3, (0.5,) * 3, 0.9, "bicubic")
    assert (meta["vit_fmnist"].size, meta["vit_fmnist"].channels) == (28, 1)


@pytest.fixture
def small():
    args = {"img_size": 28, "patch_size": 7, "in_chans": 1, "num_classes": 10, "embed_dim": 8, "depth": 2}
    return {
        "name": "small",
        "arch": "vision_transformer",
        "args": {**args, "num_heads": 2},
        "preprocess": {"size": 28, "channels": 1, "mean": [0.286], "std": [0.353]},
        "checkpoint": "shipped",
    }


def test_random_weights_have_no_checksum_and_follow_the_seed(small):
    torch.manual_seed(3)
    first = vision.build_vision_model(model_of(small), "random")
    torch.manual_seed(3)
    second = vision.build_vision_model(model_of(small), "random")
    assert first.sha256 is None and first.weights.record(None)["random"]
    assert not first.model.training
    x = torch.randn(2, 1, 28, 28)
    assert torch.equal(first.model(x), second.model(x))


def test_shipped_weights(small, tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "SHIPPED", tmp_path)
    with pytest.raises(CheckpointError, match="mode=train model=small"):
        vision.build_vision_model(model_of(small))
    torch.manual_seed(0)
    model = vision.build_vision_model(model_of(small), "random").model
    save_file(model.state_dict(), tmp_path / "small.safetensors")
    built = vision.build_vision_model(model_of(small))
    x = torch.randn(2, 1, 28, 28)
    assert torch.equal(built.model(x), model(x))
    assert built.weights.record(built.sha256) == {
        "name": "small.safetensors",
        "source": "shipped",
        "sha256": built.sha256,
        "random": False,
    }


def test_the_mean_pooled_classifier_loads_from_a_file_like_maes(tmp_path):
    mae = {
        "name": "mae_small",
        "arch": "vision_transformer",
        "args": {
            "img_size": 28,
            "patch_size": 7,
            "embed_dim": 8,
            "depth": 2,
            "num_heads": 2,
            "global_pool": "avg",
            "num_classes": 5,
        },
        "preprocess": config("mae_b")["preprocess"],
        "checkpoint": "https://example.org/mae.pth",
    }
    model = vision.build_vision_model(model_of(mae), "random").model
    torch.save({"model": model.state_dict(), "args": argparse.Namespace(), "epoch": 9}, tmp_path / "mae.pth")
    built = vision.build_vision_model(model_of(mae), str(tmp_path / "mae.pth"))
    x = torch.randn(1, 3, 28, 28)
    assert torch.equal(built.model(x), model(x))
    assert str(tmp_path) not in str(built.weights.record(built.sha256))
    with pytest.raises(CheckpointError, match=r"download https://example\.org/mae\.pth"):
        vision.build_vision_model(model_of(mae))


def test_a_hub_out_of_reach_names_the_file_and_three_ways(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "cached_folder", lambda *args, **kwargs: None)
    with pytest.raises(CheckpointError) as error:
        vision.build_vision_model(model_of(config("deit_s")))
    message = str(error.value)
    assert "\n" not in message
    for part in (
        "model.safetensors",
        "timm/deit_small_patch16_224.fb_in1k",
        "go online",
        "hf auth login",
        "weights=PATH",
        "weights=random",
    ):
        assert part in message


def test_hub_weights_are_read_from_the_cache(monkeypatch, tmp_path, small):
    small["checkpoint"] = "hub:owner/small@v1"
    torch.manual_seed(0)
    model = vision.build_vision_model(model_of(small), "random").model
    folder = tmp_path / "0123abc"
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    asked = []

    def cached(repo, pattern, *, kind, revision):
        asked.append((repo, pattern, kind, revision))
        return folder

    monkeypatch.setattr(hub, "cached_folder", cached)
    built = vision.build_vision_model(model_of(small))
    assert asked == [("owner/small", ("model.safetensors", "pytorch_model.bin"), "model", "v1")]
    assert built.weights.record(built.sha256)["name"] == "owner/small@0123abc"
    assert torch.equal(built.model.head.weight, model.head.weight)


def test_embeddings_are_resized_to_finer_patches(small):
    coarse = vision.build_vision_model(model_of(small), "random").model
    fine = vision.build_vision_model(
        model_of({**small, "args": {**small["args"], "patch_size": 4}}), "random"
    ).model
    fine.load_state_dict(vision.fit_state(coarse.state_dict(), fine))
    assert fine.pos_embed.shape == (1, 50, 8)
    assert torch.equal(fine.pos_embed[:, 0], coarse.pos_embed[:, 0])
    assert torch.equal(fine.blocks[0].attn.qkv.weight, coarse.blocks[0].attn.qkv.weight)


DINOV2 = {"embed_dim": 32, "depth": 1, "num_heads": 2}


def dinov2(**args):
    arch = "vit_small_patch14_reg4_dinov2"
    given = {"name": "tiny", "arch": arch, "args": {**DINOV2, **args}, "checkpoint": "shipped"}
    return {**given, "preprocess": None}


def test_position_embeddings_are_resampled_where_args_change_the_image(tmp_path):
    """timm's own way, and what is not on the grid is not touched."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    path = str(tmp_path / "large.safetensors")
    torch.manual_seed(0)
    large = vision.build_vision_model(model_of(dinov2(img_size=70)), "random").model
    torch.nn.init.normal_(large.pos_embed)
    save_file(large.state_dict(), path)
    small = vision.build_vision_model(model_of(dinov2(img_size=42)), path).model
    assert small.pos_embed.shape == (1, 9, 32)
    expected = checkpoint_filter_fn(large.state_dict(), small)
    for key, value in small.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert small(torch.randn(2, 3, 42, 42)).shape == (2, 32)
    with pytest.raises(CheckpointError, match="pos_embed"):
        vision.build_vision_model(
            model_of(dinov2()), path
        )  # its own 518 pixels: a file of another size is the wrong file


@pytest.mark.parametrize("wrong", [torch.zeros(1, 24, 32), torch.zeros(1, 25, 16), torch.zeros(25, 32)])
def test_other_position_embeddings_are_refused(tmp_path, wrong):
    path = str(tmp_path / "wrong.safetensors")
    state = vision.build_vision_model(model_of(dinov2(img_size=70)), "random").model.state_dict()
    save_file({**state, "pos_embed": wrong}, path)
    with pytest.raises(CheckpointError, match="pos_embed"):
        vision.build_vision_model(model_of(dinov2(img_size=42)), path)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_gives_features(name):
    """The model of the file at a tiny width: features of every image, merged or not."""
    import pitome

    size = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    file = config(name)
    built = vision.build_vision_model(model_of({**file, "args": {**file["args"], **size}}), "random")
    x = torch.randn(1, 3, built.preprocess.size, built.preprocess.size)
    with torch.no_grad(), pitome.patch(built.model, "pitome", ratio=0.5) as patched:
        assert built.model(x).shape == (1, 32)
    # 5 protected + 256 patches, or 196 patches; half of the patches go, twice
    assert patched.tokens == {"dinov2_s": [261, 133, 69], "siglip_b": [196, 98, 49]}[name]
