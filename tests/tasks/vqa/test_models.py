"""LLaVA models: prompts, placeholders, positions, answers, folders with weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import pitome
from pitome.errors import CheckpointError, UsageError
from pitome.sources.weights_folder import find_model
from pitome.tasks.vqa import llava as module
from pitome.tasks.vqa.llava import Llava, check_rows
from pitome.tasks.vqa.models import build_llava, build_model, fit_state
from pitome.tasks.vqa.tokenizers import byte_tokenizer, word_tokenizer
from tests.configs import model_of
from tests.tasks.vqa.tiny_llava import images, llava, settings

IMAGES = images(3)
QUESTIONS = ["is there a blue shape?", "what is the shape?", "what color is the triangle in the image?"]


def ask(model: Llava, questions: list[str], shown: list[tuple[int, ...]], **options: Any) -> list[str]:
    prompts = [model.prompt(question) for question in questions]
    return [answer.text for answer in model.generate(prompts, IMAGES, shown, max_new_tokens=5, **options)]


def test_a_list_of_words() -> None:
    tokenizer = word_tokenizer(["user", ":", "is", "it", "?"])
    ids = tokenizer("USER: <image> is it red?")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<s>", "user", ":", "<image>", "is", "it", "<unk>", "?"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "user : is it ?"


def test_bytes() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer("Ä <image>\nb")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[4] == "<image>" and len(ids) == 7
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Ä \nb"


def test_prompt_and_placeholders() -> None:
    model = llava()
    assert model.prompt(" is <image> it? ") == "USER: <image> is   it? ASSISTANT:"
    assert model.encode(model.prompt("")).count(4) == 16
    with pitome.patch(model, "tome", ratio=0.7):
        assert model.encode(model.prompt("")).count(4) == model.image_rows == 9
    with pytest.raises(UsageError, match="holds 1 times <image> for 2 images"):
        model.encode(model.prompt(""), images=2)
    assert model.unknown(["is it a <image> dog?", "a cat"]) == ["cat", "dog?", "it"]


def test_keep_all_is_stock_generation() -> None:
    model = llava()
    ids = torch.tensor([model.encode(model.prompt(QUESTIONS[0]))])
    stock = model.model.generate(
        input_ids=ids, pixel_values=IMAGES[:1], max_new_tokens=5, do_sample=False, pad_token_id=0
    )
    expected = model.tokenizer.decode(stock[0, ids.shape[1] :], skip_special_tokens=True)
    assert ask(model, QUESTIONS[:1], [(0,)]) == [expected]
    with pitome.patch(model, "pitome", ratio=1.0):
        assert ask(model, QUESTIONS[:1], [(0,)]) == [expected]
        logits = model(input_ids=ids, mm_encoder_outputs=module.ready(model.features(IMAGES[:1]))).logits
    assert torch.equal(logits, model(input_ids=ids, pixel_values=IMAGES[:1]).logits)


def test_a_batch_answers_as_its_prompts_alone() -> None:
    model = llava()
    with pitome.patch(model, "pitome", ratio=0.8):
        whole = ask(model, QUESTIONS, [(0,), (1,), (0,)])
        alone = [
            ask(model, [question], [(image,)])[0]
            for question, image in zip(QUESTIONS, (0, 1, 0), strict=True)
        ]
    assert whole == alone and len(set(whole)) > 1


def test_several_images_in_one_prompt() -> None:
    model = llava()
    prompt = "USER: <image> <image> what is the shape? ASSISTANT:"
    said = [
        model.generate([prompt, model.prompt("a")], IMAGES, [pair, (2,)], max_new_tokens=5)[0].text
        for pair in ((0, 1), (1, 0))
    ]
    assert said[0] != said[1]
    features = model.features(IMAGES)
    ids = torch.tensor([model.encode(prompt, images=2)])
    out = model.model.generate(
        input_ids=ids,
        mm_encoder_outputs=module.ready([features[0], features[1]]),
        max_new_tokens=5,
        do_sample=False,
        pad_token_id=0,
    )
    assert said[0] == model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("keep", [False, True])
def test_without_ready_features_answers_are_the_same(keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llava()
    with pitome.patch(model, "pitome", ratio=0.8, trace=True):
        new = ask(model, QUESTIONS, [(0,), (1,), (0,)], keep_positions=keep)
        monkeypatch.setattr(module, "takes_features", lambda model: False)
        assert ask(model, QUESTIONS, [(0,), (1,), (0,)], keep_positions=keep) == new


def test_kept_positions_are_of_the_first_patch_and_leave_the_text_where_it_was() -> None:
    model = llava()
    ids = [model.encode(model.prompt(QUESTIONS[0])), model.encode(model.prompt(QUESTIONS[1]))]
    with pitome.patch(model, "tome", ratio=0.8, trace=True) as handle:
        model.features(IMAGES[:2])
        places = model._places(2)
        short = [model.encode(model.prompt(question)) for question in QUESTIONS[:2]]
        positions = model._positions(short, list(places))
        membership = handle.state.last.membership[2]
        assert membership is not None
    for row, own, full, merged in zip(positions, places, ids, membership, strict=True):
        assert row[:3] == [0, 1, 2] and row[3 : 3 + len(own)] == (3 + own).tolist()
        assert row[3 + len(own) :] == list(range(19, len(full)))
        firsts = [int(group[1:].nonzero()[0]) for group in merged[1:]]
        assert own.tolist() == firsts and len(set(firsts)) == len(firsts)


def test_keeping_positions_without_merging_is_stock_and_else_is_not() -> None:
    model = llava()
    plain = ask(model, QUESTIONS, [(0,), (1,), (2,)])
    assert ask(model, QUESTIONS, [(0,), (1,), (2,)], keep_positions=True) == plain
    with pitome.patch(model, "tome", ratio=0.6, trace=True):
        renumbered, kept = (
            ask(model, QUESTIONS, [(0,), (1,), (2,)], keep_positions=keep) for keep in (False, True)
        )
    assert renumbered != kept
    with pitome.patch(model, "tome", ratio=0.6), pytest.raises(UsageError, match="trace=True"):
        ask(model, QUESTIONS[:1], [(0,)], keep_positions=True)


def test_prompts_that_do_not_fit() -> None:
    model = llava()
    with pytest.raises(UsageError, match="do not fit the context of 128 tokens"):
        ask(model, ["shape " * 120], [(0,)])
    with pytest.raises(UsageError, match="passes on 9 tokens where the schedule says 16"):
        check_rows(16, [torch.zeros(16, 2), torch.zeros(9, 2)])


def test_coarse_weights_fit_finer_patches() -> None:
    fine, coarse = llava(), build_model(model_of(settings()), patch_size=8)
    state = fit_state(coarse.state_dict(), fine)
    fine.load_state_dict(state)
    assert state["model.model.vision_tower.embeddings.position_embedding.weight"].shape == (17, 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = llava()
    model.model.save_pretrained(tmp_path / "own")
    model.tokenizer.save_pretrained(tmp_path / "own")
    return tmp_path / "own"


@pytest.mark.parametrize("device_map", [None, "auto"])
def test_a_folder_with_transformers_files(folder: Path, device_map: str | None) -> None:
    built = build_llava(model_of(settings()), str(folder), device_map=device_map, dtype=torch.bfloat16)
    assert built.sha256 is not None and built.weights.name == "own"
    assert {p.dtype for p in built.model.parameters()} == {torch.bfloat16}
    expected = llava().to(torch.bfloat16).features(IMAGES.bfloat16())
    assert torch.equal(
        build_llava(model_of(settings()), str(folder)).model.bfloat16().features(IMAGES)[0], expected[0]
    )


def test_a_folder_with_torchs_files(folder: Path) -> None:
    """As models were published before safetensors: pytorch_model.bin, or several such files."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"neither .safetensors files nor pytorch_model\*\.bin"):
        build_llava(model_of(settings()), str(folder))
    names = sorted(state)
    parts = {f"pytorch_model-0000{n + 1}-of-00002.bin": names[n::2] for n in range(2)}
    for file, own in parts.items():
        torch.save({name: state[name] for name in own}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, own in parts.items() for name in own}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    built = build_llava(model_of(settings()), str(folder))
    assert built.sha256 is not None
    assert torch.equal(built.model.features(IMAGES)[0], llava().features(IMAGES)[0])
    torch.save({"state_dict": Path}, folder / next(iter(parts)))
    with pytest.raises(CheckpointError, match="cannot be loaded") as caught:
        build_llava(model_of(settings()), str(folder))
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


