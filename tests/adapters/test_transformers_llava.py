"""LLaVA-1.5: which tokens its language model gets, the patch, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

import pitome
from pitome.errors import UnsupportedModelError, UsageError
from tests.tasks.vqa.tiny_llava import images, llava

METHODS = [name for name in pitome.methods() if name == "pitome_repo" or not name.endswith("_repo")]
IMAGES = images()
SMALL: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_rows_are_what_the_schedule_says(method: str) -> None:
    model = llava()
    plain = model.features(IMAGES)
    with pitome.patch(model, method, ratio=0.7) as handle:
        rows = model.features(IMAGES)
        assert {len(row) for row in rows} == {model.image_rows} == {handle.tokens[-2] - 1}
        if method != "none":
            assert model.image_rows < model.unmerged_rows == 16
    assert handle.family == "llava"
    assert all(map(torch.equal, plain, model.features(IMAGES)))


def test_authors_merge_behind_the_block_and_the_paper_inside_it() -> None:
    for method, position in (("pitome_repo", "after_block"), ("pitome", "before_mlp")):
        with pitome.patch(llava(), method, ratio=0.7) as handle:
            assert handle.options.position == position


@pytest.mark.parametrize(("layer", "entry"), [(-1, 3), (-2, 2), (1, 1)])
@pytest.mark.parametrize("strategy", ["default", "full"])
def test_feature_layer_and_class_token(layer: int, entry: int, strategy: str) -> None:
    model = llava(vision_feature_layer=layer, vision_feature_select_strategy=strategy)
    with pitome.patch(model, "tome", ratio=0.7) as handle:
        row = model.features(IMAGES)[0]
        assert len(row) == model.image_rows == handle.tokens[entry] - (strategy == "default")


def test_what_merges_behind_the_feature_layer_is_without_effect() -> None:
    model = llava()
    plain = model.features(IMAGES)
    with pitome.patch(model, "pitome", ratio=0.5, layers=[2]) as handle:
        assert all(map(torch.equal, plain, model.features(IMAGES)))
        assert handle.tokens == [17, 17, 17, 9]


def test_features_of_several_layers_go_together_where_none_merges_between_them() -> None:
    model = llava(vision_feature_layer=[1, 2])
    with pytest.raises(UsageError, match="joins layers of 13 and 10 tokens") as caught:
        pitome.patch(model, "tome", ratio=0.7)
    assert "\n" not in str(caught.value) and pitome.patched(model) is None
    with pitome.patch(model, "tome", ratio=0.7, layers=[0]):
        assert len(model.features(IMAGES)[0]) == model.image_rows == 12


def test_a_model_that_joins_features_of_several_layers_needs_all_tokens() -> None:
    tower = CLIPVisionConfig(**SMALL, image_size=8, patch_size=4)
    layers = {"vision_feature_layers": [-1, -2], "image_token_index": 49}
    own: Any = VipLlavaConfig(vision_config=tower, text_config=LlamaConfig(vocab_size=50, **SMALL), **layers)
    model = VipLlavaForConditionalGeneration(own).eval()
    with pytest.raises(UnsupportedModelError, match=r"VipLlavaModel reads every .*; dense=True") as caught:
        pitome.patch(model, "tome", ratio=0.7)
    assert "\n" not in str(caught.value)
    with torch.no_grad(), pitome.patch(model, "tome", ratio=0.7, dense=True) as handle:
        features = model.get_image_features(torch.randn(1, 3, 8, 8), return_dict=True).pooler_output
    assert features.shape[:2] == (1, 4) and handle.tokens[-1] < 5
