"""`schedule=`: tokens left by every layer, for any method; what DiffRate's authors published."""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import pitome
from pitome.errors import UsageError
from pitome.merge.costs import authors_macs, closed_form
from pitome.sources.schedule_file import find_schedule, published_names
from tests.adapters.tiny import images, patch, vit

# Depth, patches in a row, and the model of timm that has the width.
MODELS = {
    "deit_t": (12, 14, "deit_tiny_patch16_224"),
    "deit_s": (12, 14, "deit_small_patch16_224"),
    "deit_b": (12, 14, "deit_base_patch16_224"),
    "mae_b": (12, 14, "vit_base_patch16_224"),
    "mae_l": (24, 14, "vit_large_patch16_224"),
    "mae_h": (32, 16, "vit_huge_patch14_224"),
}
# GFLOPs that DiffRate's README prints for five of them (multiply-accumulates, as its code counts).
PRINTED = {
    "published/deit_s@2.9": 2.905,
    "published/deit_b@11.5": 11.517,
    "published/mae_b@11.5": 11.517,
    "published/mae_l@42.3": 42.290,
    "published/mae_h@103.4": 103.337,
}


def model_of(name: str) -> str:
    return name.removeprefix("published/").partition("@")[0]


@functools.cache
def tiny(depth: int, side: int) -> Any:
    return vit(grid=(side, side), depth=depth, dim=8)


@pytest.mark.parametrize("name", published_names())
def test_every_published_schedule_runs(name: str) -> None:
    depth, side, _ = MODELS[model_of(name)]
    model = tiny(depth, side)
    with pitome.patch(model, "diffrate", schedule=name) as handle, torch.no_grad():
        assert model(images(model, batch=1)).isfinite().all()
        assert handle.tokens == [side * side + 1, *find_schedule(name).kept]
        assert handle.options.prune_kept == list(find_schedule(name).prune_kept or ())


@pytest.mark.parametrize("name", published_names())
def test_their_flops(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(MODELS[model_of(name)][2])
    family = "mae" if name.startswith("published/mae") else "deit"
    with pitome.patch(model, "diffrate", schedule=name, family=family) as handle:
        architecture = handle.architecture()
        form = closed_form(architecture, handle.schedule, handle.method, handle.options)
    gmacs = authors_macs(architecture, form.tokens, "diffrate") / 1e9
    # ViT-H is 0.0012 below the printed number.
    assert gmacs == pytest.approx(PRINTED.get(name, gmacs), abs=0.0015 if "mae_h" in name else 0.0005)
    # Every schedule is named after its GFLOPs, most of them rounded.
    assert gmacs == pytest.approx(float(name.partition("@")[2]), rel=0.013, abs=0.06)


def test_one_name_for_every_method(tmp_path: Path) -> None:
    kept, x = [14, 11, 9, 8], images(vit())
    path = tmp_path / "kept.json"
    path.write_text(json.dumps(kept))
    for method in pitome.methods():
        if method == "none":
            continue
        for schedule in (kept, str(path)):
            model = vit()
            handle = patch(model, method, schedule=schedule)
            with torch.no_grad():
                model(x)
            assert handle.tokens == [16, *kept]


def test_diffrate_takes_a_schedule_for_its_lists(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lists = {"prune_kept": [15, 12, 10, 8], "merge_kept": [14, 11, 9, 8]}
    path, outputs, x = tmp_path / "rates.json", [], images(vit())
    path.write_text(json.dumps(lists))
    for given in (lists, {"schedule": str(path)}, {"schedule_file": str(path)}):
        model = vit()
        with caplog.at_level(logging.WARNING):
            handle = pitome.patch(model, "diffrate", **given)
        with torch.no_grad():
            outputs.append(model(x))
        assert (handle.options.prune_kept, handle.options.merge_kept) == (
            lists["prune_kept"],
            lists["merge_kept"],
        )
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])
    assert [record.message for record in caplog.records] == [
        "merge.options.schedule_file is schedule now; the old name is gone in the next version"
    ]


@pytest.mark.parametrize(
    ("method", "how", "says"),
    [
        ("tome", {"schedule": [14, 11, 9]}, "3 entries, the model has 4 layers"),
        ("tome", {"schedule": [14, 15, 9, 8]}, "keeps 15 tokens in layer 1 after 14"),
        ("tome", {"schedule": [8, 8, 8, 8]}, "removes 8 of 16 tokens in layer 0; merge=tome can remove 7"),
        ("diffrate", {"schedule": [8, 8, 0, 0]}, "whole numbers above 0"),
        ("evit", {"schedule": [1, 1, 1, 1], "protected": 2}, "can remove 14"),
        ("tome", {"schedule": [50, 40, 30, 20]}, "another model's: it keeps 50 tokens in layer 0, which 16"),
        ("diffrate", {"schedule": "published/deit_s@2.9"}, "12 entries, the model has 4 layers"),
        ("diffrate", {"merge_kept": [50, 40, 30, 20]}, "another model's"),
        ("diffrate", {"merge_kept": [9, 10, 5, 5]}, "keeps 10 tokens in layer 1 after 9"),
        ("diffrate", {"schedule": [9, 8, 5, 5], "merge_kept": [9, 8, 5, 5]}, "not both"),
        ("tome", {"schedule": [9, 8, 5, 5], "r": 3}, "exclude each other"),
        ("tome", {"schedule": [9, 8, 5, 5], "layers": "first2"}, "names every layer"),
        ("tome", {"schedule": "published/deit_s"}, "available: published/deit_s@2.3"),
    ],
)
def test_what_does_not_fit_is_one_line(method: str, how: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        pitome.patch(vit(), method, **how)
    assert "\n" not in str(error.value)


def test_another_models_tokens() -> None:
    with pytest.raises(UsageError, match="it begins with 197 tokens, this model with 16"):
        pitome.patch(vit(depth=12), "diffrate", schedule="published/deit_s@2.9")


def test_a_method_that_merges_in_pairs_cannot_follow_every_schedule() -> None:
    """DeiT-S at 2.9 ends with 3 of 56 tokens: DiffRate drops the rest, ToMe needs partners."""
    with pytest.raises(UsageError, match="removes 53 of 56 tokens in layer 11; merge=tome can remove 27"):
        pitome.patch(tiny(12, 14), "tome", schedule="published/deit_s@2.9")
