"""A folder of experiments of a test's own, and records as run.py would write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pitome.config import CONF
from pitome.experiments import loading
from pitome.records.identity import RESULT_VERSION, build_identity, run_id
from pitome.records.schema import DataInfo, Headline, MethodInfo, ModelInfo, Record, WeightsInfo

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
    printed: {tome_repo: 77.7, pitome_repo: 79.1, dct_repo: 74.8}
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
    (folder / "_names.yaml").write_text((CONF.parent / "experiments" / "_names.yaml").read_text())
    monkeypatch.setattr(loading, "FOLDER", folder)

    def written(text: str = ITEM, name: str = "table99") -> Path:
        (folder / f"{name}.yaml").write_text(text)
        loading._load.cache_clear()
        return folder / f"{name}.yaml"

    written()
    yield written
    loading._load.cache_clear()


def record(point: Mapping[str, Any], metrics: Mapping[str, float], **changes: Any) -> Record:
    """A finished run of a point of task=classification, with default options."""
    method, options = point["merge"], {}
    if method != "none":
        options = loading.read_yaml(CONF / "merge" / f"{method}.yaml")["options"]
        options |= {k.split(".")[-1]: v for k, v in point.items() if k.startswith("merge.options.")}
    asked = {key: point[key] for key in ("ratio", "r", "flops", "layers") if key in point}
    file = loading.read_yaml(CONF / "model" / f"{point['model']}.yaml")
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
        "data": DataInfo(name=point["data"], split="test", limit=limit, n_samples=SAMPLES),
        "weights": WeightsInfo(name="pretrained", source="hub", sha256="a" * 64),
        "model": ModelInfo(name=point["model"]),
        "method": MethodInfo(name=method, options=options, asked=asked),
        "headline": Headline(name="top1"),
        "metrics": dict(metrics),
    }
    return Record(**values | changes)
