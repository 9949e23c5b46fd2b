"""Groups of patches as the layers made them, and the energies they were ranked by."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import pitome
from pitome.errors import UnsupportedModelError
from pitome.report.pictures.groups import DROPPED, follow
from tests.adapters.tiny import vit
from tests.adapters.tiny_clip import clip
from tests.adapters.tiny_text import bert

GRID = (4, 4)
METHODS = ("pitome", "pitome_repo", "tome", "tofu", "diffrate", "random", "stride")


def images(model, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 1, *model.patch_embed.img_size, generator=generator)


@pytest.mark.parametrize("method", METHODS)
def test_groups_say_the_same_as_the_sources_of_the_patch(method: str) -> None:
    model = vit(GRID)
    torch.manual_seed(0)
    followed = follow(model, images(model), method, {"ratio": 0.7})
    assert pitome.patched(model) is None
    torch.manual_seed(0)
    with torch.no_grad(), pitome.patch(model, method, ratio=0.7, trace=True) as patched:
        logits = model(images(model))
    assert [step.tokens for step in followed.steps] == patched.tokens
    assert np.allclose(followed.probabilities, logits.softmax(-1), atol=1e-6)
    groups = followed.steps[-1].groups.reshape(2, -1)
    for image in range(2):
        for patch in range(16):
            rows = patched.sources[image, :, patch + 1].nonzero().flatten().tolist()
            assert groups[image, patch] == (rows[0] if rows else DROPPED)
    held = patched.sources.sum(dim=2)
    for image in range(2):
        expected = [int(held[image, row]) if row >= 0 else 0 for row in groups[image]]
        assert followed.steps[-1].size[image].flatten().tolist() == expected


def test_the_first_step_is_every_patch_on_its_own() -> None:
    model = vit(GRID)
    first = follow(model, images(model), "tome", {"r": 3}).steps[0]
    assert (first.groups.reshape(2, -1) == np.arange(1, 17)).all() and (first.size == 1).all()


def test_groups_only_grow() -> None:
    model = vit(GRID)
    steps = follow(model, images(model), "tome", {"r": 3}).steps
    for before, after in itertools.pairwise(steps):
        for image in range(2):
            for group in np.unique(before.groups[image]):
                assert len(np.unique(after.groups[image][before.groups[image] == group])) == 1


def test_registers_are_no_patches() -> None:
    model = vit(GRID, reg_tokens=3)
    steps = follow(model, images(model), "tome", {"r": 2}).steps
    assert steps[0].tokens == 20 and steps[0].groups.min() == 4


def test_dropped_patches_belong_to_nothing() -> None:
    model = vit(GRID)
    dropped = follow(model, images(model), "tofu", {"r": 2}).steps[2]  # the first half drops
    assert (dropped.groups == DROPPED).sum(axis=(1, 2)).tolist() == [4, 4]
    assert (dropped.size[dropped.groups == DROPPED] == 0).all()


@pytest.mark.parametrize("options", [{}, {"energy": "elu", "margin": 0.5}, {"energy": "gaussian"}])
def test_the_energies_are_those_the_method_ranked_by(options: dict[str, object]) -> None:
    """Only the 2k tokens of highest energy take part: whatever merges has more than what is left out."""
    model, remove = vit(GRID), 3
    steps = follow(model, images(model), "pitome", {"r": remove}, options).steps
    assert steps[0].energy is None
    for before, step in itertools.pairwise(steps):
        assert step.energy is not None
        for image in range(2):
            entered, energy = before.groups[image], step.energy[image]
            first = [np.argwhere(entered == group)[0] for group in np.unique(entered)]
            scores = sorted((float(energy[tuple(place)]) for place in first), reverse=True)
            grew = step.size[image] > before.size[image]
            assert energy[grew].min() >= scores[2 * remove - 1]
            assert len({*entered[grew].tolist()}) <= 2 * remove
            # one energy for each token
            for group in np.unique(entered):
                assert len(np.unique(energy[entered == group])) == 1


def test_other_methods_and_layers_that_do_not_merge_rank_nothing() -> None:
    model = vit(GRID)
    assert not follow(model, images(model), "tome", {"r": 3}).ranks
    steps = follow(model, images(model), "pitome", {"r": 3, "layers": [1]}).steps
    assert [step.energy is not None for step in steps] == [False, False, True, False, False]


def test_a_text_is_a_grid_of_one_row() -> None:
    model = bert()
    ids = torch.arange(1, 13)[None]
    followed = follow(model, ids, "tome", {"r": 2}, {})
    steps = followed.steps
    assert [step.groups.shape for step in steps] == [(1, 1, 12)] * len(steps)
    assert (steps[0].groups[0, 0] == np.arange(12)).all()
    with torch.no_grad(), pitome.patch(model, "tome", r=2, trace=True) as patched:
        logits = model(ids).logits
    assert [step.tokens for step in steps] == patched.tokens
    assert (steps[-1].groups[0, 0] == patched.sources[0].argmax(0).numpy()).all()
    assert np.allclose(followed.probabilities, logits.softmax(-1), atol=1e-6)


def test_the_part_that_reads_images_is_run_alone() -> None:
    model = clip(image_size=[12, 12])
    seen = []

    def tower(given: torch.Tensor) -> torch.Tensor:
        seen.append(given)
        return model.encode_image(given)

    followed = follow(model, torch.randn(2, 3, *model.visual.image_size), "tome", {"r": 1}, run=tower)
    assert len(seen) == 1 and followed.probabilities is None
    assert followed.steps[-1].tokens < followed.steps[0].tokens


def test_a_backbone_has_no_predictions() -> None:
    model = vit(GRID, num_classes=0)
    assert follow(model, images(model), "tome", {"r": 3}).probabilities is None


def test_patches_that_are_no_square_are_refused() -> None:
    model = vit((3, 5))
    with pytest.raises(UnsupportedModelError, match="not a square grid"):
        follow(model, images(model), "tome", {"r": 3})
    assert pitome.patched(model) is None
