"""Every model name of timm that is built of `Block`, one tiny model per structure; docs/models.md."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

import pitome
from pitome.errors import UnsupportedModelError
from scripts.tables import models
from scripts.tables.command import DOCS
from tests.adapters.tiny import images, randomise

RECIPES = models.recipes(models.relatives())
GROUPS = models.by_structure([recipe for recipe in RECIPES if recipe.is_vit])
GROUPS = {models.smallest(group).name: group for group in GROUPS.values()}

# The narrowest model of a structure that is refused -> what the reason names.
REFUSED = {
    "vit_small_patch16_18x2_224": "ParallelThingsBlock",
    "vit_base_patch16_rpn_224": "ResPostBlock",
    "vit_base_patch16_xp_224": "ParallelScalingBlock",
    "vit_pwee_patch16_reg1_gap_256": "ParallelScalingBlock",
    "vit_dpwee_patch16_reg1_gap_256": "DiffParallelScalingBlock",
    "vit_dwee_patch16_reg1_gap_256": "DiffAttention",
}
# A model whose blocks are `Block`, in a class that is not `VisionTransformer`.
OTHERS = {
    "crossvit_9_240": "CrossVit",
    "mobilevit_xxs": "ByobNet",
    "naflexvit_base_patch16_gap": "NaFlexVit",
    "pit_ti_224": "PoolingVisionTransformer",
}
on_this_timm = pytest.mark.skipif(timm.__version__ != "1.0.31", reason="written for timm 1.0.31")


def build(name: str) -> Any:
    return randomise(models.tiny(models.smallest(GROUPS[name])))


@pytest.mark.parametrize("name", sorted(set(GROUPS) - set(REFUSED)))
@torch.no_grad()
def test_patched(name: str) -> None:
    model = build(name)
    prefix, patches = model.num_prefix_tokens, model.patch_embed.num_patches
    # Two of every four patch tokens are equal; behind the embedding, since a stem mixes patches.
    model.norm_pre.register_forward_hook(twins(prefix))
    x = images(model)
    plain = model(x)
    assert plain.shape == (2, 5) and plain.isfinite().all()

    with pitome.patch(model, "tome", ratio=1.0):
        assert torch.equal(model(x), plain)

    with pitome.patch(model, "pitome", ratio=0.75) as handle:
        merged = model(x)
    t, expected = patches, [prefix + patches]
    for _ in model.blocks:
        t -= min(int(t - t * 0.75), t // 2)
        expected.append(prefix + t)
    assert handle.tokens == expected
    assert handle.tokens[-1] < handle.tokens[0]
    assert merged.isfinite().all()
    assert not torch.equal(merged, plain)

    # Equal tokens as one token that counts for all of them: the model says the same.
    with pitome.patch(model, "tome", r=[patches // 4, 0], trace=True) as handle:
        assert_same(model(x), plain)
    first = handle.sources[0, :, prefix:]  # columns: patches
    assert sorted(first.sum(dim=1).tolist()) == [0.0] * prefix + [1.0] * (patches // 2) + [2.0] * (
        patches // 4
    )

    assert torch.equal(model(x), plain)
    assert pitome.patched(model) is None


def twins(prefix: int) -> Any:
    def hook(module: Any, args: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, prefix + 1 :: 4] = x[:, prefix::4][:, : x[:, prefix + 1 :: 4].shape[1]]
        return x

    return hook


def assert_same(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(set(GROUPS) - set(REFUSED)))
def test_cost(name: str) -> None:
    """The closed form is what torch counts; without one, the reason says so."""
    with torch.device("meta"):
        model = models.tiny(models.smallest(GROUPS[name]))
        pitome.patch(model, "tome", ratio=0.75)
        if GROUPS[name][0].stem is not None:
            with pytest.raises(UnsupportedModelError, match=r"no closed form of the cost: .* HybridEmbed"):
                pitome.flops(model)
            return
        cost = pitome.flops(model)
    assert cost.macs == cost.macs_closed_form < cost.unmerged_macs


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with torch.device("meta"):
        model = models.tiny(models.smallest(GROUPS[name]))
    refuses(model, rf"found \S*\.{REFUSED[name]} ")


@pytest.mark.parametrize("name", OTHERS)
def test_refused_as_a_whole(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    refuses(model, rf"looked for timm VisionTransformer; found \S*\.{OTHERS[name]}$")


def refuses(model: Any, says: str) -> None:
    with pytest.raises(UnsupportedModelError, match=says) as caught:
        pitome.patch(model, "tome", r=1)
    assert "\n" not in str(caught.value)
    assert pitome.patched(model) is None


@on_this_timm
def test_every_name_stands_on_the_page() -> None:
    text = (DOCS / "models.md").read_text()
    missing = [r.name for r in RECIPES if f"`{r.name}`" not in text]
    assert not missing
