"""Made-up records for the tests; the numbers are plausible but nobody's."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from pitome.records import (
    UNMERGED,
    Cost,
    DataRecord,
    Environment,
    Headline,
    MethodInfo,
    ModelInfo,
    Record,
    Throughput,
    WeightsInfo,
    build_identity,
    run_id,
)

SHA = "ab" * 32
UNMERGED_MACS = 120_000_000
SPEED = Throughput(
    images_per_s=131.4,
    images_per_s_unmerged=100.2,
    speedup=1.31,
    speedup_low=1.28,
    speedup_high=1.35,
    pairs=20,
    batch=16,
    device="cpu",
    threads=2,
)


def example(
    method: str = "pitome",
    ratio: float | None = 0.9,
    accuracy: float | None = 0.87,
    *,
    asked: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    model: str = "vit_fmnist",
    random: bool = False,
    seed: int = 0,
    measure: str = "flops",
    limit: int | None = 1000,
    **changes: Any,
) -> Record:
    """A finished run; `changes` replace fields of the record."""
    merges = method != UNMERGED
    ratio = ratio if merges else None
    options = options if options is not None else ({"margin": 0.9, "alpha": 1.0} if merges else {})
    share = 1.0 if ratio is None else round(ratio**6, 4)
    schedule = None if ratio is None else [ratio] * 12
    tokens = [197.0]
    for _ in range(12):
        tokens.append(float(int(tokens[-1] * (ratio or 1.0))))
    identity = build_identity(
        task="classification",
        model=model,
        weights_sha256=None if random else SHA,
        data="fashion_mnist",
        revision="r1",
        split="test",
        limit=limit,
        method=method,
        options=options,
        schedule=schedule,
        precision="float32",
        seed=seed,
        measure=measure,
    )
    macs = int(UNMERGED_MACS * share)
    record = Record(
        run_id=run_id(identity),
        status="done",
        task="classification",
        mode="test",
        seed=seed,
        precision="float32",
        measure=measure,
        result_version=identity["result_version"],
        started="2026-01-02T03:04:05+00:00",
        seconds=12.5,
        identity=identity,
        config={"task": "classification", "ratio": ratio},
        data=DataRecord(
            name="fashion_mnist",
            revision="r1",
            split="test",
            source="package",
            limit=limit,
            n_samples=limit or 10_000,
        ),
        weights=WeightsInfo(
            name="random" if random else model,
            source="random" if random else "shipped",
            sha256=None if random else SHA,
            random=random,
        ),
        model=ModelInfo(name=model, family="deit", params=600_000),
        method=MethodInfo(
            name=method,
            options=options,
            asked=asked if asked is not None else ({"ratio": ratio} if merges else {}),
            ratio=ratio,
            schedule=schedule,
        ),
        headline=Headline(name="top1", outcome="correct"),
        metrics={"top1": None if random else accuracy, "top5": None if random else 0.99},
        cost=Cost(
            macs=macs,
            flops=2 * macs,
            unmerged_macs=UNMERGED_MACS,
            unmerged_flops=2 * UNMERGED_MACS,
            share=share,
            macs_closed_form=macs,
            plan_macs=int(0.02 * macs) if merges else 0,
        ),
        tokens=tokens,
        environment=Environment(device="cpu", dtype="float32", threads=2, attention="math"),
    )
    return dataclasses.replace(record, **changes)


def resized(height: int, width: int, share: float, larger: float, accuracy: float = 0.8) -> Record:
    """The control: the unmerged model on a smaller image; `larger`: cost of the next larger one."""
    size = [height, width]
    record = example("resize", share, accuracy, asked={"shares": [share, larger]}, options={"size": size})
    assert record.cost is not None
    macs = int(UNMERGED_MACS * share)
    return dataclasses.replace(
        record,
        method=dataclasses.replace(record.method, ratio=None, schedule=None),
        cost=dataclasses.replace(record.cost, share=share, macs=macs, flops=2 * macs, plan_macs=0),
        tokens=[float(height * width // 4 + 1)] * 13,
    )


def failed(method: str = "tome", ratio: float = 0.9, error: str = "out of memory", **changes: Any) -> Record:
    """A run that stopped with `error` before it had measured anything."""
    record = example(method, ratio, **changes)
    return dataclasses.replace(
        record, status="failed", error=error, metrics={}, cost=None, tokens=[], throughput=None
    )


def outcomes(accuracy: float, n: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Per-sample outcomes [n] with exactly this accuracy (to one sample), in shuffled id order."""
    generator = np.random.default_rng(seed)
    hardness = np.random.default_rng(99).permutation(n)  # shared, so that runs are correlated
    noisy = hardness + generator.normal(0, 0.02 * n, n)
    correct = np.zeros(n)
    correct[np.argsort(noisy)[: round(accuracy * n)]] = 1
    order = generator.permutation(n)
    return {"id": order, "correct": correct[order]}
