"""task=retrieval with a matching head: both Rsums in the record, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pitome.records.schema import Record
from pitome.tasks.retrieval import blip
from tests.tasks.text.tiny_text import tokenizer

TINY = (
    "task=retrieval",
    "model=blip_base",
    "model.preprocess.size=56",
    "model.preprocess.channels=3",
    *(
        f"model.args.vision_config.{key}"
        for key in ("hidden_size=16", "intermediate_size=32", "image_size=56")
    ),
    *(f"model.args.vision_config.{key}" for key in ("num_hidden_layers=2", "num_attention_heads=2")),
    *(f"model.args.text_config.{key}" for key in ("hidden_size=16", "intermediate_size=32", "vocab_size=64")),
    *(f"model.args.text_config.{key}" for key in ("num_hidden_layers=1", "num_attention_heads=2")),
    "model.args.text_config.encoder_hidden_size=16",
    "weights=random",
    "limit=10",
)
Run = Callable[..., int]


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(blip, "fetch_minilm", lambda: Path("words"))
    monkeypatch.setattr(blip, "load_tokenizer", lambda folder: tokenizer())


def test_both_rsums_and_the_length_of_the_list(run: Run, records: Callable[[], dict[str, Record]]) -> None:
    assert run("merge=tome", "ratio=0.8", "task.rerank=5", "measure=none", small=TINY) == 0
    record = records()["tome 0.8"]
    names = {f"{way}{k}" for way in ("rt", "ri") for k in (1, 5, 10)} | {"rsum"}
    assert names | {f"reranked_{name}" for name in names} | {"mean_recall"} == set(record.metrics)
    assert record.identity["settings"] == {"rerank": 5}
    assert record.tokens == [10.0, 9.0, 8.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trainer=scenes",), "BLIP is trained with its own patches"),
        (("trainer=coco_blip", "devices=2"), "BLIP is trained on one device"),
        (("trainer=coco_blip", "model=blip2"), "model=blip2 is tested as published"),
    ],
    ids=["patches", "devices", "blip2"],
)
def test_what_is_not_trained(
    run: Run, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    small = ("task=retrieval", "model=blip_base", "weights=random")
    assert run("mode=train", "merge=none", *words, small=small) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("value", [-1, 1.5, "many"])
def test_a_list_that_is_no_number_of_candidates(
    run: Run, capsys: pytest.CaptureFixture[str], value: object
) -> None:
    assert run(f"task.rerank={value}", small=TINY) == 2
    assert f"task.rerank={value}" in capsys.readouterr().err


def test_a_list_for_a_task_that_has_none(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("task.rerank=5") == 2
    assert "task.rerank=5 is for task=retrieval, not for" in capsys.readouterr().err
