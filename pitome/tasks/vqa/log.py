"""The answers of a run as they are given, so that a killed run goes on where it was."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pitome.records.files import write_atomically, write_error
from pitome.tasks.devices import rank


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
    """JSON lines in a file, whole batches at a time, and beside it in one of each further rank; None keeps
    nothing.

    A line that a kill has cut off, and with it its batch, counts as not written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def read(self, ids: Sequence[str], batch_size: int) -> dict[int, list[Answered]]:
        """The answers to whole batches of the questions `ids`, by the number of the batch; the first file
        then holds them all, and nothing else. Raises RecordError."""
        files = [] if self.path is None else files_of(self.path)
        if self.path is None or not files:
            return {}
        rows: dict[str, Answered] = {}
        for line in (line for file in files for line in file.read_bytes().splitlines(keepends=True)):
            with contextlib.suppress(ValueError, TypeError):
                if line.endswith(b"\n"):
                    row = Answered(**json.loads(line))
                    rows[row.id] = row
        batches = (ids[start : start + batch_size] for start in range(0, len(ids), batch_size))
        known = {
            number: [rows[id] for id in batch]
            for number, batch in enumerate(batches)
            if all(id in rows for id in batch)
        }
        write_atomically(self.path, b"".join(map(_encode, known.values())))
        for file in files:
            if file != self.path:
                file.unlink(missing_ok=True)
        return known

    def append(self, batch: Sequence[Answered]) -> None:
        """Write a batch through to the disk. Raises RecordError."""
        if self.path is None:
            return
        path = self.path.with_suffix(f".{rank()}{self.path.suffix}") if rank() else self.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(_encode(batch))
                file.flush()
                os.fsync(file.fileno())
        except OSError as problem:
            raise write_error(path, problem) from None


def files_of(path: Path) -> list[Path]:
    """The files of all ranks whose first is `path`."""
    return sorted(path.parent.glob(f"{path.stem}*{path.suffix}"))


def _encode(rows: Sequence[Answered]) -> bytes:
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows).encode()