def test_a_model_spread_over_devices_is_not_moved() -> None:
    own = llava()
    own.model.hf_device_map = {"model": 0, "lm_head": 1}
    spread = Llava(own.model, own.tokenizer, own.template)
    assert spread.to(torch.float64).model.dtype is torch.float32
    assert own.to(torch.float64).model.dtype is torch.float64


def test_folders_that_do_not_fit(folder: Path) -> None:
    other = settings(vision_feature_layer=-1)
    with pytest.raises(CheckpointError, match="has vision_feature_layer=-1 and own -2"):
        build_llava(model_of(other), str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "idefics2"}))
    with pytest.raises(CheckpointError, match=r"of the kind idefics2.* model\.arch=llava: its tower"):
        find_model("llava_7b", "shipped", str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"no config\.json that can be read"):
        find_model("llava_7b", "shipped", str(folder))


def test_too_small_a_vocabulary_and_another_architecture() -> None:
    small = settings()
    small["args"]["text_config"]["vocab_size"] = 30
    with pytest.raises(UsageError, match="vocab_size=30 is too small for its words; give 36"):
        build_llava(model_of(small), "random")
    with pytest.raises(UsageError, match=r"arch=qwen2_vl cannot be built: its tower joins"):
        build_llava(model_of(settings() | {"arch": "qwen2_vl"}), "random")
    with pytest.raises(UsageError, match="device_map=auto is for"):
        build_llava(model_of(settings()), "random", device_map="auto")
