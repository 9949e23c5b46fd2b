"""The metrics of the paper: what they are called, their unit, and where a record has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pitome.records.schema import Record
from pitome.records.statistics import proportion

Read = Callable[[Record], float | None]


@dataclass(frozen=True)
class Metric:
    """read: its value in a record, in `unit`; None for what no record holds. share: the key of
    `Record.metrics` that it is a share of samples of, for its interval. computed: known from the
    architecture alone, without a run; costs of both kinds stand in `costs.json`."""

    label: str
    unit: str
    read: Read | None = None
    share: str | None = None
    computed: bool = False

    def interval(self, record: Record) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the measured share, in percent; None for other metrics."""
        value = record.metrics.get(self.share) if self.share else None
        if value is None or not record.data.n_samples:
            return None
        found = proportion(value, record.data.n_samples)
        return 100 * found.low, 100 * found.high


def _sum(*keys: str) -> Read:
    """The sum of shares in percent, as the paper adds up recalls."""

    def read(record: Record) -> float | None:
        values = [record.metrics.get(key) for key in keys]
        known = [value for value in values if value is not None]
        return 100 * sum(known) if len(known) == len(keys) else None

    return read


def _plain(key: str) -> Read:
    return lambda record: record.metrics.get(key)


def _speedup(record: Record) -> float | None:
    return record.throughput.speedup if record.throughput else None


def _share(key: str, label: str) -> Metric:
    return Metric(label, "%", _sum(key), share=key)


_ITM = "re-ranked "
METRICS: Mapping[str, Metric] = {
    "top1": _share("top1", "Top-1"),
    "accuracy": _share("accuracy", "Accuracy"),
    "rt1": Metric("R@1 image to text", "%", _sum("rt1")),
    "ri1": Metric("R@1 text to image", "%", _sum("ri1")),
    "rt_sum": Metric("Rt (sum of R@1, 5, 10)", "Rsum", _sum("rt1", "rt5", "rt10")),
    "ri_sum": Metric("Ri (sum of R@1, 5, 10)", "Rsum", _sum("ri1", "ri5", "ri10")),
    "rsum": Metric("Rsum", "Rsum", _plain("rsum")),
    "reranked_rt1": Metric(f"{_ITM}R@1 image to text", "%", _sum("reranked_rt1")),
    "reranked_ri1": Metric(f"{_ITM}R@1 text to image", "%", _sum("reranked_ri1")),
    "reranked_rt_sum": Metric(f"{_ITM}Rt", "Rsum", _sum("reranked_rt1", "reranked_rt5", "reranked_rt10")),
    "reranked_ri_sum": Metric(f"{_ITM}Ri", "Rsum", _sum("reranked_ri1", "reranked_ri5", "reranked_ri10")),
    "reranked_rsum": Metric(f"{_ITM}Rsum", "Rsum", _plain("reranked_rsum")),
    "mme": Metric("MME perception", "points", _plain("perception_points")),
    "gmacs": Metric("GMACs", "GMACs", computed=True),
    "flops_x": Metric("FLOPs saved", "x", computed=True),
    "total_gmacs": Metric("GMACs, image and captions", "GMACs"),
    "eval_x": Metric("Speed-up of evaluation", "x", _speedup),
    "train_x": Metric("Speed-up of training", "x"),
    "contrastive_seconds": Metric("Time, contrastive scores alone", "s"),
    "seconds": Metric("Time", "s", lambda record: record.seconds),
    "spectral_distance": Metric("Spectral distance", "", _plain("spectral_distance")),
}

_RECALLS = ("rt1", "ri1", "rt_sum", "ri_sum", "rsum")
TASKS: Mapping[str, tuple[str, ...]] = {
    "top1": ("classification",),
    "accuracy": ("text", "vqa"),
    "mme": ("vqa",),
    "spectral_distance": ("theorem",),
} | {prefix + name: ("retrieval",) for prefix in ("", "reranked_") for name in _RECALLS}
"""The tasks that have a metric; not here are those of every task."""
