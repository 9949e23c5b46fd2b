"""Theorem 1 of the paper, checked on clusters of vectors: `python run.py experiment=theorem`.

The paper has no experiment for it. Clusters of sizes 32, 16, 8, 5 and 3 in 32 dimensions, orthogonal centres
and Gaussian noise; one merge that keeps 90 % of the tokens. `even`: the largest cluster lies on all even
positions, where ToMe takes its sources, so each of them must join another cluster (Lemma 3). `shuffled`: any
order, as in an image.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import torch
from torch import Tensor

from pitome.paper import spectral
from pitome.paper.files import method_options
from pitome.records.identity import RESULT_VERSION, build_identity, run_id
from pitome.records.schema import DataRecord, Headline, MethodInfo, ModelInfo, Record, WeightsInfo
from pitome.records.store import Store

CASES = ("even", "shuffled")
METHODS = ("pitome", "tome", "random")
NOISES = (0.3, 0.1, 0.03, 0.01)
SIZES = (32, 16, 8, 5, 3)
WIDTH, RATIO, TRIALS = 32, 0.9, 20
TASK, MODEL = "theorem", "clusters"


def run(store: Store) -> None:
    """Measure every case and keep it in `store`, one record each. Raises RecordError if the folder cannot be
    written."""
    store.prepare()
    for record in measure():
        store.save(record)
        settings = f"{record.data.name}, noise {record.config['noise']:g}, {record.method.name}"
        print(f"{settings:<32} spectral distance {record.metrics['spectral_distance']:.5f}")


def measure(trials: int = TRIALS) -> Iterator[Record]:
    """A record for each case, noise and method: the mean spectral distance over `trials` draws of the tokens,
    and the share of merges within a cluster."""
    for case in CASES:
        for noise in NOISES:
            for method in METHODS:
                started, clock = datetime.now(UTC).isoformat(timespec="microseconds"), time.monotonic()
                draws = [trial(case, noise, method, seed) for seed in range(trials)]
                distance, purity = (statistics.fmean(values) for values in zip(*draws, strict=True))
                seconds = round(time.monotonic() - clock, 3)
                yield _record(case, noise, method, trials, distance, purity, started, seconds)


def trial(case: str, noise: float, method: str, seed: int) -> tuple[float, float]:
    """Spectral distance, and the share of merged tokens that joined their own cluster, of one draw."""
    tokens, clusters = draw(case, noise, seed)
    torch.manual_seed(seed)  # the control draws
    groups = spectral.merged_groups(tokens, method, ratio=RATIO)
    merged = [clusters[groups == group] for group in groups.unique() if int((groups == group).sum()) > 1]
    pure = [len(members.unique()) == 1 for members in merged]
    return spectral.distance(spectral.graph(tokens), groups), sum(pure) / len(pure)


def draw(case: str, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens [N, C] in float64, and the cluster of each [N]."""
    generator = torch.Generator().manual_seed(seed)
    clusters = torch.cat([torch.full((size,), i) for i, size in enumerate(SIZES)])
    if case == "even":
        order = torch.empty(len(clusters), dtype=torch.long)
        order[::2], order[1::2] = torch.arange(SIZES[0]), torch.arange(SIZES[0], len(clusters))
    else:
        order = torch.randperm(len(clusters), generator=generator)
    clusters = clusters[order]
    centres = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64))[0]
    noises = torch.randn(len(clusters), WIDTH, generator=generator, dtype=torch.float64)
    return centres[clusters] + noise * noises / WIDTH**0.5, clusters


def _record(
    case: str, noise: float, method: str, trials: int, distance: float, purity: float, started: str,
    seconds: float,
) -> Record:  # fmt: skip
    options = method_options(method)
    identity = build_identity(
        task=TASK, model=MODEL, weights_sha256=None, data=case, revision=None, split=None, limit=None,
        method=method, options=options, schedule=[RATIO], precision="64", seed=0, measure="none",
        settings={"noise": noise, "sizes": list(SIZES), "width": WIDTH, "trials": trials},
    )  # fmt: skip
    return Record(
        run_id=run_id(identity),
        status="done",
        task=TASK,
        mode="test",
        seed=0,
        precision="64",
        measure="none",
        result_version=RESULT_VERSION,
        started=started,
        seconds=seconds,
        identity=identity,
        config={"merge": {"name": method, "options": options}, "noise": noise},
        data=DataRecord(name=case, source="made", n_samples=trials),
        weights=WeightsInfo(name="none", source="none"),
        model=ModelInfo(name=MODEL),
        method=MethodInfo(name=method, options=options, asked={"ratio": RATIO, "noise": noise}, ratio=RATIO),
        headline=Headline(name="relative_distance", higher_is_better=False),
        metrics={
            "spectral_distance": distance,
            "relative_distance": distance / sum(SIZES),  # of N, the sum of all eigenvalues
            "pure_merges": purity,
        },
        tokens=[float(sum(SIZES)), float(sum(SIZES) - int(sum(SIZES) - sum(SIZES) * RATIO))],
    )
