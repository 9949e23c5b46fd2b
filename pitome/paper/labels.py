"""What the paper calls the models, methods and data sets of a point. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from pitome.config import DEFAULT_RATIO
from pitome.fields import shown
from pitome.merge.schedule import shown_schedule
from pitome.paper import files
from pitome.paper.points import OPTIONS, REPO, TRAINED_WITH, Point
from pitome.records.identity import UNMERGED

R, FLOPS, SCHEDULE = (
    "r",
    "FLOPs",
    "schedule",
)  # what `LabelledPoint.ratio` begins with where it is not a ratio
AUTHORS, AS_PUBLISHED = "authors' code", "as published"  # parts of `LabelledPoint.variant`


@dataclass(frozen=True, kw_only=True)
class LabelledPoint:
    """A point and what its parts are called."""

    point: Point
    model: str
    method: str
    variant: str  # how it is run, in words
    ratio: str  # how much is merged: `0.925`, `r 8`, `FLOPs 0.5`, `schedule a.yaml`, `-` if unmerged
    data: str

    @property
    def amount_kind(self) -> str:
        """What `ratio` gives: R, FLOPS, SCHEDULE, or a ratio if empty."""
        return next((kind for kind in (R, FLOPS, SCHEDULE) if self.ratio.startswith(f"{kind} ")), "")

    @property
    def amount(self) -> float | None:
        """The number in `ratio`; None where there is none."""
        try:
            return float(self.ratio.removeprefix(self.amount_kind))
        except ValueError:
            return None


def label_point(point: Point, variant: str = "", case: str = "") -> LabelledPoint:
    """variant: words that come first in the label of the same name; case: the name of its options."""
    data = label("data", point.get("data", ""))
    return LabelledPoint(
        point=point,
        model=label("model", point.get("model", "")),
        method=label("merge", point.get("merge", "-")),
        variant=", ".join(part for part in (variant, case, *_variants(point, named=bool(case))) if part),
        ratio=_ratio(point),
        data=f"{data}, {point['limit']:,} samples" if "limit" in point else data,
    )


def label(group: str, name: object) -> str:
    """The paper's name for one of our models, methods or data sets; our own name where it has none."""
    return files.labels()[group].get(str(name), str(name))


def _variants(point: Point, *, named: bool) -> list[str]:
    """Whose code runs, the noise and, unless a case names them, the options."""
    name = str(point.get("merge", ""))
    published = name + REPO in files.labels()["merge"]
    parts = [AUTHORS if name.endswith(REPO) else AS_PUBLISHED if published else ""]
    parts += [f"noise {point['noise']:g}"] if "noise" in point else []
    if (training := point.get(TRAINED_WITH)) is not None:
        amount = _ratio(point | {"merge": training})
        how = "without merging" if training == UNMERGED else f"with {label('merge', training)} at {amount}"
        parts.append(f"trained {how}")
    options = {} if named else {key: value for key, value in point.items() if key.startswith(OPTIONS)}
    return [*parts, *(f"{key.rpartition('.')[2]}={value}" for key, value in options.items())]


def _ratio(point: Point) -> str:
    if point.get("merge") in (None, UNMERGED):
        return "-"
    if "r" in point:
        return f"{R} {point['r']}"
    if "flops" in point:
        where = f", layers {layers}" if isinstance(layers := point.get("layers"), str) else ""
        return f"{FLOPS} {point['flops']:g}{where}"
    if (schedule := shown_schedule(point.get("schedule"))) is not None:
        return f"{SCHEDULE} {shown(schedule)}"
    return f"{point.get('ratio', DEFAULT_RATIO):g}"
