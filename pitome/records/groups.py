"""Which runs are comparable and share a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from pitome.records.identity import UNMERGED
from pitome.records.schema import MEASURES, Record
from pitome.records.settings import order, training, word_of


def group(records: Iterable[Record]) -> list[list[Record]]:
    """Comparable runs: same task, model, weights, data and limit, precision, version.

    A run that failed before its weights or data were known joins a group it does not contradict.
    Runs in mode=train each have their own weights; runs of one training recipe form one group.
    Within a group: superseded runs are left out; the unmerged model comes first, then the settings
    from little to much merging, so that comparable runs are side by side, controls last.
    """
    records = list(records)
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in sorted(records, key=lambda record: (not record.done, _key(record).count(None))):
        key = _key(record)
        if not record.done:
            key = next((other for other in groups if _agrees(key, other)), key)
        groups.setdefault(key, []).append(record)
    return [sorted(_newest(members), key=order) for _, members in sorted(groups.items(), key=_text)]


def digest(record: Record) -> str:
    """Eight hexadecimal digits that name the group of a finished run."""
    return hashlib.sha256(json.dumps(_key(record)).encode()).hexdigest()[:8]


def baseline(record: Record, members: Sequence[Record]) -> Record | None:
    """The unmerged run to compare `record` with: one that was trained without merging, and of the same seed,
    if there is one."""
    unmerged = [m for m in members if m.done and m.method.name == UNMERGED]
    return min(unmerged, key=lambda m: (_merging(m), m.seed != record.seed, m.seed), default=None)


def _merging(record: Record) -> bool:
    """Whether an unmerged run tests weights that were trained with merging."""
    return record.config.get("trained_with") not in (None, UNMERGED)


def _key(record: Record) -> tuple[Any, ...]:
    """What comparable runs have in common; None for what a failed run does not know."""
    return (
        record.task,
        record.model.name,
        record.weights.name,
        _recipe(record) if record.mode == "train" else record.weights.sha256,
        record.weights.random,
        record.seed if record.weights.random else 0,  # the seed makes the weights
        record.data.name,
        record.data.revision,
        record.data.split,
        "all" if record.data.limit is None else record.data.limit,
        record.precision,
        record.result_version,
        *([word_of(settings)] if (settings := record.identity.get("settings")) else []),
    )


def _recipe(record: Record) -> str:
    """Replaces the checksum of trained weights, which differ from seed to seed. What is off counts as not
    there: an older record does not know what came later."""
    trainer = record.config.get("trainer") or {}
    return "trained: " + word_of({key: value for key, value in trainer.items() if value})


def _agrees(key: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(key) == len(other) and all(a == b or a is None for a, b in zip(key, other, strict=True))


def _text(item: tuple[tuple[Any, ...], Any]) -> tuple[str, ...]:
    """Sorts keys that hold None beside text."""
    return tuple(str(part) for part in item[0])


def _newest(members: Sequence[Record]) -> list[Record]:
    """One run per identity: the one measured most, then the newest; no failure that later succeeded."""
    best: dict[tuple[bool, str], Record] = {}
    for record in sorted(members, key=lambda r: (MEASURES.index(r.measure), r.started)):
        question = {name: value for name, value in record.identity.items() if name != "measure"}
        best[record.done, word_of(question)] = record
    done = [r for r in best.values() if r.done]
    return done + [r for r in best.values() if not r.done and not any(_made_good(r, d) for d in done)]


def _made_good(failed: Record, done: Record) -> bool:
    """Whether `done` is a later success of what `failed` tried; it may not know its options."""
    return (
        failed.method.name == done.method.name
        and failed.seed == done.seed
        and training(failed) == training(done)
        and failed.started <= done.started
        and (done.method.name == UNMERGED or word_of(failed.method.asked) == word_of(done.method.asked))
        and (not failed.method.options or word_of(failed.method.options) == word_of(done.method.options))
    )
