"""Qwen2.5-VL from the command line to the record, small and with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2VLImageProcessor

import pitome
from pitome.config import load_model
from pitome.measure.flops import count_flops
from pitome.records.store import Store
from pitome.tasks.vqa.costs import Encoder, answering_as_run
from pitome.tasks.vqa.models import build_model
from pitome.tasks.vqa.qwen import QwenVl, patches
from pitome.tasks.vqa.timing import Answers
from tests.configs import model_of
from tests.tasks.vqa.test_costs import ROPE
from tests.tasks.vqa.test_vqa import TEXTS, folder

__all__ = ["folder"]
Run = Callable[..., int]
VISION = {
    "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4,
    "window_size": 16, "fullatt_block_indexes": [1], "out_hidden_size": 32,
}  # fmt: skip
TEXT = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
ROPE_WORDS = "model.args.text_config.rope_parameters.mrope_section=[1,1,2]"
WORDS = (
    "task=vqa", "model=qwen2_5_vl_7b", "model.preprocess.size=32", "weights=random", "source=local",
    ROPE_WORDS,
    *(f"model.args.vision_config.{key}={value}".replace(" ", "") for key, value in VISION.items()),
    *(f"model.args.text_config.{key}={value}" for key, value in TEXT.items()),
)  # fmt: skip


def qwen(seed: int = 0) -> QwenVl:
    """With weights so uneven that what is removed changes answers; 16 tokens of an image."""
    file = vars(load_model("qwen2_5_vl_7b")) | {
        "preprocess": {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    parts = {"vision_config": VISION, "text_config": TEXT | {"rope_parameters": rope}}
    file["args"] = {**file["args"], **{k: {**file["args"][k], **own} for k, own in parts.items()}}
    torch.manual_seed(seed)
    model = build_model(model_of(file)).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.3)
    assert isinstance(model, QwenVl)
    return model


def pictures(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def answers(model: QwenVl) -> list[str]:
    prompts = [model.prompt(text) for text in TEXTS]
    return [a.text for a in model.generate(prompts, pictures(), [(0,), (1,), (0,)], max_new_tokens=4)]


def test_patches_are_those_of_the_processor() -> None:
    image = torch.rand(3, 56, 84)
    processor = Qwen2VLImageProcessor(
        do_resize=False, do_rescale=False, do_normalize=False, do_convert_rgb=False, patch_size=7
    )
    made = processor(images=[image.numpy()], return_tensors="pt", input_data_format="channels_first")
    assert torch.equal(patches(image[None], 7, 2, 2)[0], made["pixel_values"])


def test_from_the_prompt_to_the_metric(run: Run, folder: Path, tmp_path: Path) -> None:
    place = (f"data.root={folder}", "batch_size=10", "limit=12", "logger=none")
    words = ("-m", "merge=none,divprune,fastv,random", "keep=0.5")
    assert run(*place, *words, small=WORDS) == 0
    found = {record.method.name: record for record in Store(tmp_path / "results" / "runs").all()}
    assert len(found) == 4 and all(record.done for record in found.values())
    for name, record in found.items():
        cost = record.cost
        assert cost is not None and cost.answering is not None and cost.question_share is not None
        parts = cost.answering
        assert (
            record.model.family == "qwen2_5_vl"
            and record.score is None
            and record.metrics == {"accuracy": None}
        )
        assert parts.unmerged_image_tokens == 16 and (cost.question_share < 1) is (name != "none")
        assert parts.prefill_macs == parts.prefill_macs_closed_form + ROPE * parts.prompt_tokens
        assert parts.method_macs == parts.method_macs_closed_form
    assert found["divprune"].tokens == [16, 8] and found["none"].tokens == [16, 16]


@pytest.mark.parametrize(("name", "options"), [("divprune", {}), ("pool", {}), ("fastv", {"layer": 1})])
def test_all_tokens_kept_are_the_stock_answers_and_batches_are_single_runs(
    name: str, options: dict[str, Any]
) -> None:
    model = qwen()
    plain = answers(model)
    with pitome.patch(model, name, keep=16, **options):
        assert answers(model) == plain
    with pitome.patch(model, name, keep=4, **options):
        together = answers(model)
        for at, image in enumerate((0, 1, 0)):
            (alone,) = model.generate(
                [model.prompt(TEXTS[at])], pictures()[image : image + 1], [(0,)], max_new_tokens=4
            )
            assert alone.text == together[at]
    assert together != plain and answers(model) == plain


def test_one_more_token_is_the_closed_form() -> None:
    model = qwen()
    prompt = model.prompt(TEXTS[0])
    text = len(model.encode(prompt)) - 16

    def run(tokens: int, model: Any = model) -> int:
        return count_flops(Answers(model, [prompt], tokens), pictures(1)).macs

    with pitome.patch(model, "fastv", keep=0.25, layer=1):
        encoder = count_flops(Encoder(model), pictures(1)).macs
        merged, plain = answering_as_run(model, text, encoder, run)
    for cost in (merged, plain):
        assert cost.decode == cost.decode_closed + ROPE
    assert merged.decode < plain.decode and merged.prefill < plain.prefill


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("merge=pitome", "ratio=0.9"), "attends within windows and joins tokens of a grid"),
        (("merge=divprune", "keep=17"), "more than the 16 tokens of an image"),
        (("merge=divprune", "keep=0.5", "model.preprocess.size=36"), "no multiple of 8"),
        (("merge=divprune", "keep=0.5", "model.preprocess.size=4"), "no multiple of 8"),
        (("merge=fastv", "keep=0.5", "merge.options.layer=3"), "layers 0 to 2"),
        (("merge=visionzip", "keep=0.5"), "cannot be read"),
        (("merge=none", "mode=train"), "mode=train is for small models of this project"),
    ],
)
def test_user_errors_are_one_line(
    run: Run, folder: Path, capsys: Any, words: tuple[str, ...], says: str
) -> None:
    assert run(f"data.root={folder}", "limit=3", *words, small=WORDS) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(err) == 1 and says in err[0]
