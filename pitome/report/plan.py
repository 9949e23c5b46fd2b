"""What an experiment will take before it is started: runs, hours, disk, downloads. Imports no torch.

A run's time is its FLOPs over a speed. FLOPs are those of a recorded run of the point, or closed forms
(`pitome.paper.costs`). Speeds are those of recorded runs on the kind of device; where there are none, the
vendor's peak times the share of it that is reached. What is assumed is called so in the plan.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pitome.errors import CheckpointError, UsageError, nearest
from pitome.paper import costs
from pitome.paper.experiments import Experiment, choose
from pitome.paper.files import conf_file
from pitome.paper.matching import finished_runs
from pitome.paper.points import Point
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.report.rendering import Table
from pitome.report.status import duration
from pitome.sources.hub import cached_folder
from pitome.sources.weights import find_weights

CPU = "cpu"
PEAKS = {
    "v100": (15.7, 125.0), "t4": (8.1, 65.0), "l4": (30.3, 121.0), "l40s": (91.6, 362.0),
    "rtx3090": (35.6, 71.0), "rtx4090": (82.6, 165.2),
    "a100": (19.5, 312.0), "h100": (67.0, 989.0), "h200": (67.0, 989.0),
}  # fmt: skip
"""TFLOP/s of a kind of GPU in float32 (not TF32) and in 16 bits (dense, accumulated in float32), from the
vendor's data sheets; of the SXM form where there are several."""

REACHED = 0.6
"""Share of the peak that is reached. Measured on an RTX 4090: 2,847 images/s of DeiT-B (17.58 GMACs) with
mixed precision, timm's results/benchmark-infer-amp-nhwc-pt240-cu124-rtx4090.csv; assumed for the others."""

DECODED = 2_000.0
"""Images/s that 8 processes decode, at most: 280 of 500 x 375 pixels a core were measured on the CPU of
results/bench. Assumed for other processors."""

START = 10.0
"""Seconds to build a model and read its weights, assumed; in the measured speeds they are contained."""

SAMPLES = {"imagenet": (50_000, 1_281_167)}
"""Samples of the test and of the training split, of data without recorded runs whose FLOPs are known."""


@dataclass(frozen=True)
class Device:
    """Where a plan runs: `h100:4`, `cpu`."""

    kind: str
    count: int = 1

    @staticmethod
    def parse(text: str) -> Device:
        """Raises UsageError."""
        kind, _, count = text.partition(":")
        if kind not in (CPU, *PEAKS):
            raise UsageError(f"device={text}: unknown kind of device; {nearest(kind, [CPU, *PEAKS])}")
        if not re.fullmatch(r"[1-9]\d{0,5}|", count) or text.endswith(":"):
            raise UsageError(f"device={text}: give a number of devices, e.g. device={kind}:4")
        return Device(kind, int(count or 1))


@dataclass(frozen=True)
class Estimate:
    """What is expected of a run."""

    seconds: float | None  # None: nothing is known
    reason: str  # what it is made from
    assumed: bool


@dataclass(frozen=True)
class Speeds:
    """What recorded runs say of a kind of device."""

    macs: dict[str, float]  # by task: multiply-accumulates in a second, the median of its runs
    overall: float | None  # of all tasks

    @staticmethod
    def of(records: Iterable[Record], kind: str) -> Speeds:
        """Of runs that only tested; those that measured speed as well took longer."""
        by_task: dict[str, list[float]] = {}
        for record in records:
            if (work := work_of(record)) and kind_of(record) == kind and record.measure == "flops":
                by_task.setdefault(record.task, []).append(work / record.seconds)
        medians = {task: statistics.median(values) for task, values in by_task.items()}
        return Speeds(medians, statistics.median(medians.values()) if medians else None)


def work_of(record: Record) -> float | None:
    """Multiply-accumulates of a finished run; None where they are not known."""
    cost, samples = record.cost, record.data.n_samples
    if not record.done or cost is None or samples is None or record.mode != "test" or record.seconds <= 0:
        return None
    return float(cost.macs * samples)


