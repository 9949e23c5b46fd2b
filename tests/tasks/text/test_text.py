"""task=text from the command line to the record, with a tiny BERT and a folder of sentences."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchmetrics.functional.classification import multiclass_f1_score

import pitome
from pitome.cli.main import main
from pitome.measure.flops import count_flops
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.tasks.text import models as text
from pitome.tasks.text.models import from_args
from pitome.tasks.text.module import TextClassification
from pitome.tasks.training import EpochLog
from tests.configs import model_of
from tests.tasks.text.tiny_text import CONFIG, write_folder
from tests.tasks.text.tiny_text import WORDS as VOCABULARY

# The longest text is not a key of the model's file.
SMALL = [
    f"{'+' if key == 'max_position_embeddings' else ''}model.args.{key}={value}"
    for key, value in CONFIG["args"].items()
]
WORDS = ("a", "b", "film", "the", "films", "!", "🙂", "漢")

Run = Callable[..., int]


def sentence(random: Random, positive: bool) -> str:
    """2 to 12 words, of which one tells the label."""
    words = random.choices(WORDS, k=random.randint(1, 11))
    words.insert(random.randint(0, len(words)), "good" if positive else "bad")
    return " ".join(words)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 test and 320 training sentences, and an empty one among the former."""
    random = Random(0)
    path = tmp_path_factory.mktemp("sentences")
    for part, count in (("test", 40), ("train", 320)):
        with (path / f"{part}.csv").open("w", newline="") as file:
            rows = [(sentence(random, i % 2 == 1), i % 2) for i in range(count)]
            csv.writer(file).writerows([("text", "label"), *rows, *([("", 1)] if part == "test" else [])])
    return path


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """run(words) -> exit code of run.py with the tiny model on these sentences."""
    package = write_folder(tmp_path / "package", classifier=False)
    monkeypatch.setattr(text, "fetch_minilm", lambda: package)
    monkeypatch.chdir(tmp_path)

    def call(*words: str, root: Path = folder, weights: str | None = "random") -> int:
        return main(
            [
                *(word for word in words if word.startswith("-")),
                "task=text",
                "data=imdb",
                *SMALL,
                f"data.root={root}",
                *([f"weights={weights}"] if weights else []),
                "logger=none",
                f"results={tmp_path}/results/runs",
                *(word for word in words if not word.startswith("-")),
            ]
        )

    return call


