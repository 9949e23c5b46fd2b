"""A run on several devices, here processes on a CPU: equal to that of one, whatever does not divide."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pitome.cli.main import main
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.runs import stopping
from pitome.tasks import devices
from tests.runs.test_training_killed import classification, retrieval, text, vqa

Run = Callable[..., int]

# What draws random numbers in training is left out, and by `ENDS` a rank ends.
OWN_MODULE = """
import functools, os, signal, time
from pitome.tasks import images as common
from pitome.tasks.classification import images
images.make_transform = lambda preprocess: functools.partial(common.as_tested, preprocess=preprocess)
if os.environ.get("LOCAL_RANK") == "1":
    if os.environ.get("ENDS") == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("ENDS") == "raises":
        raise ValueError("of its own")
    if os.environ.get("ENDS") == "waits":
        for _ in range(2):  # Ctrl-C
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(0.5)
        time.sleep(600)
"""
NO_MIXING = ["model.args.num_classes=2", "trainer.mixup=0", "trainer.cutmix=0", "trainer.drop_path=0"]
NO_DROPOUT = {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for commands, with a module for imports=."""
    (tmp_path / "repeatable.py").write_text(OWN_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    return tmp_path


def made(folder: Path) -> tuple[Record, dict[str, Any]]:
    """The one record of a folder, and its outcomes."""
    (record,) = Store(folder).all()
    outcomes = Store(folder).outcomes(record)
    assert outcomes is not None
    return record, {name: [str(value) for value in values] for name, values in outcomes.items()}


def check_equal(folder: Path, other: Path, ranks: int) -> None:
    (alone, outcomes), (shared, same) = made(folder), made(other)
    assert alone.environment is not None and shared.environment is not None
    assert (alone.environment.devices, shared.environment.devices) == (1, ranks)
    for name in ("run_id", "metrics", "data", "cost", "tokens", "batch_size", "weights"):
        assert getattr(alone, name) == getattr(shared, name), name
    assert outcomes == same


def trained(words: list[str], folder: Path) -> Path:
    """The weights that a training in a folder of its own gives."""
    assert main([*words, f"results={folder}/runs"]) == 0
    (path,) = folder.glob("train/*/*.safetensors")
    return path


def distance(path: Path, other: Path) -> float:
    """The largest between two weights of the same name."""
    weights, same = load_file(path), load_file(other)
    assert weights.keys() == same.keys()
    return max(float((weights[key] - same[key]).abs().max()) for key in weights)


def test_a_step_in_parts_is_the_whole_step(run: Run, here: Path) -> None:
    stage = "trainer.stages=[{epochs: 1, batch_size: 50, lr: 1e-3}]"
    words = ("mode=train", "precision=64", "measure=none", "limit=1", stage, "model.args.patch_size=7")
    paths = []
    for parts in (1, 3):
        assert run(*words, f"trainer.parts={parts}", f"results={here}/{parts}/runs") == 0
        paths += here.glob(f"{parts}/train/*/*.safetensors")
    assert distance(*paths) < 1e-9


@pytest.mark.nightly
def test_neighbours_on_two_devices(run: Run, here: Path) -> None:
    """Both passes are shared: the images that vote, 45 in 5 batches, and those tested, 40."""
    words = ("task.head=knn", "task.k=5", "task.bank=45", "batch_size=9", "merge=pitome", "ratio=0.8")
    for ranks in (1, 2):
        assert run(*words, f"devices={ranks}", f"results={here}/{ranks}/runs") == 0
    check_equal(here / "1" / "runs", here / "2" / "runs", 2)


@pytest.mark.nightly
@pytest.mark.parametrize("task", [classification, text, retrieval, vqa], ids=lambda task: task.__name__)
def test_every_task_is_trained_and_tested_alike(
    task: Callable[[Path], list[str]], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*task(here), "imports=[repeatable]", "merge=pitome", "ratio=0.8", "logger=none", "batch_size=7"]
    words += NO_MIXING if task is classification else ["data.root=data"]
    if task is text:  # whose encoder comes from a folder, with its configuration
        path = here / "cache" / "minilm" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | NO_DROPOUT))
    # 15 do not divide by the ranks, and a last batch may hold fewer samples than there are ranks.
    stage = "trainer.stages=[{epochs: 2, batch_size: 15, lr: 1e-3}]"
    train = ["mode=train", "precision=64", "measure=none", stage]
    path = trained([*words, *train], here / "alone")
    for ranks, parts in ((1, 4), (2, 2)):
        how = [f"devices={ranks}", f"trainer.parts={parts}"]
        other = trained([*words, *train, *how], here / f"{ranks} in {parts}")
        assert path.parent.name == other.parent.name
        assert len(other.with_name("epochs.jsonl").read_text().splitlines()) == 2
        far = distance(path, other)
        with capsys.disabled():
            print(f"\n{task.__name__}, {' '.join(how)}: a weight differs by at most {far:.1e}")
        assert far < 1e-5
    for ranks in (1, 2, 3):
        words_of_test = [f"weights={path}", f"devices={ranks}", f"results={here}/{ranks}/runs"]
        assert main([*words, *words_of_test]) == 0
    for ranks in (2, 3):
        check_equal(here / "1" / "runs", here / str(ranks) / "runs", ranks)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("ends", "code", "status", "reason"),
    [
        ("killed", 2, "failed", "process 2 of 2 (devices=2) was killed by SIGKILL"),
        ("raises", 2, "failed", "imports: repeatable cannot be imported (ValueError: of its own)"),
        ("waits", 130, "interrupted", "stopped by Ctrl-C"),
    ],
)
def test_a_rank_that_ends_ends_the_run(
    run: Run,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ends: str,
    code: int,
    status: str,
    reason: str,
) -> None:
    monkeypatch.setenv("ENDS", ends)
    monkeypatch.setattr(stopping, "SECONDS", 60)
    results = here / "results" / "runs"
    assert run("devices=2", "batch_size=9", "imports=[repeatable]", f"results={results}") == code
    (record,) = Store(results).all()
    assert record.status == status and record.error is not None and record.error.startswith(reason)
    if code == 2:
        assert capsys.readouterr().err.count("error: ") == 1
    assert not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_more_devices_than_there_are(run: Run, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("devices=4", "device=cpu") == 2
    assert "error: devices=4 is too many for device=cpu: there are 3" in capsys.readouterr().err
    assert run("devices=2", "device=cuda:0") == 2
    assert "error: device=cuda:0 is one device; devices=2 needs device=cuda" in capsys.readouterr().err
    assert Store(here / "results" / "runs").all() == []


def test_fewer_batches_than_devices(
    run: Run, here: Path, records: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("merge=none", "devices=3", "measure=none") == 0
    assert "batch_size=100 makes 1 batches, so 1 devices are used" in capsys.readouterr().err
    assert records()["none"].environment.devices == 1


@pytest.mark.parametrize("world", [2, 3, 5])
def test_shares_of_a_batch(monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    monkeypatch.setattr(devices, "world", lambda: world)
    for count in range(1, 20):
        parts = [list(range(count)[devices.own_rows(count, rank)]) for rank in range(world)]
        if count < world:
            assert all(part == list(range(count)) for part in parts)
        else:
            assert sorted(list(itertools.chain(*parts))) == list(range(count)) and all(parts)
            assert devices.row_order(count).tolist() == list(itertools.chain(*parts))
    batches = [[number] for number in range(7)]
    turns = []
    for rank in range(world):
        monkeypatch.setattr(devices, "rank", lambda rank=rank: rank)
        assert len(devices.Turns(batches)) == len(list(devices.Turns(batches)))
        turns += list(devices.Turns(batches))
    assert sorted(turns) == batches
