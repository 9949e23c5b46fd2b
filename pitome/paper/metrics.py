"""The metrics: what each is called, its unit, its tasks, and where a record has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pitome.records.schema import Record
from pitome.records.statistics import proportion

Read = Callable[[Record], float | None]


@dataclass(frozen=True)
class Metric:
    """A number that a table or figure shows."""

    label: str
    unit: str
    read: Read | None = None  # its value in a record, in `unit`; None for what no record holds
    tasks: tuple[str, ...] = ()  # that have it; empty for all
    share: str | None = None  # the key of `Record.metrics` that it is a share of samples of
    computed: bool = False  # from the architecture alone, without a run: it stands in costs.json

    def interval(self, records: Sequence[Record]) -> tuple[float, float] | None:
        """Wilson's 95 % interval, in percent, of a share, the mean over runs that differ by the seed,
        for the samples of one of them; None for other metrics."""
        values = [value for r in records if self.share and (value := r.metrics.get(self.share)) is not None]
        n = records[0].data.n_samples
        if not values or not n:
            return None
        interval = proportion(fmean(values), n)
        return 100 * interval.low, 100 * interval.high


def metric_label(key: str) -> str:
    """What a metric of a record is called; its key where it has no other name."""
    return METRICS[key].label if key in METRICS else key


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


def _share(key: str, label: str, *tasks: str) -> Metric:
    return Metric(label, "%", _sum(key), tasks, share=key)


def _recall(label: str, *keys: str) -> Metric:
    return Metric(label, "%" if len(keys) == 1 else "Rsum", _sum(*keys), ("retrieval",))


def _rsum(label: str, key: str) -> Metric:
    return Metric(label, "Rsum", _plain(key), ("retrieval",))


METRICS: Mapping[str, Metric] = {
    "score": Metric("Score", "%", lambda r: None if r.score is None else 100 * r.score),
    "top1": _share("top1", "Top-1", "classification"),
    "top5": _share("top5", "Top-5", "classification"),
    "accuracy": _share("accuracy", "Accuracy", "text", "vqa"),
    "mean_recall": _recall("Mean recall (Rsum / 6)", "mean_recall"),
    "rt1": _recall("R@1 image to text", "rt1"),
    "ri1": _recall("R@1 text to image", "ri1"),
    "rt_sum": _recall("Rt (sum of R@1, 5, 10)", "rt1", "rt5", "rt10"),
    "ri_sum": _recall("Ri (sum of R@1, 5, 10)", "ri1", "ri5", "ri10"),
    "rsum": _rsum("Rsum", "rsum"),
    "reranked_rt1": _recall("re-ranked R@1 image to text", "reranked_rt1"),
    "reranked_ri1": _recall("re-ranked R@1 text to image", "reranked_ri1"),
    "reranked_rt_sum": _recall("re-ranked Rt", "reranked_rt1", "reranked_rt5", "reranked_rt10"),
    "reranked_ri_sum": _recall("re-ranked Ri", "reranked_ri1", "reranked_ri5", "reranked_ri10"),
    "reranked_rsum": _rsum("re-ranked Rsum", "reranked_rsum"),
    "mme": Metric("MME perception", "points", _plain("perception_points"), ("vqa",)),
    "gmacs": Metric("GMACs", "GMACs", computed=True),
    "flops_x": Metric("FLOPs saved", "x", computed=True),
    "total_gmacs": Metric("GMACs, image and captions", "GMACs"),
    "eval_x": Metric("Speed-up of evaluation", "x", _speedup),
    "train_x": Metric("Speed-up of training", "x"),
    "contrastive_seconds": Metric("Time, contrastive scores alone", "s"),
    "seconds": Metric("Time", "s", lambda record: record.seconds),
    "spectral_distance": Metric("Spectral distance", "", _plain("spectral_distance"), ("theorem",)),
}
