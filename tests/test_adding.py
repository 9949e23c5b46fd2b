"""docs/adding.md is followed to the letter: its file, its commands, its tests."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pitome.cli.main import main
from pitome.config import Config, DataConfig, LoggerConfig, MergeConfig, ModelConfig, TaskConfig
from pitome.merge.plan import Plan, Tokens
from pitome.merge.registry import Guarantees
from pitome.merge.schedule import Reduction
from pitome.paper import files
from pitome.paper.experiments import choose
from pitome.paper.verdicts import WITHIN, YOURS, judge
from pitome.records.store import Store
from pitome.runs.job import Job
from pitome.tasks.training import key_of
from tests import ROOT
from tests.conftest import write_idx
from tests.tasks.text import tiny_text

TEXT = (ROOT / "docs" / "adding.md").read_text()
METHOD, MODEL, DATA, EXPERIMENT = re.split(r"^# (?=A.*of your own$)", TEXT, flags=re.MULTILINE)[1:]


def blocks(section: str, language: str) -> list[str]:
    return [match.strip() for match in re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)]


FILE, IN_PYTHON = (f"{block}\n" for block in blocks(METHOD, "python"))
SWEEP, OPTION, REPORT, SUITE = blocks(METHOD, "bash")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with my_method.py and a small data set."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "data").mkdir()
    (folder / "my_method.py").write_text(FILE)
    random = np.random.default_rng(0)
    for part in ("t10k", "train"):
        write_idx(folder / "data" / f"{part}-images-idx3-ubyte.gz", random.integers(0, 255, (12, 28, 28)))
        write_idx(folder / "data" / f"{part}-labels-idx1-ubyte.gz", random.integers(0, 10, 12))
    return folder


def test_the_example_is_short() -> None:
    assert len(FILE.splitlines()) < 30
    assert max(map(len, FILE.splitlines())) <= 110


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it methods of one's own come and go."""
    from pitome.merge import registry

    registry.names()
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    sys.modules.pop("my_method", None)  # of another test
    yield
    sys.modules.pop("my_method", None)