def kind_of(record: Record) -> str:
    """The kind of device that a run was made on, `cpu` or one of PEAKS; empty for another."""
    device = (record.environment.device if record.environment else "").lower().replace(" ", "")
    return next((kind for kind in (CPU, *sorted(PEAKS, key=len, reverse=True)) if kind in device), "")


def estimate(
    point: Point,
    experiment: Experiment,
    device: Device,
    records: Sequence[Record],
    speeds: Speeds,
    half: bool,
) -> Estimate:
    """What a run of a point will take, on one device."""
    task, train = str(point.get("task", "classification")), point.get("mode") == "train"
    known = None if train else next(iter(reversed(finished_runs(point, records))), None)
    work = work_of(known) if known is not None else None
    images = (known.data.n_samples if known is not None else None) or 0
    source = "recorded FLOPs"
    data = str(point.get("data", ""))
    if work is None and data in SAMPLES and (cost := costs.find(point, "gmacs")) is not None:
        images, source = SAMPLES[data][train], "closed-form FLOPs"
        if train:
            stages = conf_file("trainer", data).get("stages") or []
            images *= sum(stage["epochs"] for stage in stages)
        # A step of training costs about three passes: forward, and twice that backward.
        work = cost.value * 1e9 * images * (3 if train else 1)
    if work is None and device.kind == CPU:
        return Estimate(None, "nothing: neither FLOPs nor times on a CPU are known", assumed=False)
    if work is None:
        needs = experiment.item.needs
        hours = needs.gpu_hours_training if train else needs.gpu_hours
        seconds = hours * 3600 / max(len(experiment.points), 1)
        return Estimate(seconds, "the experiment's own figure, gpu_hours", assumed=True)
    measured = speeds.macs.get(task, speeds.overall)
    if measured is not None:
        assumed = task not in speeds.macs
        reason = f"{source}, measured speed" + (" of other tasks" if assumed else "")
        return Estimate(work / measured, reason, assumed)
    peak = PEAKS[device.kind][half]
    seconds = max(work / (peak * 1e12 * REACHED / 2), images / DECODED)
    return Estimate(START + seconds, f"{source}, {REACHED:.0%} of the peak", device.kind != "rtx4090")


def errors(records: Sequence[Record], kind: str = CPU) -> list[float]:
    """How far the plan is from each recorded run: the larger of planned and recorded time over the smaller,
    ascending. The planned time knows all recorded runs but that one."""
    known = [r for r in records if work_of(r) and kind_of(r) == kind and r.measure == "flops"]
    factors = []
    for record in known:
        others = Speeds.of([other for other in known if other is not record], kind)
        speed = others.macs.get(record.task, others.overall)
        if speed is not None:
            planned = (work_of(record) or 0.0) / speed
            factors.append(max(planned / record.seconds, record.seconds / planned))
    return sorted(factors)


def from_words(words: Sequence[str], local: Store, published: Sequence[Record]) -> Table:
    """The plan that `table5 device=h100:4 precision=16-mixed` asks for. Raises UsageError."""
    names = [word for word in words if "=" not in word]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    for key in given.keys() - {"device", "precision"}:
        raise UsageError(f"plan takes no {key}=; {nearest(key, ['device', 'precision', 'results'])}")
    if not names:
        raise UsageError("plan needs an experiment, e.g. plan table5 device=h100:4")
    precision = given.get("precision", "32")
    if precision not in ("32", "16-mixed", "bf16-mixed"):
        raise UsageError(f"precision={precision} is not planned; give 32, 16-mixed or bf16-mixed")
    device = Device.parse(given.get("device", CPU))
    return to_table(names, device, local, published, precision)


