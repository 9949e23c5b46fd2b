"""From the times of a record to speed-ups, saved shares and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pitome.measure.throughput import LEAST_PAIRS, median_interval

UNMERGED, CUT = "none", "cut"


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; None where there are too few values for one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Result:
    """One merged variant beside the unmerged one."""

    group: Mapping[str, Any]
    method: str
    predicted: float  # FLOPs unmerged / merged
    speedup: Interval  # median of the rounds' ratios
    saved: Interval | None  # reached share of the predicted time saving, (1 - 1/speedup) / (1 - 1/predicted)
    of_cut: Interval | None  # reached share of the time that `cut` saves; None where it was not timed
    rounds: int
    seconds: float
    seconds_unmerged: float
    memory: tuple[int, int] | None  # bytes a forward takes beside the weights, merged and unmerged

    @property
    def complete(self) -> bool:
        """Whether all rounds that were asked for are there."""
        return self.rounds >= int(self.group["pairs"])


def results(cells: Mapping[str, Any]) -> list[Result]:
    """All merged variants of the record's part `speed` that have been timed at least once."""
    return [
        _result(cell, method)
        for cell in cells.values()
        if cell["rounds"]
        for method in cell["group"]["methods"]
    ]


def _result(cell: Mapping[str, Any], method: str) -> Result:
    merged, plain = (np.array([row[name] for row in cell["rounds"]]) for name in (method, UNMERGED))
    speedup = estimate(plain / merged)
    predicted = cell["macs"][UNMERGED] / cell["macs"][method]
    memory = [cell.get("memory", {}).get(name) for name in (method, UNMERGED)]
    return Result(
        group=cell["group"],
        method=method,
        predicted=predicted,
        speedup=speedup,
        saved=_saved(speedup, predicted),
        of_cut=_of_cut(cell["rounds"], merged, plain),
        rounds=len(merged),
        seconds=float(np.median(merged)),
        seconds_unmerged=float(np.median(plain)),
        memory=None if None in memory else (memory[0], memory[1]),
    )


def _saved(speedup: Interval, predicted: float) -> Interval | None:
    """The share of the predicted saving, with its interval; None where FLOPs predict none."""
    if predicted <= 1:
        return None
    low, high = (
        None if bound is None else saved_share(bound, predicted) for bound in (speedup.low, speedup.high)
    )
    return Interval(saved_share(speedup.value, predicted), low, high)


def _of_cut(rounds: Sequence[Mapping[str, float]], merged: np.ndarray, plain: np.ndarray) -> Interval | None:
    """Of the time that `cut` saves, what a method does, round by round, [n] each."""
    if any(CUT not in row for row in rounds):
        return None
    floor = np.array([row[CUT] for row in rounds])
    saves = float(np.median(plain - floor))
    # By the median saving of all rounds: that of one may be near 0 on a busy machine.
    return None if saves <= 0 else estimate(1 - (merged - floor) / saves)


def estimate(values: np.ndarray) -> Interval:
    """The median of `values` [n] with its interval from order statistics."""
    middle = float(np.median(values))
    return Interval(middle) if len(values) < LEAST_PAIRS else Interval(middle, *median_interval(values))


def saved_share(speedup: float, predicted: float) -> float:
    """Share of the predicted time saving that a speed-up reaches; 1 is the limit that FLOPs set."""
    return (1 - 1 / speedup) / (1 - 1 / predicted)


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log(seconds) against log(sizes), by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


MET, MISSED, UNCLEAR, OPEN = "met", "missed", "cannot tell", "not measured"


@dataclass(frozen=True)
class Target:
    """A row of the table of targets: what was asked for, what was found."""

    name: str
    wanted: str
    found: str
    verdict: str


def at_least(name: str, bound: float, measured: Interval | None, show: Any) -> Target:
    """A target from below, judged by the whole interval where there is one."""
    wanted = f">= {show(bound)}"
    if measured is None:
        return Target(name, wanted, "", OPEN)
    low = measured.value if measured.low is None else measured.low
    high = measured.value if measured.high is None else measured.high
    verdict = MET if low >= bound else MISSED if high < bound else UNCLEAR
    return Target(name, wanted, interval(measured, show), verdict)


def at_most(name: str, bound: float, measured: float | None, show: Any) -> Target:
    """A target from above, of one number."""
    if measured is None:
        return Target(name, f"<= {show(bound)}", "", OPEN)
    return Target(name, f"<= {show(bound)}", show(measured), MET if measured <= bound else MISSED)


def interval(measured: Interval, show: Callable[[float], str]) -> str:
    """`value [low, high]`."""
    if measured.low is None or measured.high is None:
        return show(measured.value)
    return f"{show(measured.value)} [{show(measured.low)}, {show(measured.high)}]"