@pytest.mark.usefixtures("registered")
def test_its_commands_end_in_a_table(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of the page, in a directory of one's own."""
    small = ["model.args.depth=4", "model.args.embed_dim=16", "weights=random", "logger=none"]
    small += [f"data.root={place}/data", "measure=flops"]
    lines = [command.removeprefix("python run.py").split() for command in (SWEEP, OPTION)]
    in_table, report = REPORT.splitlines()
    assert report.split()[1:] == ["scripts/report.py", "table5_offline"]
    lines.append([*in_table.removeprefix("python run.py").split(), "results=elsewhere/runs"])
    monkeypatch.chdir(place)
    for words in lines:
        assert main(words + small) == 0
    printed = capsys.readouterr().out
    records = Store(place / "results" / "runs").all()
    assert all(record.done for record in records)
    found = sorted((record.method.name, str(record.method.asked)) for record in records)
    shares = ["{'flops': 0.6}", "{'flops': 0.8}"]
    assert [asked for name, asked in found if name == "mine"] == [*shares, "{'ratio': 0.9}"]
    assert [asked for name, asked in found if name == "pitome"] == shares
    for record in records:
        assert record.cost is not None
        if "flops" in record.method.asked:  # at equal cost, and the ratio that gives it is on record
            assert record.method.ratio is not None and 0.5 < record.method.ratio < 1
            assert record.cost.share <= record.method.asked["flops"] + 1e-3
        # Counted and closed form agree, so the example states the cost of its plan rightly.
        assert record.cost.macs == pytest.approx(record.cost.macs_closed_form, rel=1e-3)
    (power,) = (record for record in records if record.method.asked == {"ratio": 0.9})
    table = Store(place / "elsewhere" / "runs").all()
    assert {record.method.name for record in table} == {"mine"} and all(record.done for record in table)
    assert {str(record.method.asked) for record in table} >= {"{'ratio': 0.925}", *shares}
    assert power.method.options["power"] == 0
    assert re.search(r"\bmine\b", printed) and re.search(r"\bpitome\b", printed)


@pytest.mark.nightly
def test_the_shared_tests_run_on_it(place: Path) -> None:
    """The command of the page, for the quick half of the tests."""
    variable, *words = SUITE.split()
    quick = "mine and (conserves or prunes or keeps or identity or needs or declare or autocast or removes)"
    done = subprocess.run(
        [sys.executable, *words[1:-1], quick, "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(place), **dict([variable.split("=")])),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert words[:3] == ["python", "-m", "pytest"] and words[-2:] == ["-k", "mine"]
    assert done.returncode == 0, done.stdout
    assert 8 <= done.stdout.splitlines()[0].count(".") <= 40, done.stdout


@pytest.mark.usefixtures("registered")
def test_the_lines_in_python(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.adapters.tiny import images, vit

    monkeypatch.syspath_prepend(place)
    model = vit()
    seen: list[list[int]] = []
    body = IN_PYTHON.replace("...", "model(x), seen.append(patched.tokens)")
    exec(body, {"model": model, "x": images(model), "seen": seen})
    assert seen == [[16, 15, 14, 13, 12]]


NOT_FOR_OWN_METHODS = {"padding", "rows", "whole", "received", "keys", "text", "text_keys", "grid", "native"}


def test_the_page_lists_all_that_is_promised_given_and_returned() -> None:
    for cls in (Guarantees, Plan, Tokens):
        names = {field.name for field in dataclasses.fields(cls)} - NOT_FOR_OWN_METHODS
        assert [name for name in names if f"`{name}`" not in TEXT] == []


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **more}


def test_the_experiment_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, _ = blocks(EXPERIMENT, "yaml")  # and a file of overrides
    assert len(text.splitlines()) < 30
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "_names.yaml").write_text((files.FOLDER / "_names.yaml").read_text())
    monkeypatch.setattr(files, "FOLDER", tmp_path)
    assert len(choose("mine").points) == 8
    rows = judge("mine", Store(ROOT / "results" / "published").all()).rows
    assert [(row.method, row.ratio, row.verdict) for row in rows if row.verdict != YOURS] == [
        ("ToMe", "0.9", WITHIN),
        ("ToMe", "0.8", WITHIN),
        ("PiToMe", "0.9", WITHIN),
        ("PiToMe", "0.8", WITHIN),
    ]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files of the page, weights for its model and what its data sets are to be."""
    folder = tmp_path_factory.mktemp("own")
    (model,), (data,) = blocks(MODEL, "yaml"), blocks(DATA, "yaml")
    mails = data.replace("flowers", "mails").replace("task: classification", "task: text")
    mails = mails.replace("rose, tulip", "bug, question")
    bare = data.replace("flowers", "photos").replace("classification", "retrieval")
    photos = "\n".join(line for line in bare.splitlines() if "classes" not in line)
    charts = photos.replace("photos", "charts").replace("retrieval", "vqa") + '\ninstruction: ""'
    files = {"model/vit_t": model, "data/flowers": data, "data/mails": mails}
    files |= {"data/photos": photos, "data/charts": charts}
    for name, text in files.items():
        path = folder / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    flowers = [
        f"flowers/{part}/{kind}/{number}.jpg"
        for part, count in (("train", 4), ("test", 2))
        for kind in ("rose", "tulip")
        for number in range(count)
    ]
    random = np.random.default_rng(0)
    for name in [*flowers, "imagenet/val/n01440764/1.JPEG", "imagenet/val/n01443537/2.JPEG"]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    for name in [f"{part}/{number}.png" for part in ("photos", "charts") for number in range(12)]:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (56, 56, 3), np.uint8)).save(path)
    captions = [f"{number}.png,a {kind} at the top" for number in range(12) for kind in ("shirt", "bag")]
    (folder / "photos" / "test.csv").write_text("\n".join(["image,caption", *captions, ""]))
    asked = [f"{number}.png,what is the shape?,circle" for number in range(3)]
    (folder / "charts" / "test.csv").write_text("\n".join(["image,question,answers", *asked, ""]))
    (folder / "mails").mkdir()
    for part in ("train", "test"):
        rows = [f"{part} {number} film,{('bug', 'question')[number % 2]}" for number in range(40)]
        (folder / "mails" / f"{part}.csv").write_text("\n".join(["text,label", *rows, ""]))
    tiny_text.write_folder(folder / "cache" / "minilm", classifier=False)
    return folder


@pytest.fixture(scope="module")
def weights(own: Path) -> str:
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("vit_tiny_patch16_224", depth=2).state_dict(), own / "vit_t.safetensors")
    return str(own / "vit_t.safetensors")


SMALL = "+model.args.depth=2"
STAGES = ["trainer.stages=[{epochs: 1, batch_size: 4, lr: 1e-3}]", "trainer.workers=0"]
ARGS = [f"args.{key}={value}" for key, value in tiny_text.CONFIG["args"].items()]
TINY = [f"{'+' if 'max' in word else ''}model.{word}" for word in ARGS]


def test_a_model_and_data_of_your_own_are_short() -> None:
    assert all(len(section.splitlines()) < 30 for section in (MODEL, DATA))


def test_their_commands_end_in_records(
    own: Path, weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of both sections, in a directory of one's own."""
    commands = "\n".join(blocks(MODEL + DATA, "bash")).splitlines()
    compare, vote, train, texts, captions, questions = (
        line.removeprefix("python run.py").split() for line in commands
    )
    compare = [word.replace("/path/to/imagenet", "imagenet") for word in compare]
    train = [word.replace("pretrained", weights) for word in train]
    captions = [word.replace("clip_b32", "clip_scenes") for word in captions]  # those that are shipped
    questions = [word.replace("llava_7b", "llava_easyvqa") for word in questions]
    lines = [
        [*compare, SMALL, f"weights={weights}"],
        [*vote, SMALL, f"weights={weights}"],
        [*train, SMALL, *STAGES],
        [*texts, *TINY, STAGES[0]],
        captions,
        questions,
    ]
    from pitome.tasks.classification import images

    monkeypatch.chdir(own)
    monkeypatch.setenv("PITOME_CACHE", str(own / "cache"))
    monkeypatch.setattr(images, "default_workers", lambda: 0)
    for words in lines:
        assert main([*words, "logger=none"]) == 0
    printed = capsys.readouterr().out
    records = Store(own / "results" / "runs").all()
    found = sorted((one.data.name, one.model.name, one.method.name, one.data.n_samples) for one in records)
    voted = "vit_t (args.depth=2) (kNN, k=5, bank 8)"
    changed = ", ".join(word for word in sorted(ARGS))
    assert found == sorted(
        [
            ("charts", "llava_easyvqa", "none", 3),
            ("charts", "llava_easyvqa", "pitome", 3),
            ("photos", "clip_scenes", "none", 12),
            ("photos", "clip_scenes", "pitome", 12),
            ("flowers", "vit_t (args.depth=2, args.num_classes=2)", "none", 4),
            ("flowers", voted, "none", 4),
            ("flowers", voted, "pitome", 4),
            ("imagenet", "vit_t (args.depth=2)", "none", 2),
            ("imagenet", "vit_t (args.depth=2)", "pitome", 2),
            ("imagenet", "vit_t (args.depth=2)", "tome", 2),
            ("mails", f"minilm ({changed})", "none", 40),
        ]
    )
    assert all(one.done and one.score is not None and one.cost is not None for one in records)
    assert {one.data.source for one in records} == {"local"}
    assert {one.data.split for one in records} == {"validation", "test", "test (official)"}
    for name in ("vit_t", "flowers", "mails", "photos", "charts"):
        assert re.search(rf"\b{name}\b", printed), name


def test_what_is_found_again_goes_by_files_and_not_by_names(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One name, other contents: neither an old result nor old trained weights are taken for it."""
    monkeypatch.chdir(own)
    config = Config(
        task=TaskConfig(name="classification"),
        merge=MergeConfig(name="pitome"),
        logger=LoggerConfig(name="none"),
        model=ModelConfig(name="vit_t", task="classification", arch="vit_tiny_patch16_224"),
        data=DataConfig(name="flowers", task="classification", root="flowers", classes=["rose", "tulip"]),
    )
    trained, before = key_of(config, Reduction(ratio=1.0)), Job(config, since=datetime.now(UTC))._identity()
    assert key_of(config, Reduction(ratio=1.0)) == trained
    (picture,) = own.glob("flowers/train/rose/0.jpg")
    content = picture.read_bytes()
    try:
        picture.write_bytes(content[:-1] + b"x")  # of the same size
        assert key_of(config, Reduction(ratio=1.0)) != trained
    finally:
        picture.write_bytes(content)
    config.model.args = {"depth": 2}
    changed = Job(config, since=datetime.now(UTC))._identity()
    assert set(changed["settings"]) == {"model file"} and changed["settings"] != before["settings"]
    config.model.name = "deit_s"
    assert "settings" not in Job(config, since=datetime.now(UTC))._identity()


MISTAKES = {
    "model=vit_t model.arch=vit_tinny_patch16_224": "did you mean vit_tiny_patch16_224",
    "model=vit_t +model.args.dpeth=3": "timm cannot build model.arch=vit_tiny_patch16_224.augreg",
    "model=vit_t model.arch=resnet18": "looked for timm VisionTransformer; found timm.models.resnet.ResNet",
    "model=vit_t weights=pretrained model.checkpoint=''": "model=vit_t names no checkpoint",
    "model=vit_tt": "did you mean vit_t",
    "model=named": "conf/model/named.yaml has the name other; it must be that of the file, named",
    "model=vit_t model.name=other": "there is no conf/model/other.yaml",
    "data.root=flowers/train/rose": "holds no images and no parquet files",
    "data.root=flowers/train task.head=knn": "holds no training images",
    "-m data.root=flowers/test mode=train trainer=imagenet": "holds no training images",
    "data.root=roses": "data.root=roses: no such folder",
    "data.root=mails": "holds no images and no parquet files; expected test/<class>/*.jpg (rose, tulip)",
    "data.classes=[rose]": "names of two or more classes",
    "data.classes=[rose,tulpe]": "test/tulip is not named after a class of data=flowers",
    "data.root=null": "neither root nor repository",
    "data.split=train": "available: test, validation",
    "data=imagenet data.classes=[a,b]": "of your own, not with data=imagenet",
    "source=package": "available: auto, local",
    "trainer=imagnet": "did you mean imagenet",
    "mode=train": "choose one of coco",
    "weights={weights} +model.args.depth=2": "model=vit_t knows 1000 classes, data=flowers has 2",
    "task=text model=minilm data=mails": "model=minilm has no classifier for data=mails: train it",
    "task=text data=mails data.classes=[bug,ask] weights=random {tiny}": "none of the classes 0 (bug)",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line(
    words: str,
    own: Path,
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = (own / "conf" / "model" / "vit_t.yaml").read_text()
    (own / "conf" / "model" / "named.yaml").write_text(model.replace("name: vit_t", "name: other"))
    monkeypatch.chdir(own)
    monkeypatch.setenv("PITOME_CACHE", str(own / "cache"))
    given = words.format(weights=weights, tiny=" ".join(TINY)).split()
    usual = {"model": "vit_t", "data": "flowers", "weights": "random", "logger": "none"}
    keys = {word.partition("=")[0] for word in given}
    if "task" in keys:
        usual = {"logger": "none"}
    code = main([*(f"{key}={value}" for key, value in usual.items() if key not in keys), *given])
    told = capsys.readouterr().err
    (line,) = (line for line in told.splitlines() if line.startswith("error: "))
    assert (code, MISTAKES[words] in line, "Traceback" in told) == (2, True, False), told


def test_they_are_listed_and_tell_the_project_s_apart(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(own)
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, comment in (("vit_t", "ViT-Ti/16 AugReg"), ("flowers", "Flowers: photographs")):
        assert re.search(rf"^  {name} +{comment}", text, re.MULTILINE)
    twin = own / "conf" / "data" / "imagenet.yaml"
    twin.write_text((own / "conf" / "data" / "flowers.yaml").read_text())
    try:
        assert main(["--cfg", "job", "data=imagenet", "weights=random"]) == 0
    finally:
        twin.unlink()
    shown = capsys.readouterr()
    assert "conf/data/imagenet.yaml is not read: data=imagenet is the project's" in shown.err
    assert "ILSVRC/imagenet-1k" in shown.out and "tulip" not in shown.out
