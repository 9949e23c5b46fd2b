"""What a search leaves: a schedule file that `schedule=PATH` reads, and a card beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pitome.records.files import write_atomically
from pitome.records.markdown import escape, markdown_table
from pitome.search.space import Amount
from pitome.sources.schedule_file import MADE_FOR

UNITS = {
    "kl": "mean KL divergence of the outputs, nats",
    "cosine": "mean of 1 - cosine of the features",
}


@dataclass(frozen=True)
class Compared:
    """A schedule and how far the model that merges so is from the unmerged one."""

    name: str  # `uniform`, `best`, ...
    share: float  # of the unmerged cost, by the closed form
    disagreement: float
    speedup: str = ""  # with its interval; empty: not measured


@dataclass(frozen=True)
class FoundSchedule:
    """What a search came to."""

    folder: Path
    method: str
    model: str
    asked: str  # the target as it was asked for, e.g. flops0.6
    target: float  # share of the unmerged cost
    amount: Amount  # the best
    lists: Mapping[str, Sequence[int]] = field(default_factory=dict)  # instead of `amount`: DiffRate's two
    options: Mapping[str, Any] = field(default_factory=dict)  # of the method, those that were searched
    tokens: int | None = None  # entering the first layer; None: any number
    compared: Sequence[Compared] = ()  # the uniform schedule first, the best last
    compare: str = "kl"  # how, see `Probe`

    @property
    def path(self) -> Path:
        """Of the schedule file, whose name stands in tables."""
        return self.folder / f"{self.method}_{self.asked}.yaml"

    @property
    def card(self) -> Path:
        return self.path.with_suffix(".md")


def write(result: FoundSchedule, facts: Mapping[str, object], command: str, test: str) -> None:
    """Write file and card. facts: what else the card says; command: of the search; test: the one that
    compares the schedule with the uniform one. Raises RecordError."""
    made = {
        "method": result.method,
        "model": result.model,
        "flops": result.target,
        "tokens": result.tokens,
        "options": dict(result.options),
    }
    content = dict(result.lists or result.amount.arguments()) | {MADE_FOR: made}
    if "schedule" in content:
        content["merge_kept"] = content.pop("schedule")
    content = {name: content[name] for name in sorted(content, reverse=True)}
    text = "".join(f"{name}: {_flow(value)}\n" for name, value in content.items() if name != MADE_FOR)
    text = f"# {result.card.name} says how this was found\n{text}"
    text += yaml.safe_dump({MADE_FOR: made}, sort_keys=False)
    write_atomically(result.path, text.encode())
    write_atomically(result.card, card(result, facts, command, test).encode())


def card(result: FoundSchedule, facts: Mapping[str, object], command: str, test: str) -> str:
    """Where the schedule comes from and what it gives on the samples of the search."""
    timed = any(compared.speedup for compared in result.compared)
    header = ["schedule", "share of the unmerged FLOPs", UNITS[result.compare], *(["speed-up"] * timed)]
    rows = [
        [c.name, f"{c.share:.4f}", number(c.disagreement), *([c.speedup or "not measured"] * timed)]
        for c in result.compared
    ]
    table = markdown_table(header, rows, right=range(1, len(header)))
    said = markdown_table(["", ""], [[escape(key), escape(str(value))] for key, value in facts.items()])
    kept = result.lists or result.amount.arguments()
    shown = "; ".join(f"{name.replace('schedule', 'tokens kept')}: {_flow(v)}" for name, v in kept.items())
    options = " ".join(f"merge.options.{name}={value}" for name, value in result.options.items())
    return (
        f"# A schedule for merge={result.method} on {escape(result.model)}\n\n"
        f"Found with `{command}`.\n\n{table}\n\n"
        "The samples are held-out training samples; the test split was not read. The schedule was chosen on "
        "these very samples, so its number above flatters it. How it does on the test split:\n\n"
        f"```\n{test}\n```\n\n{shown}{f'; with {options}' if options else ''}\n\n{said}\n"
    )


def number(value: float) -> str:
    return "not finite" if math.isnan(value) else f"{value:.5f}"


def _flow(values: object) -> str:
    return str(yaml.safe_dump(values, default_flow_style=True, width=10_000)).strip()