@pytest.fixture
def records(tmp_path: Path) -> Callable[[], dict[str, Record]]:
    def read() -> dict[str, Record]:
        return {record.method.name: record for record in Store(tmp_path / "results" / "runs").all()}

    return read


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A model whose attention is uneven, so that merging changes answers."""
    torch.manual_seed(3)
    model = from_args(model_of(CONFIG), classes=2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
        ids = torch.randint(5, len(VOCABULARY), (200, 10))
        ids[:, 0] = 2
        model.classifier.bias -= model.eval()(input_ids=ids).logits.mean(0)  # both classes occur
    path = tmp_path / "tiny.safetensors"
    save_file({key: value.clone() for key, value in model.state_dict().items()}, path)
    return str(path)


def test_a_record_says_what_was_measured(
    run: Run, records: Callable[[], dict[str, Record]], tmp_path: Path, weights: str
) -> None:
    assert run("-m", "merge=none,pitome", "ratio=0.8", weights=weights) == 0
    plain, merged = records()["none"], records()["pitome"]
    assert merged.data.n_samples == 40 and merged.data.n_skipped == 1 and merged.data.n_truncated == 0
    assert merged.data.skipped[0].id == "40" and merged.data.skipped[0].reason == "empty text"
    assert (merged.data.split, merged.data.source) == ("test (official)", "local")
    assert merged.headline.name == "accuracy" and merged.method.schedule == [0.8, 0.8]
    outcomes = Store(tmp_path / "results" / "runs").outcomes(merged)
    assert outcomes is not None and list(outcomes["id"]) == list(range(40)), "in the order of the data set"
    tokens = torch.tensor(list(outcomes["tokens"]))
    assert merged.tokens[0] == pytest.approx(tokens.float().mean().item(), abs=0.01)
    # k = floor(T - T q) of the T tokens behind [CLS], of every text, twice
    after = tokens - ((tokens - 1) - (tokens - 1) * 0.8).double().floor().long()
    assert merged.tokens[1] == pytest.approx(after.float().mean().item(), abs=0.01)
    labels, predictions = (torch.tensor(list(outcomes[key])) for key in ("label", "prediction"))
    assert merged.metrics["accuracy"] == pytest.approx((labels == predictions).float().mean().item())
    f1 = multiclass_f1_score(predictions, labels, num_classes=2, average="macro")
    assert merged.metrics["f1"] == pytest.approx(f1.item())
    for record in (plain, merged):
        cost = record.cost
        assert cost is not None and cost.macs == pytest.approx(cost.macs_closed_form, rel=1e-3)
        assert cost.fixed_length is not None and cost.fixed_length.tokens == 24
    assert merged.cost is not None and plain.cost is not None
    assert merged.cost.unmerged_macs == plain.cost.macs == merged.cost.macs / merged.cost.share
    assert (merged.cost.authors_macs or 0) < (merged.cost.unmerged_authors_macs or 0)
    # The mean over the texts, each counted by itself.
    model = from_args(model_of(CONFIG), classes=2)
    counts = [count_flops(model, torch.zeros(1, n, dtype=torch.long)).macs for n in tokens.tolist()]
    assert plain.cost.macs == pytest.approx(sum(counts) / len(counts), abs=1)
    with pitome.patch(model, "pitome", ratio=0.8):
        fixed = count_flops(model, torch.zeros(1, 24, dtype=torch.long)).macs
    assert merged.cost.fixed_length is not None and merged.cost.fixed_length.macs == fixed


@pytest.mark.parametrize("method", ["none", "pitome"])
def test_a_text_is_answered_as_if_it_were_alone(run: Run, tmp_path: Path, weights: str, method: str) -> None:
    store = Store(tmp_path / "results" / "runs")
    answers = []
    for size in (1, 7, 100):
        assert run(f"merge={method}", "ratio=0.6", f"batch_size={size}", "measure=none", weights=weights) == 0
    for record in store.all():
        outcomes = store.outcomes(record)
        assert outcomes is not None
        answers.append(list(outcomes["prediction"]))
    assert len(answers) == 3 and answers[0] == answers[1] == answers[2]
    assert len(set(answers[0])) == 2


def test_throughput_counts_samples_and_tokens(
    run: Run, records: Callable[[], dict[str, Record]], weights: str
) -> None:
    assert run("merge=tome", "ratio=0.8", "measure=full", "batch_size=8", weights=weights) == 0
    timing = records()["tome"].throughput
    assert timing is not None and timing.tokens_per_s is not None and timing.batch == 8
    assert 4 < timing.tokens_per_s / timing.images_per_s < 20
    assert timing.tokens_per_s_unmerged == pytest.approx(
        timing.tokens_per_s * timing.images_per_s_unmerged / timing.images_per_s
    )


EPOCHS = 4
TRAIN = (
    "mode=train",
    f"trainer.stages=[{{epochs: {EPOCHS}, batch_size: 16, lr: 0.02}}]",
    "trainer.schedule=linear",
    "measure=none",
)
LORA = ("trainer.lora.rank=2", "trainer.lora.targets=[query,value]")


WHOLE = (TRAIN[1].replace("0.02", "0.005"),)  # a whole model learns nothing at the rate of its adapters


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(WHOLE, id="whole", marks=pytest.mark.nightly),
        pytest.param(LORA, id="lora", marks=pytest.mark.nightly),
        pytest.param((*LORA, "merge=pitome", "ratio=0.9"), id="merged"),
    ],
)
def test_training_learns_what_a_word_says(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: tuple[str, ...]
) -> None:
    assert run(*TRAIN, *extra, weights=None) == 0
    (trained,) = (tmp_path / "results" / "train").iterdir()
    names = {path.name for path in trained.iterdir()}
    assert {"minilm_imdb.safetensors", "minilm_imdb.md", "epochs.jsonl"} <= names
    epochs = [json.loads(line) for line in (trained / "epochs.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == list(range(EPOCHS))
    (record,) = Store(tmp_path / "results" / "runs").all()
    assert (record.metrics["accuracy"] or 0) > 0.8, "a coin gives 0.5"
    assert record.data.split == "test (official)" and record.weights.sha256
    card = (trained / "minilm_imdb.md").read_text()
    assert "validation accuracy" in card and f"test accuracy | {record.score:.4f} on 40 samples" in card
    with safe_open(trained / "minilm_imdb.safetensors", "pt") as file:
        assert ("lora" in (file.metadata() or {})) is (extra != WHOLE)
        assert any("lora_A" in key for key in file.keys()) is (extra != WHOLE)  # noqa: SIM118
    before = (trained / "epochs.jsonl").read_text()
    capsys.readouterr()
    assert run(*TRAIN, *extra, weights=None) == 0
    assert (trained / "epochs.jsonl").read_text() == before, "what is trained is not trained again"
    assert "1 of 1 runs were recorded before" in capsys.readouterr().out


def test_training_that_was_cut_off_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(Exception):
        pass

    original = TextClassification.training_step
    seen: list[int] = []
    cut: list[int] = []

    def step(self: TextClassification, batch: object, index: int) -> object:
        seen.append(self.current_epoch)
        if not cut and self.current_epoch == 1:
            cut.append(len(seen) - 1)
            raise Stopped
        return original(self, batch, index)  # type: ignore[arg-type]

    monkeypatch.setattr(TextClassification, "training_step", step)
    assert run(*TRAIN, *LORA, weights=None) == 1
    (steps,) = cut
    assert steps > 1 and seen == [0] * steps + [1]
    assert run(*TRAIN, *LORA, weights=None) == 0
    assert set(seen[steps + 1 :]) == set(range(1, EPOCHS)), "the first epoch is not repeated"
    assert len(seen) == EPOCHS * steps + 1


@pytest.mark.parametrize(
    "extra", [pytest.param((), id="whole", marks=pytest.mark.nightly), pytest.param(LORA, id="lora")]
)
def test_the_best_epoch_is_chosen_by_validation(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: tuple[str, ...]
) -> None:
    """The validation scores are given here: the second epoch is the best."""
    scores = iter([0.5, 0.9, 0.9, 0.6])
    states: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(
        TextClassification, "on_validation_epoch_end", lambda self: self.log("val_accuracy", next(scores))
    )
    monkeypatch.setattr(TextClassification, "validation_step", lambda self, batch, index: None)
    original = EpochLog.on_train_epoch_end

    def listen(self: EpochLog, trainer: Any, module: Any) -> None:
        states.append({key: value.clone() for key, value in module.model.state_dict().items()})
        original(self, trainer, module)

    monkeypatch.setattr(EpochLog, "on_train_epoch_end", listen)
    monkeypatch.setattr("lightning.pytorch.trainer.trainer.Trainer._run_sanity_check", lambda self: None)
    assert run(*TRAIN, *extra, weights=None) == 0
    (trained,) = (tmp_path / "results" / "train").iterdir()
    kept = load_file(trained / "minilm_imdb.safetensors")
    same = [all(torch.equal(state[key], value) for key, value in kept.items()) for state in states]
    assert same == [False, True, False, False]
    assert (
        "kept: epoch 2, validation accuracy 0.9000 (0.6000 at the end)"
        in (trained / "minilm_imdb.md").read_text()
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=sst3"], "unknown data=sst3; did you mean sst2"),
        (["data.split=both"], "data.split=both is not known"),
        (["source=package"], "data=imdb is not available from source=package"),
        (["mode=train", "trainer.schedule=cosine"], "trainer.schedule=cosine is not known"),
        (["mode=train", "trainer.lora.rank=-1"], "trainer.lora.rank=-1 is not a whole number"),
        (["mode=train", "trainer=fashion_mnist", "trainer.schedule=linear"], "trains in one stage"),
        (["model=deit_s"], "unknown key model.args"),
        (["model.args.vocab_size=99"], "the tokenizer has 15 words and model=minilm embeds 99"),
        (["data.root=/nowhere"], "data.root=/nowhere: no such folder"),
    ],
    ids=["data", "split", "source", "schedule", "rank", "stages", "model", "vocabulary", "root"],
)
def test_bad_words_are_one_line(
    run: Run, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(*words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and message in lines[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=imdb"], "model=minilm has no classifier for data=imdb: train it"),
        (["weights=random", "data.split=official", "source=package"], "holds no official split"),
        (["model=bert_base", "data.split=hash"], "was trained on the official split of data=rotten_tomatoes"),
        (["model=bert_base", "source=package"], "source=package holds no official split"),
    ],
    ids=["no-classifier", "package", "seen-by-bert", "bert-package"],
)
def test_weights_that_do_not_fit_the_data_are_noticed_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    assert main(["task=text", "logger=none", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("words,label", "good,1", "has no column text"),
        ("text,label", "good,2", "label '2' is none of the classes"),
        ("text,label", ",1", "none of the 1 test texts of imdb has a token of its own"),
    ],
    ids=["column", "label", "empty"],
)
def test_bad_files_are_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str, row: str, message: str
) -> None:
    root = tmp_path / "bad"
    root.mkdir()
    (root / "test.csv").write_text(f"{header}\n{row}\n")
    assert run(root=root) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and message in errors[0]


def test_a_data_set_of_one_text(run: Run, tmp_path: Path, records: Callable[[], dict[str, Record]]) -> None:
    root = tmp_path / "one"
    root.mkdir()
    (root / "test.jsonl").write_text(json.dumps({"text": "good", "label": 1}) + "\n")
    assert run("merge=tome", "ratio=0.5", root=root) == 0
    assert records()["tome"].data.n_samples == 1 and records()["tome"].tokens == [3.0, 2.0, 2.0]


def test_a_run_logs_what_merges_in_a_text(run: Run, weights: str, drawn: list[bytes | None]) -> None:
    assert run("merge=tome", "ratio=0.7", "measure=none", "logger=wandb", weights=weights) == 0
    (picture,) = drawn
    assert picture is not None
    told = Image.open(io.BytesIO(picture)).text
    assert told["Title"] == "Words that ended up in one token" and "imdb" in told["Description"]
