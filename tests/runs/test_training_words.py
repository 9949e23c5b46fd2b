"""What a command says about a training, from the command line to its files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pitome.config import choices
from pitome.errors import UsageError
from pitome.paper.matching import matches
from pitome.paper.points import Point
from pitome.records.store import Store
from pitome.runs.compose import check_command_line, register_schema
from pitome.runs.validate import training_of

Run = Callable[..., int]
TINY = ("model.args.depth=2", "model.args.embed_dim=16", "model.args.patch_size=7")
STAGE = "trainer.stages=[{epochs: 1, batch_size: 60, lr: 1e-3}]"
TRAIN = ("mode=train", "measure=none", STAGE)


def test_trained_with_a_method_is_with_the_options_that_merge_gives_it() -> None:
    """Those that stand for another key, `seed: ${seed}`, among them."""
    register_schema()
    trained = []
    for name in choices("merge"):
        try:
            ((merging, _),) = check_command_line([f"merge={name}", "ratio=0.9", "seed=3"], False)
        except UsageError:
            continue  # not for images
        words = ["mode=train", "merge=none", f"trained_with={name}", "ratio=0.9", "seed=3"]
        ((config, amount),) = check_command_line(words, False)
        assert training_of(config, amount)[0].merge == merging.merge
        trained.append(name)
    assert {"none", "pitome", "tome_repo", "random"} <= set(trained)


def test_a_short_training_takes_few_words(run: Run, tmp_path: Path) -> None:
    """trainer.epochs is of every stage of the recipe, limit_train of the training images alone."""
    words = ("mode=train", "merge=pitome", "ratio=0.9", "trainer.epochs=1", "limit_train=90", "measure=none")
    assert run(*words, small=("model.args.depth=1", "model.args.embed_dim=8")) == 0
    (folder,) = (tmp_path / "results" / "train").iterdir()
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["epoch"]) for line in epochs] == [(0, 0), (1, 0)]
    (record,) = Store(tmp_path / "results" / "runs").all()
    assert record.config["limit_train"] == 90 and record.data.n_samples == 40


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("limit_train=9",), "limit_train=9 goes with mode=train"),
        (("trained_with=tome",), "trained_with=tome goes with mode=train"),
        (("mode=train", "merge=none", "limit_train=0"), "limit_train=0 is not a whole number >= 1"),
        (
            ("mode=train", "merge=none", "trained_with=tom"),
            "trained_with=tom is not known; did you mean tome",
        ),
        (("mode=train", "merge=none", "trainer.epochs=0"), "trainer.epochs=0 is not a whole number >= 1"),
        (("mode=train", "merge=none", STAGE, "trainer.curriculum=0.5"), "needs an amount that can grow"),
        (("mode=train", "merge=tome", STAGE, "trainer.curriculum=0.5"), "leaves no epoch of 1"),
        (("mode=train", "merge=tome", "trainer.distill=0.5"), "needs a model that has learned something"),
        (("mode=train", "merge=tome", "trainer.ema=2"), "trainer.ema=2 is outside [0, 1]"),
        (
            ("task=vqa", "mode=train", "merge=tome", "trainer.distill=0.5"),
            "is for task=classification or text",
        ),
        (("task=text", "mode=train", "merge=tome", "trainer.layer_decay=0.5"), "is for task=classification"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_line(
    run: Run, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert run(*words, small=()) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in line


def test_a_rate_that_is_far_too_high_is_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = "trainer.stages=[{epochs: 3, batch_size: 60, lr: 1e30}]"
    words = ("mode=train", "merge=pitome", "ratio=0.8", "measure=none", stage, "trainer.clip=0")
    assert run(*words, "limit_train=120", "trainer.save_every=1e-9", small=TINY) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "in step 2 (epoch 1, batch 2); the last checkpoint is kept" in line
    (folder,) = (tmp_path / "results" / "train").iterdir()
    assert [path.name for path in sorted(folder.iterdir())] == ["epochs.jsonl", "stage0.ckpt"]
    (record,) = Store(tmp_path / "results" / "runs").all()
    assert record.status == "failed"


def flowers(folder: Path, classes: tuple[str, ...]) -> list[str]:
    """Training images of some of two classes."""
    for part, shown in (("train", classes), ("test", ("rose", "tulip"))):
        for name in shown:
            (folder / "data" / part / name).mkdir(parents=True)
            for number in range(3):
                pixels = np.full((28, 28, 3), 60 * number, np.uint8)
                Image.fromarray(pixels).save(folder / "data" / part / name / f"{number}.png")
    (folder / "conf" / "data").mkdir(parents=True)
    (folder / "conf" / "data" / "flowers.yaml").write_text(
        "# Flowers\nname: flowers\ntask: classification\nroot: data\nclasses: [rose, tulip]\n"
    )
    return ["data=flowers", "data.root=data", "trainer=imagenet", "trainer.workers=0"]


def texts(folder: Path, classes: tuple[str, ...]) -> list[str]:
    from tests.tasks.text import tiny_text

    (folder / "data").mkdir()
    rows = [f"a good film {n},{n % len(classes)}" for n in range(40)]
    (folder / "data" / "train.csv").write_text("\n".join(["text,label", *rows]))
    (folder / "data" / "test.csv").write_text("text,label\na bad film,0\na good film,1\n")
    tiny_text.write_folder(folder / "cache" / "minilm", classifier=False)
    args = [f"args.{key}={value}" for key, value in tiny_text.CONFIG["args"].items()]
    small = [f"{'+' if 'max' in word else ''}model.{word}" for word in args]
    return ["task=text", *small, "data=imdb", "data.root=data", "trainer.schedule=linear", "weights=null"]


@pytest.mark.parametrize("task", [flowers, texts])
def test_one_class_alone_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], task: Any
) -> None:
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    small = () if task is texts else TINY
    assert run(*task(tmp_path, ("rose",)), *TRAIN, "merge=none", small=small) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "training samples of data=" in line and "are of one class" in line
    assert not list((tmp_path / "results" / "train").glob("*/*.safetensors"))


def test_weights_trained_with_one_method_are_tested_with_others(run: Run, tmp_path: Path) -> None:
    """One training for all of them; the weights trained without merging are those of a plain training. Each
    record is a run of its own point alone."""
    same = {"mode": "train", "trainer": "fashion_mnist_tune", "limit_train": 60}
    tests = [(name, "pitome") for name in ("pitome", "tome", "none")] + [("tome", "none")]
    points: list[Point] = [{"merge": merge, "trained_with": how, "ratio": 0.8} for merge, how in tests]
    points = [same | point for point in [*points, {"merge": "none"}]]
    for point in points:
        words = (f"{key}={value}" for key, value in point.items())
        assert run(*words, "measure=none", small=TINY) == 0
    records = sorted(Store(tmp_path / "results" / "runs").all(), key=lambda record: record.started)
    weights = [record.weights.sha256 for record in records]
    assert weights[0] == weights[1] == weights[2] != weights[3] == weights[4]
    assert len(list((tmp_path / "results" / "train").iterdir())) == 2
    found = [[number for number, record in enumerate(records) if matches(point, record)] for point in points]
    assert found == [[0], [1], [2], [3], [4]]
    other = [{"trainer": "fashion_mnist"}, {"limit_train": 61}, {"trained_with": "random"}, {"ratio": 0.7}]
    assert not [change for change in other for record in records if matches(points[0] | change, record)]


def test_a_training_and_its_test_are_logged_as_one_run(run: Run, tmp_path: Path) -> None:
    """Learning curves, the norm of the gradient, the rate and the share that is merged."""
    stage = "trainer.stages=[{epochs: 2, batch_size: 42, lr: 1e-3}]"
    words = ("mode=train", "measure=none", stage, "limit_train=84", "logger=csv", "merge=pitome", "ratio=0.8")
    assert run(*words, small=TINY) == 0
    (path,) = (tmp_path / "results").rglob("metrics.csv")
    rows = list(csv.DictReader(path.open()))
    for name in ("train_loss", "grad_norm", "lr", "merged", "val_top1"):
        assert sum(bool(row.get(name)) for row in rows) >= 2, name
    assert sum(bool(row.get("top1")) for row in rows) == 1
    assert {round(float(row["merged"]), 3) for row in rows if row["merged"]} == {round(1 - 12 / 17, 3)}
