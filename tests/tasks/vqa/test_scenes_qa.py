"""Questions about scenes of coloured shapes, and a small Qwen3-VL that is trained and asked about them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import resample_patch_embed

import pitome
from pitome.config import DataConfig, load_model
from pitome.errors import DataError, UsageError
from pitome.measure.flops import count_flops
from pitome.records.store import Store
from pitome.tasks.vqa import scenes_qa
from pitome.tasks.vqa.costs import Encoder, answering_as_run
from pitome.tasks.vqa.data import build_vqa
from pitome.tasks.vqa.models import build_model, fit_state
from pitome.tasks.vqa.qwen import QwenVl
from pitome.tasks.vqa.scenes_qa import KINDS, NUMBERS, PLACES, ask, draw, layout, sights
from pitome.tasks.vqa.timing import Answers
from pitome.tasks.vqa.training import packed_logits, seen_loss, turn_of
from pitome.tasks.vqa.training_data import IGNORED, PackedBatches, pack

Run = Callable[..., int]
TEXTS = ("where is the red circle?", "how many crosses are there?", "what is above the blue square?")
CONFIG = DataConfig(name="scenes_qa", task="vqa")
VISION = (
    *("depth=3", "hidden_size=16", "intermediate_size=16", "num_heads=2"),
    *("out_hidden_size=32", "deepstack_visual_indexes=[0,1]"),
)
TEXT = (
    *("hidden_size=32", "intermediate_size=32", "num_hidden_layers=3", "num_attention_heads=2"),
    *("num_key_value_heads=2", "head_dim=16", "rope_parameters.mrope_section=[2,3,3]"),
)
MODEL = ("task=vqa", "model=qwen3_vl_scenes", "data=scenes_qa")
SMALL = (
    *MODEL,
    *(f"model.args.vision_config.{word}" for word in VISION),
    *(f"model.args.text_config.{word}" for word in TEXT),
)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes_qa, "SCENES", {"test": 12, "train": 8, "validation": 6})
    scenes_qa._asked.cache_clear()


def test_scenes_follow_from_split_and_number() -> None:
    """The numbers are those of the scenes that the shipped model was trained and tested on."""
    assert layout("test", 0).tolist() == [19, 3, -1, 13, 14, -1, 4, 20, 2]
    assert int(draw("test", 0).astype(int).sum()) == 1_892_421
    assert [answer for _, answer in ask("test", 0)] == [
        "two",
        "red",
        "cross",
        "lower centre",
        "yellow triangle",
    ]
    assert not np.array_equal(draw("test", 0), draw("validation", 0))
    kinds = {layout(split, number).tobytes() for split in ("test", "validation") for number in range(50)}
    assert len(kinds) == 100


def test_answers_are_right_and_the_items_are_drawn_where_they_are() -> None:
    for number in range(40):
        items = {
            place: item
            for place, item in zip(PLACES, layout("test", number).tolist(), strict=True)
            if item >= 0
        }
        names = {place: " ".join(scenes_qa._name(item)) for place, item in items.items()}
        for kind, (text, answer) in zip(KINDS, ask("test", number), strict=True):
            words = text.removesuffix("?").split()
            if kind == "count":
                wanted = {word.removesuffix("es" if word == "crosses" else "s") for word in words[2:-2]} - {
                    "item"
                }
                assert answer == NUMBERS[sum(wanted <= set(name.split()) for name in names.values())]
            elif kind in ("colour", "shape"):
                assert names[" ".join(words[-2:])].split()[kind == "shape"] == answer
            elif kind == "where":
                assert [place for place, name in names.items() if name == " ".join(words[3:])] == [answer]
            else:
                (place,) = (place for place, name in names.items() if name == " ".join(words[-2:]))
                down, right = scenes_qa._STEPS[" ".join(words[2:-3])]
                row, column = divmod(PLACES.index(place), 3)
                assert 0 <= row + down < 3 and 0 <= column + right < 3
                assert names.get(PLACES[3 * (row + down) + column + right], "nothing") == answer
        image, seen = draw("test", number), sights("test", number)
        assert sorted(" ".join(sight.words) for sight in seen) == sorted(names.values())
        for sight in seen:
            colour = image[int(sight.row * 112), int(sight.column * 112)].astype(int)
            assert abs(colour - scenes_qa.COLOURS[sight.words[0]]).max() <= 20


def test_no_answer_is_guessed_from_the_question_alone() -> None:
    """The most frequent answer to every text, by half of the scenes, on the other half."""
    rows = [(number, kind, *pair) for number in range(3000) for kind, pair in enumerate(ask("test", number))]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for number, _, text, answer in rows:
        counts[text][answer] += number % 2
    right: dict[int, list[bool]] = defaultdict(list)
    for number, kind, text, answer in rows:
        if number % 2 == 0:
            right[kind].append(bool(counts[text]) and counts[text].most_common(1)[0][0] == answer)
    for kind, chance in enumerate((1 / 6, 1 / 6, 1 / 4, 1 / 9, scenes_qa._NOTHING)):
        assert np.mean(right[kind]) < chance + 0.035, KINDS[kind]


def test_the_data_set(few: None) -> None:
    splits = {split: build_vqa(CONFIG, split=split) for split in ("test", "train", "validation")}
    assert {split: len(data.questions) for split, data in splits.items()} == {
        "test": 12 * 5, "train": 8 * 15, "validation": 6 * 5,
    }  # fmt: skip
    assert len({data.info.revision for data in splits.values()}) == 3
    image = splits["test"].image(splits["test"].questions[7])
    assert image is not None and np.array_equal(np.asarray(image), draw("test", 1))
    for words in ({"source": "hub"}, {"root": "/tmp"}):
        with pytest.raises(DataError, match="made on the spot"):
            build_vqa(
                DataConfig(name="scenes_qa", task="vqa", root=words.get("root")),
                source=words.get("source", "auto"),
            )


def qwen(patch_size: int = 8) -> QwenVl:
    torch.manual_seed(0)
    model = build_model(load_model("qwen3_vl_scenes"), patch_size=patch_size)
    assert isinstance(model, QwenVl)
    return model.eval().requires_grad_(False)


def test_packed_questions_are_those_of_the_stock_model() -> None:
    model, pixels = qwen(), torch.randn(1, 3, 112, 112)
    ids = model.encode(model.prompt(""))
    prefix = ids[: ids.index(4) + 49]
    turns = [turn_of(model, model.prompt(text), "red circle") for text in TEXTS]
    batch = pack(pixels, prefix, model.places_of(prefix), [turns], [[(7, IGNORED), (8, 3)]])
    rows, logits, targets = packed_logits(model, batch)
    expected = []
    for question, answer in turns:
        given = torch.tensor([[*prefix, *question, *answer]])
        expected += model.model(input_ids=given, **model._kinds(given), **model._patches(pixels)).logits[
            0, -len(answer) - 1 : -1
        ]
    torch.testing.assert_close(logits, torch.stack(expected), rtol=1e-4, atol=1e-4)
    assert targets.tolist() == 3 * turns[0][1]
    head = [
        model.model.lm_head(model.model.model.language_model.norm(row))
        for row in (rows[0].mean(0), rows[0, 3])
    ]
    losses = [-own.log_softmax(-1)[word] for own, word in zip(head, (7, 8), strict=True)]
    torch.testing.assert_close(seen_loss(model, rows, batch), torch.stack(losses).mean())


def test_hidden_rows_are_as_if_they_were_taken_out() -> None:
    """The stock model without their placeholders, the others at their positions."""
    model, pixels = qwen(), torch.randn(2, 3, 112, 112)
    ids = model.encode(model.prompt(""))
    prefix = ids[: ids.index(4) + 49]
    turn = turn_of(model, model.prompt(TEXTS[0]), "red circle")
    hidden = torch.zeros(2, len(prefix), dtype=torch.bool)
    hidden[1, [ids.index(4) + at for at in (0, 5, 17, 48)]] = True
    places = model.places_of(prefix)
    batch = pack(pixels, prefix, places, [[turn], [turn]], [[], []], hidden)
    _, logits, _ = packed_logits(model, batch)
    encoded, shown = model.encoded(pixels[1:]), ~hidden[1]
    rows = shown[ids.index(4) :]
    encoded.pooler_output = [encoded.pooler_output[0][rows]]
    encoded.deepstack_features = [[layer[0][rows]] for layer in encoded.deepstack_features]
    text = torch.tensor([*turn[0], *turn[1]])
    after = places.max() + 1 + torch.arange(len(text)).expand(3, -1)
    made = model.model(
        input_ids=torch.cat([torch.tensor(prefix)[shown], text])[None],
        position_ids=torch.cat([places[:, shown], after], dim=1)[:, None],
        mm_encoder_outputs={"image": encoded},
    ).logits[0, -len(turn[1]) - 1 : -1]
    torch.testing.assert_close(logits[len(turn[1]) :], made, rtol=1e-4, atol=1e-4)


def test_a_random_part_of_some_images_is_hidden() -> None:
    batches = PackedBatches.__new__(PackedBatches)
    batches.rows, batches.prefix, batches.hidden = 9, list(range(12)), 0.5
    hidden = batches._hidden(2000, np.random.RandomState(0))
    assert not hidden[:, :3].any() and hidden.sum(dim=1).max() == 8
    assert 0.45 < float((hidden.sum(dim=1) > 0).float().mean()) / (8 / 9) < 0.55


def test_weights_of_other_patches() -> None:
    coarse, fine = qwen(14), qwen()
    assert (coarse.image_rows, fine.image_rows) == (16, 49)
    before, key = coarse.state_dict(), "model.model.visual.patch_embed.proj.weight"
    fine.load_state_dict(fit_state(before, fine))
    assert torch.equal(fine.state_dict()[key][:, :, 0], resample_patch_embed(before[key][:, :, 0], [8, 8]))


@pytest.mark.usefixtures("few")
def test_training_and_testing_at_both_places(run: Run, tmp_path: Path) -> None:
    stage = "{epochs: 1, patch_size: 14, batch_size: 4, lr: 1e-3}"
    stages = f"trainer.stages=[{stage},{stage.replace('patch_size: 14, ', '')}]"
    train = ("data.root=null", "mode=train", "merge=none", stages, "trainer.questions=2", "measure=none")
    assert run(*train, small=SMALL) == 0
    (trained,) = (tmp_path / "results" / "train").glob("*/qwen3_vl_scenes.safetensors")
    words = ("data.root=null", "-m", "merge=divprune,fastv", "keep=0.25", f"weights={trained}")
    assert run(*words, small=SMALL) == 0
    records = {record.method.name: record for record in Store(tmp_path / "results" / "runs").all()}
    assert records["none"].mode == "train" and records["divprune"].tokens == [49, 12]
    assert records["fastv"].method.place == "language"
    for record in records.values():
        assert record.data.n_samples == 60 and record.data.revision.startswith("sha256:")


@pytest.mark.parametrize("name", ["visionzip", "random"])
def test_what_a_method_costs_is_the_closed_form(name: str) -> None:
    model, pixels = qwen(), torch.randn(1, 3, 112, 112)
    prompt = model.prompt(TEXTS[0])

    def run(tokens: int, model: Any = model) -> int:
        return count_flops(Answers(model, [prompt], tokens), pixels).macs

    with pitome.patch(model, name, keep=0.25):
        encoder = count_flops(Encoder(model), pixels).macs
        merged, plain = answering_as_run(model, len(model.encode(prompt)) - 49, encoder, run)
    assert merged.method == merged.method_closed and (merged.method > 0) is (name == "visionzip")
    assert merged.rows == 12 and merged.prefill < plain.prefill


def test_fastv_begins_after_the_layers_that_see_the_tower() -> None:
    model = qwen()
    with pytest.raises(UsageError, match="give layer=2 or more"):
        pitome.patch(model, "fastv", keep=0.5, layer=1)
    pitome.patch(model, "fastv", keep=0.5, layer=2).remove()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("merge=pitome", "ratio=0.9"), "joins tokens of neighbouring places on a grid"),
        (("merge=none", "data=easy_vqa", "source=local"), "data.root=FOLDER"),
        (("merge=divprune", "mode=search", "keep=0.5"), "mode=search"),
        (("merge=none", "mode=train", "model=qwen2_5_vl_7b"), "mode=train is for small models"),
        (
            (
                "task=text",
                "model=minilm",
                "data=rotten_tomatoes",
                "mode=train",
                "trainer.stages=[{epochs: 1, batch_size: 2, lr: 1e-3, hidden: 0.5}]",
            ),
            "hidden=0.5 is for task=vqa",
        ),
        (("merge=none", "mode=train", "trainer.flip=true"), "asks what is left and right"),
        (("merge=none", "data.root=/tmp"), "made on the spot"),
        (("merge=none", "source=hub"), "not available from source=hub"),
    ],
)
def test_user_errors_are_one_line(run: Run, capsys: Any, words: tuple[str, ...], says: str) -> None:
    small = ("task=vqa", "model=qwen3_vl_scenes", "data=scenes_qa", "weights=random")
    assert run("data.root=null", *words, "limit=3", small=small) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(err) == 1 and says in err[0]
