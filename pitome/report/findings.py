"""What a table of runs means, in sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pitome.records.comparisons import Pair, to_controls, to_unmerged
from pitome.records.identity import CONTROLS
from pitome.records.rows import ResultRow
from pitome.report.cells import metric

_MOST = 3  # rows that are named


@dataclass(frozen=True)
class Ranking:
    """The methods at one setting of a group of runs, the best first; controls are none."""

    name: str  # of the setting
    rows: list[ResultRow]
    pair: Pair | None  # the best against the second, where both have outcomes


def rankings(rows: Sequence[ResultRow], pairs: Sequence[Pair]) -> list[Ranking]:
    """The ranking at each setting that has a scored method, in the order of `rows`."""
    points: dict[str, list[ResultRow]] = defaultdict(list)
    for row in rows:
        if row.merges and row.scored and row.method not in CONTROLS and row.point:
            points[row.point].append(row)
    out = []
    for here in points.values():
        higher = here[0].first.headline.higher_is_better
        ranked = sorted(here, key=lambda row: row.score or 0.0, reverse=higher)
        keys = {row.key for row in ranked[:2]}
        compared = (pair for pair in pairs if {pair.first.key, pair.second.key} == keys)
        out.append(Ranking(here[0].point_name, ranked, next(compared, None)))
    return out


def sentences(rows: Sequence[ResultRow], pairs: Sequence[Pair]) -> list[str]:
    """At most three: the best where most is merged, what costs no accuracy, who does not beat a control."""
    unmerged = next((row for row in rows if not row.merges and row.scored), None)
    ranked = rankings(rows, pairs)
    if unmerged is None or not ranked:
        return []
    name, said = metric([unmerged.first]), []
    if name[1:2].islower():  # not R@1
        name = name[0].lower() + name[1:]
    least = min(ranked, key=lambda ranking: _share(ranking.rows[0]))
    best = least.rows[0]
    text = f"Where most is merged ({_setting(least.name)}), {best.label} is best: {_score(best)} % {name} "
    text += f"against {_score(unmerged)} % unmerged{_cost(best)}"
    if len(least.rows) > 1:
        second, pair = least.rows[1], least.pair
        text += f"; second is {second.label} with {_score(second)} %"
        if pair is not None:
            text += ", significantly worse" if pair.significant else ", not significantly different"
    said.append(text + ".")
    against = to_unmerged(pairs)
    merged = [row for ranking in ranked for row in ranking.rows if row.key in against]
    free = [row for row in merged if not against[row.key].significant]
    if merged and free:
        cheapest = min(free, key=_share)
        said.append(
            f"Of {len(merged)} merged models {len(free)} are not significantly different from the unmerged "
            f"one; the cheapest of them is {cheapest.label} at {_setting(cheapest.point_name)}"
            f"{_cost(cheapest)}."
        )
    elif merged:
        said.append("Every merged model is significantly different from the unmerged one.")
    controls = to_controls(pairs)
    judged = {row.key: row for ranking in ranked for row in ranking.rows if controls.get(row.key)}
    beaten = [
        row for key, row in judged.items() if not all(p.significant and p.better for p in controls[key])
    ]
    if judged and beaten:
        names = ", ".join(f"{row.label} at {_setting(row.point_name)}" for row in beaten[:_MOST])
        said.append(
            f"Of {len(judged)} merged models {len(beaten)} are not significantly better than every "
            f"content-blind control at their setting{', among them' if len(beaten) > _MOST else ''}: {names}."
        )
    elif judged:
        said.append("Every method is significantly better than every content-blind control at its setting.")
    return said


def _wins(pair: Pair) -> bool:
    return pair.significant and pair.better


def _setting(name: str) -> str:
    """A bare number in the name of a setting is a ratio."""
    return f"ratio {name}" if name[:1].isdigit() else name


def _share(row: ResultRow) -> float:
    return 1.0 if row.share is None else row.share


def _cost(row: ResultRow) -> str:
    return "" if row.share is None else f", at {100 * row.share:.0f} % of the FLOPs"


def _score(row: ResultRow) -> str:
    return f"{100 * (row.score or 0.0):.2f}"
