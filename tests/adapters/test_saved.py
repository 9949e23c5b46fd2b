"""A patch saved beside weights and made again; the handle is not the model, and both say what is merged."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import pitome
from pitome.adapters.saved import FILE, PatchArguments
from pitome.errors import UsageError
from tests.adapters.tiny import images, vit

ARGUMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a ratio": ("tome", {"ratio": 0.7}),
    "ratios": ("pitome", {"ratio": [0.9, 0.8, 1.0, 0.7]}),
    "numbers": ("tome", {"r": [3, 2, 1, 0]}),
    "falling numbers": ("tofu", {"r": 3, "inflection": -0.5}),
    "layers by name": ("tome", {"r": 3, "layers": "last2"}),
    "layers by index": ("tome", {"r": 3, "layers": (0, 2)}),
    "a share of FLOPs": ("pitome", {"flops": 0.7, "input_size": (12, 20)}),
    "options": ("pitome", {"ratio": 0.7, "margin": 0.8, "prop_attn": False}),
    "a family": ("pitome_repo", {"ratio": 0.7, "family": "mae"}),
    "a schedule": ("tome", {"schedule": [15, 12, 11, 9]}),
    "a schedule of two parts": ("diffrate", {"schedule": "counts.yaml"}),
    "a file of a method that only merges": ("tome", {"schedule": "counts.yaml"}),
    "a file by its older name": ("diffrate", {"schedule_file": "counts.yaml"}),
    "a schedule of its own": ("diffrate", {"prune_kept": [14, 12, 11, 9], "merge_kept": [13, 12, 10, 8]}),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_a_saved_patch_is_made_again(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "counts.yaml").write_text("prune_kept: [14, 12, 11, 9]\nmerge_kept: [13, 12, 10, 8]\n")
    method, given = ARGUMENTS[case]
    model, other = vit(), vit()
    handle = pitome.patch(model, method, **given)
    (tmp_path / "counts.yaml").unlink()  # on another machine there is no such file
    again = pitome.load(other, handle.save(tmp_path / "folder").parent)
    with torch.no_grad():
        assert torch.equal(model(images(model)), other(images(model)))
    assert again.tokens == handle.tokens and again.tokens[-1] < again.tokens[0]
    assert (again.options, again.layers, again.family) == (handle.options, handle.layers, handle.family)


def test_a_published_schedule_is_saved_by_its_name() -> None:
    handle = pitome.patch(vit((14, 14), depth=12), "diffrate", schedule="published/deit_s@2.9")
    assert handle.arguments.plain() == {"method": "diffrate", "schedule": "published/deit_s@2.9"}
    assert "<diffrate, schedule published/deit_s@2.9, in all" in repr(handle)


def test_every_argument_of_patch_is_saved() -> None:
    arguments = set(inspect.signature(pitome.patch).parameters) - {"model", "trace"}  # one records, for tests
    assert {field.name for field in dataclasses.fields(PatchArguments)} == arguments


def bert() -> BertForSequenceClassification:
    config = BertConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, vocab_size=50
    )
    torch.manual_seed(0)
    return BertForSequenceClassification(config).eval()


def test_a_transformers_model_says_how_it_was_patched(tmp_path: Path) -> None:
    model, tokens = bert(), torch.arange(24).reshape(2, 12)
    handle = pitome.patch(model, "tome", ratio=0.7)
    with torch.no_grad():
        merged = model(tokens).logits
    model.save_pretrained(tmp_path)
    loaded = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert not torch.equal(loaded(tokens).logits, merged)  # nothing is patched unasked
        pitome.load(loaded)
        assert torch.equal(loaded(tokens).logits, merged)
    handle.remove()
    model.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="does not say how it was patched"):
        pitome.load(BertForSequenceClassification.from_pretrained(tmp_path))


BAD = {
    "no file": (None, r"no pitome\.json in .*; patched\.save\(FOLDER\) writes it"),
    "no mapping": ([1], "holds no mapping"),
    "no method": ({"ratio": 0.9}, "method"),
    "a wrong key": ({"method": "tome", "ration": 0.9}, "ration"),
    "a wrong type": ({"method": "tome", "ratio": "much"}, "ratio"),
    "an unknown method": ({"method": "tomme", "ratio": 0.9}, "tome"),
    "an unknown option": ({"method": "tome", "ratio": 0.9, "options": {"x": 1}}, "x"),
    "no amount": ({"method": "tome"}, "exactly one of ratio, r, flops"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_loaded_is_one_line(case: str, tmp_path: Path) -> None:
    content, message = BAD[case]
    if content is not None:
        (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(UsageError, match=message) as caught:
        pitome.load(vit(), tmp_path)
    assert "\n" not in str(caught.value)


def test_options_that_json_cannot_hold_are_one_line(tmp_path: Path) -> None:
    handle = pitome.patch(vit(), "tome", ratio=0.9)
    object.__setattr__(handle.arguments, "options", {"x": object()})
    with pytest.raises(UsageError, match="cannot be written as JSON"):
        handle.save(tmp_path)


def test_the_handle_is_not_the_model() -> None:
    """`model = pitome.patch(model, ...)` is a natural mistake."""
    model = vit()
    handle = pitome.patch(model, "tome", ratio=0.9)
    with pytest.raises(UsageError, match="changes the model in place"):
        handle(images(model))
    for name in ("eval", "to", "parameters", "state_dict", "forward"):
        with pytest.raises(AttributeError, match="changes the model in place"):
            getattr(handle, name)
    with pytest.raises(AttributeError, match="no attribute 'token'"):
        handle.token  # noqa: B018


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ratio": 0.7}, "ratio 0.7,"),
        ({"r": 3, "inflection": 0.5}, "r 3, inflection 0.5,"),
        ({"r": [1] * 4}, "r by layer,"),
    ],
)
def test_handle_and_model_say_what_is_merged(given: dict[str, Any], words: str) -> None:
    model, plain = vit(), repr(vit())
    handle = pitome.patch(model, "tome", **given)
    assert f"<tome, {words} in all layers" in repr(handle) and "left" not in repr(handle)
    with torch.no_grad():
        model(images(model))
    assert f"; 16 tokens, {handle.tokens[-1]} left>" in repr(handle) and f"merging: {handle!r}" in repr(model)
    copy = pickle.loads(pickle.dumps(model))
    assert "merging: <tome" in repr(copy)
    handle.remove()
    assert repr(model) == plain
