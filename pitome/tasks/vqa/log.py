"""The answers of a run as they are given, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pitome.records.files import write_error


@dataclass(frozen=True)
class Answered:
    """One question: its answers and what the model said."""

    id: str
    question: str
    answers: list[str]
    prediction: str
    score: float  # in [0, 1]
    tokens: int  # generated, the end counted; 0 where it could not be asked
    prompt_tokens: int  # with those of the image
    skipped: str = ""  # why it could not be asked; empty if it could


class SampleLog:
    """JSON lines in a file, whole batches at a time; None keeps nothing.

    A line that a kill has cut off, and with it its batch, counts as not written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def read(self, ids: Sequence[str], batch_size: int) -> list[Answered]:
        """The answers to the first batches of the questions `ids`; none if the file is of others."""
        if self.path is None or not self.path.is_file():
            return []
        rows: list[Answered] = []
        for line in self.path.read_bytes().splitlines(keepends=True):
            try:
                row = Answered(**json.loads(line)) if line.endswith(b"\n") else None
            except (ValueError, TypeError):
                row = None
            if row is None or len(rows) == len(ids) or row.id != ids[len(rows)]:
                break
            rows.append(row)
        whole = len(rows) if len(rows) == len(ids) else len(rows) // batch_size * batch_size
        kept = rows[:whole]
        self._replace(kept)
        return kept

    def append(self, batch: Sequence[Answered]) -> None:
        """Write a batch through to the disk. Raises RecordError."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(_encode(batch))
                file.flush()
                os.fsync(file.fileno())
        except OSError as problem:
            raise write_error(self.path, problem) from None

    def _replace(self, rows: Sequence[Answered]) -> None:
        """Cut off what was not read, so that the next batch follows it."""
        assert self.path is not None
        try:
            with self.path.open("r+b") as file:
                file.truncate(len(_encode(rows)))
        except OSError as problem:
            raise write_error(self.path, problem) from None


def _encode(rows: Sequence[Answered]) -> bytes:
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows).encode()
