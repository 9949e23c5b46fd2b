"""Text and number formats that tables share."""

from __future__ import annotations

from collections.abc import Sequence

from pitome.paper.metrics import metric_label
from pitome.records.identity import CONTROLS, RESIZE, UNMERGED
from pitome.records.schema import Record
from pitome.records.settings import word
from pitome.records.statistics import Interval

NOTHING = "-"


def title(record: Record) -> str:
    return f"{record.task}: {record.model.name} on {record.data.name}"


def metric(members: Sequence[Record]) -> str:
    """Name of the headline metric, as tables write it."""
    return metric_label(members[0].headline.name)


def setting_name(members: Sequence[Record]) -> str:
    """Header of the setting column: `Ratio` if every row has one ratio or is unmerged, else `Setting`."""
    merged = [m for m in members if m.method.name not in (UNMERGED, RESIZE)]
    return "Ratio" if all(set(m.method.asked) == {"ratio"} for m in merged) else "Setting"


def caption(members: Sequence[Record]) -> list[str]:
    """Data, weights and conditions, on which every number below depends."""
    first = next((m for m in members if m.done), members[0])
    data, weights = first.data, first.weights
    samples = f"{data.n_samples:,} samples" if data.n_samples is not None else "no samples evaluated"
    if data.limit is not None:
        samples += f" (limit {data.limit:,}{', ' + data.selection if data.selection else ''})"
    skipped = max(m.data.n_skipped for m in members)
    seen = [f"Data: {data.name}", f"split {data.split or 'unknown'}", samples, f"{skipped} skipped"]
    seen += [f"revision {data.revision[:12]}"] if data.revision else []
    if first.mode == "train":
        origin = f"{weights.name}, trained anew by each run"
    elif weights.random:
        origin = f"random (seed {first.seed})"
    else:
        origin = f"{weights.name} ({weights.source}, sha256 {(weights.sha256 or 'unknown')[:12]})"
    places = sorted({m.environment.device for m in members if m.environment}) or ["unknown"]
    conditions = [f"Weights: {origin}", f"precision {first.precision}", f"device {', '.join(places)}"]
    conditions += [f"{key} {word(value)}" for key, value in first.identity.get("settings", {}).items()]
    conditions += [f"result version {first.result_version}"]
    lines = [", ".join(seen) + ".", ", ".join(conditions) + "."]
    if any(m.method.name.endswith("_repo") for m in members):
        lines.append(
            "Methods: a plain name is the method as its authors published it; with _repo, as the code of the "
            "PiToMe repository implements it."
        )
    known = {m.method.name for m in members}
    explanations = {
        "random": "random tokens are merged",
        "stride": "a fixed grid of tokens is kept, the others are merged into it",
        RESIZE: "the unmerged model sees a smaller image (height x width in pixels), at no more FLOPs",
    }
    if controls := [f"{name}: {explanations[name]}" for name in CONTROLS if name in known]:
        lines.append(f"Content-blind controls, which do not look at the tokens: {'; '.join(controls)}.")
    return lines


def giga(macs: int | None) -> str:
    """Four significant digits: models here span 0.01 to 1,000 GMACs."""
    return NOTHING if macs is None else f"{macs / 1e9:#.4g}".rstrip(".")


def points(interval: Interval | None) -> str:
    """Percentage points with their interval."""
    if interval is None:
        return NOTHING
    value, low, high = (f"{100 * x:+.2f}" for x in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def p_value(p: float) -> str:
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def number(value: float | None, unit: str) -> str:
    """A value in its unit: GMACs with four significant digits, everything else with two decimals."""
    if value is None:
        return NOTHING
    return f"{value:.4g}" if unit in ("GMACs", "") else f"{value:.2f}"
