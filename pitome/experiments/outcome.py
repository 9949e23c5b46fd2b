"""What an experiment says of its item: one row per value, with a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WITHIN, OUTSIDE, NOT_RUN = "within", "outside", "not run"
VERDICTS = (WITHIN, OUTSIDE, NOT_RUN)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One value of a table or figure beside what was measured, all in `unit`.

    point: the overrides of its run (`{"model": "deit_s", "merge": "tome_repo", "ratio": 0.925}`); empty
    where a number of another work is only quoted. model, method, variant, ratio, data: labels.
    metric: name of what is compared; unit: `%`, `Rsum`, `GMACs`, `x`, `points`, ...
    printed: by the paper; logged: by the authors' result files; published: by this project, of offline
    experiments alone; None where there is none. measured: by the run, or computed from the architecture
    where the metric needs no run. interval: 95 % of the measured value alone.
    difference: measured minus printed, or minus logged (or published) where nothing is printed.
    verdict: `within` the tolerance, `outside`, or `not run`; reason: why it was not run, or what else
    is to be said. command: the run's; run_id: of its record.
    """

    point: Mapping[str, Any]
    model: str
    method: str
    variant: str
    ratio: str
    data: str
    metric: str
    unit: str
    printed: float | None = None
    logged: float | None = None
    published: float | None = None
    measured: float | None = None
    interval: tuple[float, float] | None = None
    difference: float | None = None
    tolerance: float | None = None
    verdict: str = NOT_RUN
    reason: str = ""
    command: str = ""
    run_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One experiment. name: as in `experiment=<name>`; title: what it is; item: `Table 5`, `Figure 3`;
    command: runs it; needs, expect: in words; offline: whether the rows are this project's own models
    and never the paper's numbers."""

    name: str
    title: str
    item: str
    command: str
    needs: str
    expect: str
    offline: bool
    rows: list[Row] = field(default_factory=list)

    def count(self, verdict: str) -> int:
        """Rows with this verdict."""
        return sum(row.verdict == verdict for row in self.rows)
