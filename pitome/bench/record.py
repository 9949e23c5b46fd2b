"""What the bench measured, kept cell by cell so that a killed bench goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pitome.errors import DataError
from pitome.records.files import write_atomically


class Record:
    """One JSON file: `conditions`, and the cells of every part, `parts[part][key]`.

    Raises DataError for a file that is none, or that was measured under other conditions.
    """

    def __init__(self, path: Path, conditions: dict[str, Any]) -> None:
        self.path = path
        self.conditions = conditions
        self.parts: dict[str, dict[str, Any]] = {}
        if not path.exists():
            return
        try:
            found = json.loads(path.read_text())
            before, self.parts = found["conditions"], found["parts"]
        except (ValueError, KeyError, TypeError) as problem:
            raise DataError(f"{path} is no record of the bench ({problem}); remove it") from None
        for name in conditions:
            if (found := before.get(name)) != conditions[name] and name not in _MAY_CHANGE:
                raise DataError(
                    f"{path} was measured with {name}={found}, not {conditions[name]}; "
                    "move it away to measure anew"
                )

    def part(self, name: str) -> dict[str, Any]:
        """The cells of one part, by key; to be changed in place and then saved."""
        return self.parts.setdefault(name, {})

    def save(self) -> None:
        """Write the file in one step."""
        content = {"conditions": self.conditions, "parts": self.parts}
        write_atomically(self.path, (json.dumps(content, indent=1) + "\n").encode())


# A bench that goes on later does so under the conditions of the last part.
_MAY_CHANGE = ("git_revision", "git_dirty", "load")
