"""Memory that does not suffice, and processes that die for want of it: a result all the same, or one line."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.utils.data import get_worker_info

from pitome.cli.main import main
from pitome.errors import MemoryShortageError
from pitome.measure import throughput
from pitome.records.store import Store
from pitome.tasks.classification.images import ClassifiedImages
from pitome.tasks.classification.module import Classification
from pitome.tasks.memory import Parts, is_out_of_memory
from pitome.tasks.retrieval.clip import ImageText
from pitome.tasks.text.module import TextClassification
from pitome.tasks.vqa.llava import Llava
from tests.runs.test_devices import made
from tests.runs.test_training_killed import classification, retrieval, text, vqa

Run = Callable[..., int]
ERRORS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("most", [1, 3, 4, 10])
def test_parts_hold_every_sample_once(error: Exception, most: int) -> None:
    assert is_out_of_memory(error)
    parts, tried = Parts(), []

    def work(rows: slice) -> list[int]:
        samples = list(range(10))[rows]
        tried.append(len(samples))
        if len(samples) > most:
            raise error
        return samples

    for _ in range(2):
        assert list(itertools.chain(*parts(10, work))) == list(range(10))
    assert parts.size == {1: 1, 3: 3, 4: 3, 10: None}[most]
    assert sum(size > most for size in tried) == {1: 4, 3: 2, 4: 2, 10: 0}[most]  # found out once
    assert parts.first(10, lambda size: size) == (parts.size or 10)


def test_other_errors_are_no_want_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    with pytest.raises(ZeroDivisionError):
        Parts()(4, lambda rows: 1 // 0)
    with pytest.raises(MemoryShortageError, match="one sample at once"):
        Parts()(4, lambda rows: (_ for _ in ()).throw(ERRORS[0]))


def size_of(batch: Any) -> int:
    return len(batch["labels"] if isinstance(batch, dict) else batch)


def short_of_memory(monkeypatch: pytest.MonkeyPatch, kind: type, method: str, most: int) -> None:
    """A double that holds `most` samples."""
    whole = getattr(kind, method)

    def call(self: Any, batch: Any, *arguments: Any, **options: Any) -> Any:
        if size_of(batch) > most:
            raise ERRORS[0]
        return whole(self, batch, *arguments, **options)

    monkeypatch.setattr(kind, method, call)


@pytest.mark.parametrize(
    ("task", "kind", "method"),
    [
        (classification, Classification, "forward"),
        (text, TextClassification, "forward"),
        (retrieval, ImageText, "encode_image"),
        (vqa, Llava, "generate"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_batch_that_does_not_fit_is_halved(
    task: Callable[[Path], list[str]],
    kind: type,
    method: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """pitome_repo merges padding of texts, so that they depend on their batch: it stays one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    words = [*task(tmp_path), "weights=random", "merge=pitome_repo", "ratio=0.8", "logger=none", "limit=13"]
    words += ["batch_size=8", "measure=none", *([] if task is classification else ["data.root=data"])]
    assert main([*words, f"results={tmp_path}/whole/runs"]) == 0
    short_of_memory(monkeypatch, kind, method, 3)
    assert main([*words, f"results={tmp_path}/parts/runs"]) == 0
    (whole, outcomes), (parts, same) = (made(tmp_path / name / "runs") for name in ("whole", "parts"))
    assert (whole.batch_size, parts.batch_size) == (8, 2)
    assert whole.run_id == parts.run_id and whole.data == parts.data
    assert outcomes == same


def test_a_sweep_goes_on_after_a_run_for_which_memory_is_short(
    run: Run, records: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = Classification.forward

    def call(self: Classification, images: torch.Tensor) -> torch.Tensor:
        if not records():
            raise ERRORS[0]
        return forward(self, images)

    monkeypatch.setattr(Classification, "forward", call)
    assert run("-m", "merge=tome,tofu", "ratio=0.9", "batch_size=4", "measure=none") == 2
    shown = capsys.readouterr().err
    assert "out of memory with 4 samples at once, going on with 2" in shown and "Traceback" not in shown
    assert records()["tome 0.9"].error.startswith("out of memory with one sample at once")
    assert records()["tofu 0.9"].done and records()["tofu 0.9"].batch_size == 4


def test_neighbours_in_parts(run: Run, records: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ("task.head=knn", "task.k=5", "task.bank=45", "batch_size=9", "merge=tome", "ratio=0.8")
    assert run(*words, f"results={tmp_path}/whole/runs") == 0
    short_of_memory(monkeypatch, VisionTransformer, "forward", 3)
    assert run(*words, f"results={tmp_path}/parts/runs") == 0
    (_, outcomes), (record, same) = (made(tmp_path / name / "runs") for name in ("whole", "parts"))
    assert record.batch_size == 3 and outcomes == same


def test_throughput_names_the_batch_that_fits(
    run: Run, records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = throughput.forward

    def call(model: Any, inputs: Any) -> Any:
        if len(inputs) > 4:
            raise ERRORS[0]
        return forward(model, inputs)

    monkeypatch.setattr(throughput, "forward", call)
    assert run("merge=tome", "ratio=0.7", "measure=full", "batch_size=16") == 0
    record = records()["tome 0.7"]
    assert record.batch_size == 16 and record.throughput.batch == 4


def test_training_names_its_batch(
    run: Run, records: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(self: Classification, images: torch.Tensor) -> torch.Tensor:
        raise ERRORS[0]

    monkeypatch.setattr(Classification, "training_step", call)
    stage = "trainer.stages=[{epochs: 1, batch_size: 60, lr: 1e-3}]"
    assert run("mode=train", "model.args.depth=1", "model.args.patch_size=7", stage) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error"))
    assert "out of memory with 60 samples in a step of training" in line and "trainer.parts" in line
    assert [record.done for record in records().values()] == [False]


@pytest.mark.parametrize("mode", ["test", "train"])
def test_a_process_that_loads_images_dies(
    mode: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    read = ClassifiedImages.__getitem__

    def call(self: ClassifiedImages, position: int) -> Any:
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGBUS)
        return read(self, position)

    monkeypatch.setattr(ClassifiedImages, "__getitem__", call)
    monkeypatch.setenv("PITOME_CACHE_GB", "0")  # so that files are read
    words = [*classification(tmp_path), "merge=none", "logger=none", "measure=none", f"mode={mode}"]
    words += ["trainer.stages=[{epochs: 1, batch_size: 60, lr: 1e-3}]"]
    words += ["workers=0", "trainer.workers=2"] if mode == "train" else ["workers=2", "weights=random"]
    assert main([*words, f"results={tmp_path}/results/runs"]) == 0
    shown = capsys.readouterr().err
    assert shown.count("once more with workers=0 trainer.workers=0") == 1 and "Traceback" not in shown
    (record,) = Store(tmp_path / "results" / "runs").all()
    assert record.done and record.data.n_samples == 20
