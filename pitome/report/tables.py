"""Tables of runs: quality and cost, who beats whom, speed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pitome.records.comparisons import Pair, pairs, to_controls, to_unmerged
from pitome.records.groups import group
from pitome.records.identity import CONTROLS, RESIZE, UNMERGED
from pitome.records.rows import Outcomes, ResultRow, identical, rows
from pitome.records.schema import Record, Throughput
from pitome.records.statistics import LEVEL
from pitome.report.cells import NOTHING, caption, giga, metric, p_value, points, setting_name, title
from pitome.report.findings import sentences
from pitome.report.rendering import Table, show, to_markdown, write_markdown

__all__ = ["Outcomes", "Table", "build", "show", "to_markdown", "write_markdown"]

_PARTS = {
    "Encoder s": ("encoder_s", "encoder_s_unmerged"),
    "Method s": ("method_s", None),
    "Prefill s": ("prefill_s", "prefill_s_unmerged"),
    "Decode tokens/s": ("decode_tokens_per_s", "decode_tokens_per_s_unmerged"),
}
_PARTS_NOTE = (
    "Parts of a whole batch, merged / unmerged: seconds of image tower and projector, of the method after "
    "them, of the prompt through the language model; tokens per second after the first."
)
OVERVIEW_FROM = 4  # settings; fewer are seen at a glance without a table of their own


@dataclass(frozen=True)
class Results:
    """One group of comparable runs: all that its tables need."""

    members: list[Record]
    rows: list[ResultRow]
    pairs: list[Pair]
    same: set[str]  # names of rows whose seeds gave identical outcomes


def build(records: Sequence[Record], outcomes: Outcomes) -> list[Table]:
    """The tables of all runs: for each group of comparable runs an overview if there are many
    settings, quality and cost, and comparisons; then speed."""
    all_results = [_results(members, _remembered(outcomes)) for members in group(records)]
    tables: list[Table] = []
    for results in all_results:
        many = overview(results)
        tables += [many] if many else []
        tables.append(quality(results, folded=many is not None))
        tables += [table] if (table := comparisons(results, folded=many is not None)) else []
    return tables + [table for results in all_results if (table := speed(results)) is not None]


def overview(results: Results) -> Table | None:
    """One number per method and setting; None where there are few settings or one method."""
    cells: dict[str, dict[str, ResultRow]] = defaultdict(dict)  # point -> column -> row
    for row in results.rows:
        if row.point:
            # of several `resize` at one setting the one that costs most, which comes first
            cells[row.point].setdefault(_column(row), row)
    columns = sorted({column for here in cells.values() for column in here}, key=_controls_last)
    if len(cells) < OVERVIEW_FROM or len(columns) < 2:
        return None
    unmerged, controls, best = to_unmerged(results.pairs), to_controls(results.pairs), _best(results.rows)
    lines, bold = [], set()
    for i, here in enumerate(cells.values()):
        line = [next(iter(here.values())).point_name, _costs(list(here.values()))]
        for j, column in enumerate(columns, 2):
            if (cell := here.get(column)) is None:
                line.append(NOTHING)
                continue
            same = cell.key in unmerged and not unmerged[cell.key].significant
            beaten = all(pair.significant and pair.better for pair in controls.get(cell.key, []))
            marks = "=" * same + "!" * (not beaten)
            line.append(f"{marks} {_score(cell)}" if marks else _score(cell))
            if cell.key in best:
                bold.add((i, j))
        lines.append(line)
    base = next((row for row in results.rows if not row.merges and row.scored), None)
    name = metric(results.members)
    notes = [f"{name} in percent" + (f"; unmerged: {_score(base)}." if base else ".")]
    if unmerged:
        notes.append("=: not significantly different from the unmerged model.")
    if controls:
        notes.append("!: not significantly better than every control at its setting.")
    notes.append("Cost %: FLOPs as a share of the unmerged model's, lowest to highest of the row's methods.")
    notes.append("Bold: the best at its setting.")
    return Table(
        title=f"{title(results.members[0])}: overview",
        caption=caption(results.members),
        header=["Setting", "Cost %", *columns],
        rows=lines,
        notes=notes,
        bold=bold,
        findings=sentences(results.rows, results.pairs),
    )


def quality(results: Results, *, folded: bool = False) -> Table:
    """What merging loses in quality and saves in computation, for one group of runs."""
    members = results.members
    unmerged, controls = to_unmerged(results.pairs), to_controls(results.pairs)
    name = metric(members)
    whole = any(row.whole for row in results.rows)
    authors = not whole and any(m.cost and m.cost.authors_macs is not None for m in members)
    header = ["Method", setting_name(members), *(["Place"] if whole else []), "Tokens left"]
    header += ["Tower GMACs", "GMACs"] if whole else ["GMACs"]
    header += ["GMACs (authors)"] if authors else []
    header += ["Cost %", "Plan %", f"{name} %", "Difference [95 % interval]"]
    header += ["Beats controls"] if controls else []
    lines = []
    for row in results.rows:
        cost = row.first.cost
        line = [_name(row), row.setting, *([_place(row)] if whole else []), _tokens(row.first)]
        line += [giga(cost.macs if cost else None)] if whole else []
        line += [giga(row.macs)]
        line += [giga(cost.authors_macs if cost else None)] if authors else []
        line += [NOTHING if row.share is None else f"{100 * row.share:.1f}", _plan(row)]
        pair = unmerged.get(row.key)
        line += [_score(row, _name(row) in results.same), points(pair.result.difference if pair else None)]
        if controls:
            against = controls.get(row.key, [])
            won = sum(comparison.significant and comparison.better for comparison in against)
            line += [f"{won} of {len(against)}" if against else NOTHING]
        lines.append(line)
    return Table(
        title=title(members[0]),
        caption=caption(members),
        header=header,
        rows=lines,
        notes=_notes(results, authors),
        bold={
            (i, header.index(f"{name} %"))
            for i, row in enumerate(results.rows)
            if row.key in _best(results.rows)
        },
        remarks={i: f"failed: {row.first.error}" for i, row in enumerate(results.rows) if not row.first.done},
        sections=_sections([row.point for row in results.rows]),
        folded=folded,
        aside=folded,
        findings=[] if folded else sentences(results.rows, results.pairs),
        names=2,
        first=("Cost %", f"{name} %", "Difference [95 % interval]", "Beats controls"),
    )


def comparisons(results: Results, *, folded: bool = False) -> Table | None:
    """Who beats whom, and whether significantly; None where nothing is compared but one row with the
    unmerged model."""
    compared = results.pairs
    if len(compared) < 2:
        return None
    first = compared[0].result
    binary = all(pair.result.binary for pair in compared)
    test = (
        "McNemar's exact test" if binary else "a sign-flip test (McNemar's where answers are right or wrong)"
    )
    several = len({(pair.first.first.run_id, pair.second.first.run_id) for pair in compared})
    return Table(
        title=f"{title(results.members[0])}: comparisons",
        caption=[
            "Each row against the unmerged model, each method against the controls at its setting, the best "
            f"method against the runner-up. Differences of {metric(results.members)} in percentage points, "
            f"over {first.difference.n:,} samples."
        ],
        header=[
            *("Setting", "First", "against", "Difference [95 % interval]"),
            *("McNemar p" if binary else "p", "Holm p", "Verdict"),
        ],
        rows=[
            [
                pair.first.point_name,
                _name(pair.first),
                _name(pair.second),
                points(pair.result.difference),
                p_value(pair.result.p),
                p_value(pair.adjusted),
                pair.verdict,
            ]
            for pair in compared
        ],
        notes=[
            f"p: {test}, two-sided. p and interval (paired bootstrap) are those of one comparison, "
            "uncorrected.",
            f"Holm p: corrected for all {several} comparisons of the table. Significant: below {LEVEL:g}.",
        ],
        text={0, 1, 2, 6},
        sections=_sections([pair.first.point for pair in compared]),
        folded=folded,
        aside=True,
        names=3,
    )


def speed(results: Results) -> Table | None:
    """Measured throughput; None if no run of the group was timed."""
    timed = [(row, run, run.throughput) for row in results.rows for run in row.runs if run.throughput]
    timed = [(row, run, t) for row, run, t in timed if run.done]
    if not timed:
        return None
    seeds = len({run.seed for _, run, _ in timed}) > 1
    texts = all(t.tokens_per_s is not None for _, _, t in timed)
    unit = "texts" if texts else "images"
    parts = any(t.prefill_s is not None for _, _, t in timed)
    lines = [
        [
            f"{row.label} (seed {run.seed})" if seeds else row.label,
            row.setting,
            _rate(t.images_per_s_unmerged),
            _rate(t.images_per_s),
            *([_rate(t.tokens_per_s)] if texts and t.tokens_per_s else []),
            f"{t.speedup:.2f} [{t.speedup_low:.2f}, {t.speedup_high:.2f}]",
            str(t.pairs),
            str(t.batch),
            t.device,
            str(t.threads),
            *([_pair(t, *names) for names in _PARTS.values()] if parts else []),
        ]
        for row, run, t in timed
    ]
    header = ["Method", setting_name(results.members), f"Unmerged {unit}/s", f"Merged {unit}/s"]
    header += ["Merged tokens/s"] if texts else []
    header += ["Speed-up [95 % interval]", "Pairs", "Batch", "Device", "Threads", *(_PARTS if parts else {})]
    return Table(
        title=f"{title(results.members[0])}: speed",
        caption=caption([run for _, run, _ in timed]),
        header=header,
        rows=lines,
        notes=[
            "The two sides of a row were timed alternately in the same run; the speed-up is the median of "
            f"its pairs. {unit.capitalize()}/s of different rows were measured at different times: do not "
            "compare them."
        ]
        + (["Tokens/s: of the input, without padding."] if texts else [])
        + ([_PARTS_NOTE] if parts else []),
        text={0, header.index("Device")},
        names=2,
        first=("Speed-up [95 % interval]", "Device"),
    )


def _pair(timing: Throughput, merged: str, unmerged: str | None) -> str:
    """Merged and unmerged, where both are known."""
    values = [getattr(timing, name) for name in (merged, unmerged) if name is not None]
    return " / ".join(NOTHING if value is None else f"{value:.3g}" for value in values)


def _results(members: list[Record], outcomes: Outcomes) -> Results:
    made = rows(members)
    same = {_name(row) for row in made if row.scored and identical(row, outcomes)}
    return Results(members, made, pairs(made, outcomes), same)


def _remembered(outcomes: Outcomes) -> Outcomes:
    """`outcomes`, each file read once."""
    known: dict[str, object] = {}

    def read(record: Record):  # type: ignore[no-untyped-def]
        if record.run_id not in known:
            known[record.run_id] = outcomes(record)
        return known[record.run_id]

    return read


def _notes(results: Results, authors: bool) -> list[str]:
    members, notes, name = results.members, [], metric(results.members)
    if any(m.cost for m in members):
        if any(row.whole for row in results.rows):
            notes.append(
                "GMACs and Cost %: of a whole question, from image tower to the first token of the answer. "
                "Tokens left: at the place, of an image (projector) or of the prompt (language)."
            )
        per = "question" if any(row.whole for row in results.rows) else "sample"
        notes.append(
            f"GMACs per {per}. Cost %: FLOPs as a share of the unmerged model's. Plan %: the share of a "
            "row's own MACs that is spent on deciding what to merge."
        )
    if authors:
        unmerged = {m.cost.unmerged_authors_macs for m in members if m.cost} - {None}
        stated = f" (unmerged {', '.join(sorted(giga(m) for m in unmerged))})" if unmerged else ""
        notes.append(f"GMACs (authors): counted as the PiToMe repository counts them{stated}.")
    if members[0].weights.random:
        notes.append(f"{name} is left out: with random weights it has no meaning.")
        return notes
    compared = to_unmerged(results.pairs)
    if compared:
        counts = ", ".join(f"{n:,}" for n in sorted({p.result.difference.n for p in compared.values()}))
        notes.append(
            "Difference from the unmerged model in percentage points, with the 95 % interval of a paired "
            f"bootstrap over {counts} samples."
        )
    merged = [row for row in results.rows if row.scored and row.merges]
    if merged and not any(row.scored and not row.merges for row in results.rows):
        notes.append("The difference needs merge=none with the same model, data and limit: run it too.")
    elif any(row.key not in compared for row in merged):
        notes.append(
            "A difference is left out where per-sample outcomes are missing: overwrite=all makes them."
        )
    if any(len(row.runs) > 1 and _name(row) not in results.same for row in results.rows):
        notes.append(
            "±: standard deviation over the seeds, beside their mean. Differences are those of each sample's "
            "mean over the seeds; their intervals do not say how much another seed would change."
        )
    if results.same:
        several = ", ".join(sorted(results.same))
        notes.append(f"Identical outcomes with every seed, hence no deviation: {several}.")
    if to_controls(results.pairs):
        notes.append(
            "Beats controls: how many controls at its setting the row is significantly better than (see the "
            "comparisons)."
        )
    return notes


def _costs(here: Sequence[ResultRow]) -> str:
    """Least and most cost of the methods of one setting, in whole percent."""
    shares = [100 * row.share for row in here if row.share is not None and row.method not in CONTROLS]
    if not shares:
        return NOTHING
    low, high = f"{min(shares):.0f}", f"{max(shares):.0f}"
    return low if low == high else f"{low}-{high}"


def _name(row: ResultRow) -> str:
    return f"{row.label} ({len(row.runs)} seeds)" if len(row.runs) > 1 else row.label


def _column(row: ResultRow) -> str:
    return row.method if row.method == RESIZE else row.label


def _controls_last(column: str) -> tuple[int, str]:
    return CONTROLS.index(column) if column in CONTROLS else -1, column


def _best(table: Sequence[ResultRow]) -> set[tuple[str, str]]:
    """Rows (their keys) with the best score at their setting, where there is a choice."""
    rivals: dict[str, list[ResultRow]] = defaultdict(list)
    for row in table:
        if row.scored and row.point:
            rivals[row.point].append(row)
    best = set()
    for here in rivals.values():
        pick = max if here[0].first.headline.higher_is_better else min
        top = pick(row.score or 0.0 for row in here)
        best |= {row.key for row in here if row.score == top} if len(here) > 1 else set()
    return best


def _sections(names: Sequence[str]) -> set[int]:
    """Indices at which another setting begins."""
    return {i for i in range(1, len(names)) if names[i] != names[i - 1]}


def _tokens(record: Record) -> str:
    if not record.tokens:
        return NOTHING
    return f"{record.tokens[-1]:.4g}/{record.tokens[0]:.4g}"


def _score(row: ResultRow, same: bool = False) -> str:
    if not row.first.done:
        return "failed"
    if row.score is None:
        return NOTHING
    text = f"{100 * row.score:.2f}"
    if len(row.runs) > 1 and not same:
        text += f" ± {100 * (row.deviation or 0.0):.2f}"
    return text


def _plan(row: ResultRow) -> str:
    cost = row.first.cost
    if cost is None or cost.plan_macs is None or not row.macs or row.method in (UNMERGED, RESIZE):
        return NOTHING
    after = cost.answering.method_macs if row.whole and cost.answering else 0
    return f"{100 * (cost.plan_macs + after) / row.macs:.2f}"


def _place(row: ResultRow) -> str:
    method = row.first.method
    if method.place is None:
        return "tower" if row.merges else NOTHING
    return f"tower, {method.place}" if "tower" in method.asked else method.place


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
