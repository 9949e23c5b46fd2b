"""What the bench measured, kept cell by cell so that a killed bench goes on where it was."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pitome.errors import DataError
from pitome.records.files import write_atomically

OF_CELL = ("git_revision", "git_dirty", "load", "kernel")
"""Conditions that change from cell to cell; each keeps its own, under `measured`."""

ROOT = Path(__file__).parents[2]
CODE = ["pitome/adapters", "pitome/measure", "pitome/merge", "scripts/bench"]
"""What a time depends on."""

Parts = dict[str, dict[str, Any]]


class Record:
    """One JSON file: `conditions`, the cells of every part, `parts[part][key]`, and in `anew` the begun cells
    that are to replace those of other code.

    Code is other where `CODE` differs between two revisions, or where git cannot tell. Raises DataError
    for a file that is not a record, or that was measured under other conditions.
    """

    def __init__(self, path: Path, conditions: Mapping[str, Any]) -> None:
        self.path = path
        self.conditions = {name: value for name, value in conditions.items() if name not in OF_CELL}
        self.now = {name: conditions.get(name) for name in OF_CELL}
        self.parts: Parts = {}
        self.anew: Parts = {}
        self._told: set[tuple[str, str]] = set()
        if not path.exists():
            return
        try:
            stored = json.loads(path.read_text())
            before, self.parts, self.anew = stored["conditions"], stored["parts"], stored.get("anew", {})
            # Formerly a file said once, for all its cells, what each now says itself.
            for _, _, cell in cells(self.parts):
                cell.setdefault("measured", {name: before.get(name) for name in OF_CELL})
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise DataError(f"{path} is not a record of the bench ({problem}); remove it") from None
        for name, value in self.conditions.items():
            if (was := before.get(name)) != value:
                raise DataError(
                    f"{path} was measured with {name}={was}, not {value}; move it away to measure again"
                )

    def part(self, name: str) -> dict[str, Any]:
        """The cells of one part, by key."""
        return self.parts.setdefault(name, {})

    def find(self, part: str, key: str) -> dict[str, Any] | None:
        """The cell, finished or begun, if the code of now measured it. Says so where other code did."""
        for place in (self.parts, self.anew):
            cell: dict[str, Any] | None = place.get(part, {}).get(key)
            if cell is not None and self._same_code(cell):
                return cell
        old = self.parts.get(part, {}).get(key)
        if old is not None and (part, key) not in self._told:
            self._told.add((part, key))
            print(
                f"{part}: {key} was measured by other code ({short(old['measured'])}); it is measured again, "
                "and stays until that is done",
                file=sys.stderr,
            )
        return None

    def keep(self, part: str, key: str, cell: dict[str, Any], complete: bool = True) -> None:
        """Save a cell that has just been measured, or more of it. One of other code is replaced only by
        a complete one."""
        dirty = cell.get("measured", {}).get("git_dirty") or self.now["git_dirty"]
        cell["measured"] = self.now | {"git_dirty": dirty}
        old = self.parts.get(part, {}).get(key)
        if complete or old is None or old is cell:
            self.part(part)[key] = cell
            self.anew.get(part, {}).pop(key, None)
        else:
            self.anew.setdefault(part, {})[key] = cell
        self.save()

    def save(self) -> None:
        """Write the file in one step."""
        content = {"conditions": self.conditions, "parts": self.parts}
        content |= {"anew": begun} if (begun := {k: v for k, v in self.anew.items() if v}) else {}
        write_atomically(self.path, (json.dumps(content, indent=1) + "\n").encode())

    def _same_code(self, cell: Mapping[str, Any]) -> bool:
        return same_code(cell["measured"]["git_revision"], self.now["git_revision"])


def cells(parts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(part, key, cell) of every cell."""
    for part, by_key in parts.items():
        for key, cell in by_key.items():
            yield part, key, cell


def short(measured: Mapping[str, Any]) -> str:
    """The revision that measured a cell, in few letters."""
    revision = measured.get("git_revision")
    name = "no revision known" if revision is None else f"revision {revision[:7]}"
    return f"{name}, with uncommitted changes" if measured.get("git_dirty") else name


@functools.cache
def same_code(first: str | None, second: str | None) -> bool:
    """Whether `CODE` is the same at two revisions of this project; False where git cannot tell."""
    if first == second:
        return True
    if not all(name and re.fullmatch(r"[0-9a-f]{7,64}", name) for name in (first, second)):
        return False
    command = ["git", "-C", str(ROOT), "diff", "--quiet", str(first), str(second), "--", *CODE]
    try:
        return subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
