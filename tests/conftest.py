"""Fixtures that several folders share: small data sets, run.py called in this process, experiments."""

from __future__ import annotations

import gc
import gzip
import signal
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pitome.cli.main import main
from pitome.config import CONF
from pitome.paper import experiments, files
from pitome.records.identity import RESULT_VERSION, build_identity, run_id
from pitome.records.schema import DataRecord, Headline, MethodInfo, ModelInfo, Record, WeightsInfo
from pitome.records.store import Store
from pitome.sources.yaml_files import read_yaml
from pitome.tasks.data import Preprocess
from tests.hub_double import Hub, point_to, serve

# A suite in the background of a shell (`make test &`) inherits an ignored Ctrl-C, which some tests press.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection of garbage has to look at it again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 test and 5,120 training images; the mean of an image gives its class away."""
    folder = tmp_path_factory.mktemp("fashion")
    random = np.random.default_rng(0)
    for part, count in (("t10k", 40), ("train", 5_120)):
        labels = random.integers(0, 10, count)
        pixels = random.integers(0, 25, (count, 28, 28)) + 25 * labels[:, None, None]
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", pixels)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


SMALL = ("model.args.depth=4", "model.args.embed_dim=16")


@pytest.fixture
def run(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """run(words) -> exit code of run.py on the small data, with a model of four blocks."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str, small: tuple[str, ...] = SMALL) -> int:
        return main(
            [
                *(word for word in words if word.startswith("-")),
                *small,
                f"data.root={images}",
                "weights=random",
                "logger=none",
                f"results={tmp_path}/results/runs",
                *(word for word in words if not word.startswith("-")),
            ]
        )

    return call


@pytest.fixture
def records(tmp_path: Path) -> Callable[[], dict[str, Record]]:
    """The records written so far, by method and ratio."""

    def read() -> dict[str, Record]:
        return {
            f"{record.method.name} {record.method.asked.get('ratio', '')}".strip(): record
            for record in Store(tmp_path / "results" / "runs").all()
        }

    return read


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub without repositories on a loopback port, to which huggingface_hub turns; all caches are empty."""
    import datasets.config
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "all_proxy", "hf_token"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    double = Hub()
    with serve(double) as address:
        point_to(address, monkeypatch)
        yield double


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[bytes | None]:
    """What runs with logger=wandb hand to it as their picture; nothing is logged."""
    from pitome.runs import job

    seen: list[bytes | None] = []
    monkeypatch.setattr(job, "close_logger", lambda logger, numbers, picture=None, **_: seen.append(picture))
    monkeypatch.setattr(job, "open_logger", lambda *_: None)
    return seen


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    """Images [N, 28, 28] and labels [N] of two small splits."""
    random = np.random.default_rng(0)
    sizes = {"train": 5_030, "t10k": 40}
    return {
        part: (
            random.integers(0, 256, (n, 28, 28), dtype=np.uint8),
            random.integers(0, 10, n, dtype=np.uint8),
        )
        for part, n in sizes.items()
    }


@pytest.fixture
def idx_folder(tmp_path, arrays):
    """A folder with the four files; the training files gzipped, the test files plain."""
    folder = tmp_path / "idx"
    folder.mkdir()
    for part, (images, labels) in arrays.items():
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            if part == "train":
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), 1))
            else:
                (folder / name).write_bytes(idx(array))
    return folder


@pytest.fixture
def grey():
    return Preprocess(28, 1, (0.286,), (0.353,))


@pytest.fixture
def colour():
    return Preprocess(32, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.9, "bicubic")


SAMPLES = 50_000

ITEM = """
item: Table 99
title: An item
expect: what stands there
needs: {checkpoints: [deit], gpu_hours: 1}
base: {task: classification, data: imagenet, model: deit_s}
also: [pitome]
metrics:
  top1: {better: higher, tolerance: 0.3}
  gmacs: {better: lower, relative: 0.02}
values:
  - along: {metric: [top1, gmacs]}
    source: Table 99
    printed: {none: [79.8, 4.6]}
  - at: {ratio: 0.925}
    metric: top1
    source: Table 99
    logged_source: a log
    printed: {tome_repo: 77.7, pitome_repo: 79.1, absent_repo: 74.8}
    logged: {tome_repo: 78.43}
  - {by: quoted, metric: top1, source: Table 99, printed: {Other: 79.3}}
offline:
  replace: {model: vit_fmnist, data: fashion_mnist}
  also: [{merge: [random, stride], ratio: 0.925}]
  metrics: {top1: 0.1}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Writes an experiment, `table99` unless named otherwise, where they are looked for."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    names = (CONF.parent / "experiments" / "_names.yaml").read_text()
    # A method that the paper has and this project does not.
    (folder / "_names.yaml").write_text(names.replace("merge:\n", "merge:\n  absent_repo: Absent\n", 1))
    monkeypatch.setattr(files, "FOLDER", folder)
    files.labels.cache_clear()

    def written(text: str = ITEM, name: str = "table99") -> Path:
        (folder / f"{name}.yaml").write_text(text)
        experiments.load_file.cache_clear()
        return folder / f"{name}.yaml"

    written()
    yield written
    experiments.load_file.cache_clear()
    files.labels.cache_clear()


def record(point: Mapping[str, Any], metrics: Mapping[str, float], **changes: Any) -> Record:
    """A finished run of a point of task=classification, with default options."""
    method, options = point["merge"], {}
    if method != "none":
        options = read_yaml(CONF / "merge" / f"{method}.yaml")["options"]
        options |= {k.split(".")[-1]: v for k, v in point.items() if k.startswith("merge.options.")}
    asked = {key: point[key] for key in ("ratio", "r", "flops", "layers") if key in point}
    file = read_yaml(CONF / "model" / f"{point['model']}.yaml")
    checkpoint = point.get("model.checkpoint", file["checkpoint"])
    seed, limit = changes.pop("seed", 0), changes.pop("limit", None)
    identity = build_identity(
        task=point["task"],
        model=point["model"],
        weights_sha256="a" * 64,
        data=point["data"],
        revision=None,
        split="test",
        limit=limit,
        method=method,
        options=options,
        schedule=asked or None,
        precision="32",
        seed=seed,
        measure="flops",
        settings={"started": changes.get("started", "")},
    )
    values: dict[str, Any] = {
        "run_id": run_id(identity),
        "status": "done",
        "task": point["task"],
        "mode": point.get("mode", "test"),
        "seed": seed,
        "precision": "32",
        "measure": "flops",
        "result_version": RESULT_VERSION,
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "identity": identity,
        "config": {
            "model": {"name": point["model"], "checkpoint": checkpoint},
            "merge": {"name": method, "options": options},
        },
        "data": DataRecord(name=point["data"], split="test", limit=limit, n_samples=SAMPLES),
        "weights": WeightsInfo(name="pretrained", source="hub", sha256="a" * 64),
        "model": ModelInfo(name=point["model"]),
        "method": MethodInfo(name=method, options=options, asked=asked),
        "headline": Headline(name="top1"),
        "metrics": dict(metrics),
    }
    return Record(**values | changes)
