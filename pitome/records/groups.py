"""Which runs may stand in one table, and what each is called there."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from pitome.records.identity import UNMERGED, canonical
from pitome.records.schema import MEASURES, Record


def group(records: Iterable[Record]) -> list[list[Record]]:
    """Runs that may be compared: same task, model, weights, data and limit, precision, version.

    A run that failed before its weights or data were known joins a group it does not contradict.
    Within a group: superseded runs are left out, the unmerged model comes first, then the ratios
    from high to low.
    """
    records = list(records)
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in sorted(records, key=lambda record: (not record.done, _key(record).count(None))):
        key = _key(record)
        if not record.done:
            key = next((other for other in groups if _agrees(key, other)), key)
        groups.setdefault(key, []).append(record)
    return [sorted(_newest(members), key=_order) for _, members in sorted(groups.items(), key=_text)]


def digest(record: Record) -> str:
    """Eight hexadecimal digits that name the group of a finished run."""
    return hashlib.sha256(json.dumps(_key(record)).encode()).hexdigest()[:8]


def baseline(record: Record, members: Sequence[Record]) -> Record | None:
    """The unmerged run to compare `record` with: of the same seed if there is one."""
    unmerged = [m for m in members if m.done and m.method.name == UNMERGED]
    return min(unmerged, key=lambda m: (m.seed != record.seed, m.seed), default=None)


def labels(members: Sequence[Record]) -> dict[str, str]:
    """Run id -> name of the method, with the options (and seed) in which the runs differ."""
    by_method: dict[str, list[Record]] = defaultdict(list)
    for record in members:
        by_method[record.method.name].append(record)
    several_seeds = len({m.seed for m in members}) > 1
    names = {}
    for name, runs in by_method.items():
        # A failed run may have stopped before its options were resolved.
        known = [r.method.options for r in runs if r.method.options]
        differing = sorted(
            key
            for key in {key for options in known for key in options}
            if len({_word(options.get(key)) for options in known}) > 1
        )
        for run in runs:
            parts = [f"{key}={_word(run.method.options.get(key))}" for key in differing if run.method.options]
            parts += [f"seed {run.seed}"] if several_seeds else []
            names[run.run_id] = f"{name} ({', '.join(parts)})" if parts else name
    return names


def setting(record: Record) -> str:
    """How much was to be merged, in the words of the user: `0.925`, `r 16`, `FLOPs 0.8`, ...

    A ratio stands alone. One ratio that was applied instead of the asked one is added.
    """
    if record.method.name == UNMERGED:
        return "-"
    asked = dict(record.method.asked)
    parts = []
    if (ratio := asked.pop("ratio", None)) is not None:
        parts.append("per layer" if isinstance(ratio, list) else f"{ratio:g}")
        if record.method.ratio not in (None, ratio) and not isinstance(ratio, list):
            parts.append(f"applied {record.method.ratio:g}")
    if (r := asked.pop("r", None)) is not None:
        parts.append("r per layer" if isinstance(r, list) else f"r {r}")
    if (flops := asked.pop("flops", None)) is not None:
        parts.append(f"FLOPs {flops:g}")
        if record.method.ratio is not None:
            parts.append(f"ratio {record.method.ratio:.4g}")
    if not parts:
        parts.append("own schedule")
    parts += [f"{key} {_word(value)}" for key, value in asked.items() if value is not None]
    return ", ".join(parts)


def _key(record: Record) -> tuple[Any, ...]:
    """What must be equal; None where a failed run does not know it."""
    return (
        record.task,
        record.model.name,
        record.weights.name,
        record.weights.sha256,
        record.weights.random,
        record.seed if record.weights.random else 0,  # the seed makes the weights
        record.data.name,
        record.data.revision,
        record.data.split,
        "all" if record.data.limit is None else record.data.limit,
        record.precision,
        record.result_version,
    )


def _agrees(key: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(a == b or a is None for a, b in zip(key, other, strict=True))


def _text(item: tuple[tuple[Any, ...], Any]) -> tuple[str, ...]:
    """Sorts keys that hold None beside text."""
    return tuple(str(part) for part in item[0])


def _newest(members: Sequence[Record]) -> list[Record]:
    """One run per question: the best measured, then the newest; no failure that was made good."""
    best: dict[tuple[bool, str], Record] = {}
    for record in sorted(members, key=lambda r: (MEASURES.index(r.measure), r.started)):
        question = {name: value for name, value in record.identity.items() if name != "measure"}
        best[record.done, _word_of(question)] = record
    done = [r for r in best.values() if r.done]
    return done + [r for r in best.values() if not r.done and not any(_made_good(r, d) for d in done)]


def _made_good(failed: Record, done: Record) -> bool:
    """Whether `done` is a later success of what `failed` tried; it may not know its options."""
    return (
        failed.method.name == done.method.name
        and failed.seed == done.seed
        and failed.started <= done.started
        and (done.method.name == UNMERGED or _word_of(failed.method.asked) == _word_of(done.method.asked))
        and (not failed.method.options or _word_of(failed.method.options) == _word_of(done.method.options))
    )


def _order(record: Record) -> tuple[Any, ...]:
    share = record.method.ratio
    if share is None:
        share = record.cost.share if record.cost else 0.0
    name = record.method.name
    return (name != UNMERGED, -share, setting(record), name, _word_of(record.method.options), record.seed)


def _word_of(values: dict[str, Any]) -> str:
    """Equal for equal values, however they are written."""
    return json.dumps(canonical(values), sort_keys=True)


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "[...]" if len(value) > 4 else "[" + ", ".join(map(_word, value)) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