def to_table(
    names: Sequence[str], device: Device, local: Store, published: Sequence[Record], precision: str
) -> Table:
    """The plan of these experiments on a device. Raises UsageError for one that is no sweep."""
    own, half = local.all(), precision != "32"
    records = [*published, *own]
    if device.kind == CPU and half:
        raise UsageError("device=cpu is planned with precision=32 alone")
    speeds = Speeds.of([r for r in records if (r.precision != "32") is half], device.kind)
    if device.kind == CPU and speeds.overall is None:
        raise UsageError("device=cpu needs recorded runs, whose speed it takes; there are none")
    rows, notes = [], []
    for name in names:
        experiment = choose(name)
        if not experiment.sweeps or not experiment.points:
            reason = experiment.why_no_points if experiment.sweeps else "is not a sweep"
            raise UsageError(f"{name} {reason}")
        pending = [point for point in experiment.points if not finished_runs(point, own)]
        expected = [estimate(point, experiment, device, records, speeds, half) for point in pending]
        seconds = _sum(expected)
        count = len(experiment.points)
        rows.append(
            [
                name,
                str(count),
                str(count - len(pending)),
                hours(seconds),
                "-" if not pending else duration(None if seconds is None else seconds / device.count),
            ]
        )
        for reason in dict.fromkeys(run.reason for run in expected):
            part = [run for run in expected if run.reason == reason]
            assumed = " (assumed)" if any(run.assumed for run in part) else ""
            notes.append(f"{name}: {len(part)} runs from {reason}{assumed}: {hours(_sum(part))} hours")
        needs = experiment.item.needs
        if not experiment.offline:
            notes.append(f"{name}: disk: about {needs.disk_gb:g} GB of checkpoints and data, if none is here")
            notes += [f"{name}: download: {line}" for line in [*downloads(pending), *needs.data]]
        else:
            notes.append(f"{name}: nothing to download; disk: {disk(pending, published)}")
    what = "CPU" if device.kind == CPU else "GPU"
    notes.append(
        "A device is one machine's CPU." if device.kind == CPU
        else f"Peaks are the vendor's; {REACHED:.0%} of them was measured on an RTX 4090 and is assumed "
        f"elsewhere, as are {DECODED:,.0f} decoded images/s and {START:g} s to start a run."
    )  # fmt: skip
    notes.append(error_note(errors(published)))
    return Table(
        title=f"Plan on {device.count} x {device.kind}, precision {precision}",
        caption=[],
        header=["Experiment", "Runs", "Done", f"{what} hours", "Wall time"],
        rows=rows,
        notes=notes,
    )


def _sum(runs: Sequence[Estimate]) -> float | None:
    """Seconds of these runs; None where one is not known."""
    known = [run.seconds for run in runs if run.seconds is not None]
    return sum(known) if len(known) == len(runs) else None


def downloads(points: Sequence[Point]) -> list[str]:
    """The checkpoints that these points need and that are not here."""
    lines = []
    for name in dict.fromkeys(str(point["model"]) for point in points if "model" in point):
        checkpoint = str(conf_file("model", name).get("checkpoint") or "")
        try:
            weights = find_weights(name, checkpoint, "pretrained")
        except CheckpointError:
            lines += [f"{name}: {checkpoint}, by hand"] if checkpoint else []
            continue
        if (
            weights.source == "hub"
            and cached_folder(weights.name, "*", revision=weights.revision or "main") is None
        ):
            lines.append(f"{name}: {weights.name}, from the hub")
    return lines


def disk(points: Sequence[Point], records: Sequence[Record]) -> str:
    """What records and outcomes of these points will take, from those published of the same points."""
    rows = [run.outcomes.rows for p in points for run in finished_runs(p, records)[-1:] if run.outcomes]
    return f"about {max((sum(rows) * 10 + len(points) * 6_000) / 1e6, 0.1):.1f} MB of records"


def error_note(factors: Sequence[float]) -> str:
    """The error of planned times on the offline runs."""
    if not factors:
        return "Error: not known, there are no recorded runs."
    middle, nine = (factors[int(share * (len(factors) - 1))] for share in (0.5, 0.9))
    return (
        f"Error, planned against recorded times of the {len(factors)} published offline runs, each planned "
        f"from the others: half are within a factor of {middle:.2f}, nine in ten within {nine:.2f} "
        "(with other work on the machine). Speeds of a GPU were compared with no run."
    )


def hours(seconds: float | None) -> str:
    """`12.3`, `0.05`; `unknown` for None."""
    if seconds is None:
        return "unknown"
    value = seconds / 3600
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
