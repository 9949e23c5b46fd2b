"""task=vqa from the command line to the record, with a tiny LLaVA and twelve small images."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.tasks.vqa.data import VqaData
from pitome.tasks.vqa.llava import Llava
from pitome.tasks.vqa.log import Answered, SampleLog
from pitome.tasks.vqa.training import VqaTraining, packed_logits, turn_of
from pitome.tasks.vqa.training_data import IGNORED, Packed, pack
from tests.tasks.vqa.tiny_llava import TINY, llava

Run = Callable[..., int]
TEXTS = ("is there a red shape?", "what is the shape?", "is there a circle in the image?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 questions about 12 images for testing, of which one cannot be read; 180 for training."""
    root, random = tmp_path_factory.mktemp("easy"), np.random.default_rng(0)
    for part, count in (("test", 12), ("train", 60)):
        (root / part / "images").mkdir(parents=True)
        rows = [
            [text, answer, image]
            for image in range(count)
            for text, answer in zip(TEXTS, ("yes", "circle", "no"), strict=True)
        ]
        (root / part / "questions.json").write_text(json.dumps(rows))
        for image in range(count):
            pixels = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / part / "images" / f"{image}.png")
    (root / "test" / "images" / "7.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(llava().state_dict(), path)
    return str(path)


@pytest.fixture
def ask(run: Run, folder: Path, weights: str) -> Run:
    """ask(words) -> exit code of run.py on the questions of the folder, ten in a batch."""
    place = ("source=local", f"data.root={folder}", f"weights={weights}", "batch_size=10")

    return lambda *words: run(*place, *words, small=("task=vqa", *TINY))


def outcomes(record: Record, folder: Path) -> dict[str, list[Any]]:
    found = Store(folder).outcomes(record)
    assert found is not None
    return {
        name: [getattr(value, "tolist", lambda v=value: v)() for value in own] for name, own in found.items()
    }


def test_table_log_and_cost(ask: Run, records: Any, tmp_path: Path) -> None:
    assert ask("-m", "merge=none,pitome,pitome_repo", "ratio=0.7") == 0
    found = records()
    assert len(found) == 3
    for record in found.values():
        assert (record.data.n_samples, record.data.n_skipped, record.model.family) == (36, 3, "llava")
        assert record.data.skipped[0].reason.startswith("question 21: ")
        rows = outcomes(record, tmp_path / "results" / "runs")
        assert record.score == pytest.approx(sum(rows["score"]) / 36) and len(rows["id"]) == 36
        assert [rows["prediction"][at] for at in (21, 22, 23)] == ["", "", ""]
        assert rows["tokens"][21] == 0 and rows["tokens"][0] > 0 and rows["answers"][1] == ["circle"]
        cost = record.cost
        assert cost is not None and cost.answering is not None and cost.total_macs is not None
        parts = cost.answering
        assert cost.macs == cost.macs_closed_form
        assert cost.total_macs == cost.macs + parts.projector_macs + parts.prefill_macs
        assert parts.image_tokens == record.tokens[-2] - 1 and parts.unmerged_image_tokens == 16
        assert parts.prompt_tokens - parts.image_tokens == parts.unmerged_prompt_tokens - 16
    merged = found["pitome 0.7"].cost
    assert merged is not None and merged.answering is not None
    assert merged.answering.prefill_macs < merged.answering.unmerged_prefill_macs
    assert not list((tmp_path / "results" / "runs").glob("*.jsonl"))
    assert len({tuple(outcomes(r, tmp_path / "results" / "runs")["prediction"]) for r in found.values()}) > 1


@pytest.mark.parametrize(
    "torn",
    [
        pytest.param(b"", id="whole", marks=pytest.mark.nightly),
        pytest.param(b'{"id": "20", "ques', id="torn"),
    ],
)
def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(
    ask: Run, records: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bytes
) -> None:
    words = ("merge=pitome", "ratio=0.7")
    assert ask(*words, f"results={tmp_path}/other") == 0
    (undisturbed,) = Store(tmp_path / "other").all()
    generate, calls = Llava.generate, itertools.count()

    def killed(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 2:
            raise RuntimeError("power failure")
        return generate(*args, **kwargs)

    monkeypatch.setattr(Llava, "generate", killed)
    assert ask(*words) == 1
    (log,) = (tmp_path / "results" / "runs").glob("*.jsonl")
    assert len(log.read_text().splitlines()) == 20
    log.write_bytes(log.read_bytes() + torn)
    left = itertools.count()
    monkeypatch.setattr(Llava, "generate", lambda *args, **kwargs: (next(left), generate(*args, **kwargs))[1])
    assert ask(*words) == 0
    (again,) = records().values()
    assert next(left) == 2 and not log.exists()
    assert again.metrics == undisturbed.metrics and again.data == undisturbed.data
    assert outcomes(again, tmp_path / "results" / "runs") == outcomes(undisturbed, tmp_path / "other")


def test_ctrl_c_keeps_what_is_finished(
    ask: Run, records: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, calls = Llava.generate, itertools.count()

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return generate(*args, **kwargs)

    monkeypatch.setattr(Llava, "generate", interrupted)
    assert ask("merge=none") == 130
    (log,) = (tmp_path / "results" / "runs").glob("*.jsonl")
    assert len(log.read_text().splitlines()) == 10
    assert [record.status for record in records().values()] == ["interrupted"]


def test_a_split_without_public_answers_gives_a_file_for_its_server(
    ask: Run, records: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VqaData, "scored", False)
    assert ask("merge=none", "limit=12") == 0
    (record,) = records().values()
    assert record.score is None
    found = outcomes(record, tmp_path / "results" / "runs")
    assert found["score"] == [None] * 12 and len(found["prediction"]) == 12
    (file,) = (tmp_path / "results" / "runs").glob("*.submission.json")
    said = json.loads(file.read_text())
    assert [str(one["question_id"]) for one in said] == list(found["id"])


def test_kept_positions_are_another_run(ask: Run, tmp_path: Path) -> None:
    assert ask("-m", "merge=tome", "ratio=0.6", "task.positions=renumber,keep", "limit=12") == 0
    found = Store(tmp_path / "results" / "runs").all()
    assert {record.identity["settings"].get("positions") for record in found} == {None, "keep"}


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("task.positions=first", "task.positions=first is not known"),
        ("task.device_map=auto", "device_map=auto is for testing"),
        ("model.arch=llava_next", "model.arch=llava_next cannot be built; known are llava, "),
        ("model.arch=qwen2_vl", "cannot be built: its tower joins tokens"),
        ("model.args.prompt=USER", "must hold <image> and {question}"),
        ("model.args.words=[user]", "knows a fixed list of words, without"),
        ("model.args.text_config.num_hidden_layers=1", "does not fit this model"),
    ],
)
def test_user_errors_are_one_line(ask: Run, capsys: pytest.CaptureFixture[str], word: str, says: str) -> None:
    assert ask("merge=none", word) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(err) == 1 and says in err[0]


def test_a_prompt_longer_than_the_context_is_counted_and_wrong(ask: Run, records: Any) -> None:
    assert ask("merge=none", "model.args.text_config.max_position_embeddings=31", "limit=12") == 0
    (record,) = records().values()
    reasons = [skipped.reason for skipped in record.data.skipped]
    assert any("prompt of 29 tokens, of which 27 fit the context" in reason for reason in reasons)


def test_training_and_testing(ask: Run, tmp_path: Path) -> None:
    stages = "trainer.stages=[{epochs: 1, patch_size: 8, batch_size: 4, lr: 1e-3}," + (
        "{epochs: 1, batch_size: 4, lr: 1e-3}]"
    )
    assert ask("mode=train", "weights=random", "merge=none", stages) == 0
    (card,) = (tmp_path / "results" / "train").glob("*/llava_easyvqa.md")
    assert "validation accuracy" in card.read_text() and "36 samples" in card.read_text()
    assert card.with_suffix(".safetensors").is_file()


@pytest.mark.parametrize(
    "how", ["ratio=0.7", *(pytest.param(how, marks=pytest.mark.nightly) for how in ("r=2", "flops=0.8"))]
)
def test_training_with_merging_learns(
    ask: Run, records: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The prompts have as many places for an image as the merging tower hands on, in every stage."""
    losses: list[float] = []
    rows: set[int] = set()
    original = VqaTraining.training_step

    def step(self: VqaTraining, batch: Packed, index: int) -> torch.Tensor:
        loss = original(self, batch, index)
        losses.append(float(loss.detach()))
        rows.add(int((batch.ids[0] == self.model.model.config.image_token_id).sum()))
        return loss

    monkeypatch.setattr(VqaTraining, "training_step", step)
    stages = "trainer.stages=[{epochs: 1, patch_size: 8, batch_size: 4, lr: 3e-3}," + (
        "{epochs: 2, batch_size: 4, lr: 3e-3}]"
    )
    assert ask("mode=train", "weights=random", "merge=pitome", how, stages, "measure=none") == 0
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    assert len(rows) == 2 and min(rows) <= 4 and 4 < max(rows) < 16, "patches of 8, then of 4 pixels, merged"
    (record,) = records().values()
    assert record.method.name == "pitome" and record.mode == "train"


def test_packed_questions_are_computed_as_if_alone() -> None:
    model = llava()
    ids = model.encode(model.prompt(""))
    prefix = ids[: ids.index(4) + 16]
    turns = [turn_of(model, model.prompt(text), "red circle") for text in TEXTS]
    pixels = torch.randn(1, 3, 16, 16)
    places, words = model.places_of(prefix), [[(5, IGNORED)]]
    _, whole, targets = packed_logits(model, pack(pixels, prefix, places, [turns], words))
    alone = [packed_logits(model, pack(pixels, prefix, places, [[turn]], words)) for turn in turns]
    assert torch.equal(targets, torch.cat([own for *_, own in alone]))
    torch.testing.assert_close(whole, torch.cat([own for _, own, _ in alone]), rtol=1e-4, atol=1e-4)
    batch = pack(pixels, prefix, places, [turns], words)
    assert int((batch.targets != IGNORED).sum()) == 3 * 3 and batch.words.tolist() == [[5]]


def test_log_reads_whole_batches_of_the_same_questions(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "a" / "log.jsonl")
    rows = [Answered(str(at), "q", ["a"], "p", 0.5, 2, 9) for at in range(5)]
    log.append(rows)
    ids = [row.id for row in rows]
    whole = {0: rows[:2], 1: rows[2:4], 2: rows[4:]}  # the last batch is short
    assert log.read(ids, 2) == whole
    second = tmp_path / "a" / "log.1.jsonl"  # of another rank
    log.path.rename(second)
    log.append(rows[:2])
    assert log.read(ids, 2) == whole and not second.exists()
    assert log.read([*ids, "5"], 2) == {0: rows[:2], 1: rows[2:4]} == log.read([*ids, "5"], 2)
    assert log.read(["6", "7"], 1) == {} == SampleLog(None).read(ids, 1)


def test_speed_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    import pitome
    from pitome.measure.throughput import LEAST_PAIRS
    from pitome.tasks.vqa import timing as vqa_timing

    plain = vqa_timing.throughput

    def slow(model: vqa_timing.Answers, images: torch.Tensor, *, precision: str) -> object:
        """What the real one finds, with times that are known: 0.5 s to the first token, 0.25 s for each
        other one, unmerged twice that."""
        seconds = 0.5 + 0.25 * (model.tokens - 1)
        rates = {"images_per_s": 2 / seconds, "images_per_s_unmerged": 1 / seconds}
        timed = plain(model, images, pairs=LEAST_PAIRS, precision=precision)
        return dataclasses.replace(timed, **rates)

    monkeypatch.setattr(vqa_timing, "throughput", slow)
    model = llava()
    prompts = [model.prompt(text) for text in TEXTS[:2]]
    with pitome.patch(model, "tome", ratio=0.6):
        found = vqa_timing.measure_throughput(model, prompts, torch.randn(1, 3, 16, 16), [0, 0], 3, "32")
    assert found.batch == 2 and found.speedup > 0
    assert (found.first_token_s, found.first_token_s_unmerged) == (0.5, 1.0)
    assert (found.decode_tokens_per_s, found.decode_tokens_per_s_unmerged) == pytest.approx((8.0, 4.0))


def test_a_run_logs_what_merges_in_its_images(ask: Run, drawn: list[bytes | None]) -> None:
    assert ask("merge=pitome", "ratio=0.7", "measure=none", "limit=6", "logger=wandb") == 0
    (picture,) = drawn
    assert picture is not None
    assert Image.open(io.BytesIO(picture)).text["Model"].startswith("llava_easyvqa")
