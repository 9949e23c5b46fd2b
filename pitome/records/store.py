"""A folder of records: one JSON file per run, its per-sample outcomes beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitome.errors import one_line
from pitome.records.files import TEMPORARY, remove_if_stale, write_atomically
from pitome.records.schema import NewerRecordError, OutcomesFile, Record, RecordError, from_json, to_json

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

_RUN_ID = re.compile(r"[0-9a-f]{16}")


class Store:
    """Records by run id.

    Safe with several processes and with kill -9 at any moment: a record appears as a whole or not
    at all, and names the outcomes it was written with, which were there before it. What cannot be
    read is logged as a warning and counts as absent.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def prepare(self) -> None:
        """Create the folder, prove that it can be written and remove leftovers of killed runs.

        To be called before work that would be lost otherwise. Raises RecordError.
        """
        probe = self.folder / ".writable"
        write_atomically(probe, b"")
        probe.unlink(missing_ok=True)
        for path in self.folder.glob(f".*{TEMPORARY}"):
            remove_if_stale(path)
        for path in self.folder.glob("*.parquet"):
            if not self._is_referenced(path):
                remove_if_stale(path)

    def save(self, record: Record, outcomes: Mapping[str, Sequence[Any]] | None = None) -> Record:
        """Write `record`, its outcomes first, and return it as it was stored. Only a finished run replaces
        a finished one: a failed record is otherwise not kept.

        outcomes: columns of equal length, one entry per sample; `id` identifies the sample and
        must be unique. Raises RecordError (invalid values, folder not writable, disk full, a record of
        a newer version in its place).
        """
        self.check_replaceable(record.run_id)
        if not record.done and self.finished(record.run_id) is not None:
            return record
        content = None
        if outcomes is not None:
            content = _encode_outcomes(record, outcomes)
            digest = hashlib.sha256(content).hexdigest()
            record = dataclasses.replace(
                record,
                outcomes=OutcomesFile(
                    # The content's hash in the name: a rerun never changes an older record's file.
                    file=f"{record.run_id}.{digest[:8]}.parquet",
                    sha256=digest,
                    rows=len(outcomes["id"]),
                    columns=list(outcomes),
                ),
            )
        text = to_json(record)  # validate before anything is written
        if content is not None and record.outcomes is not None:
            write_atomically(self.folder / record.outcomes.file, content)
        write_atomically(self._path(record.run_id), text.encode())
        return record

    def check_replaceable(self, run_id: str) -> None:
        """Raise RecordError where a newer version of this project has recorded the run: it is left alone."""
        path = self._path(run_id)
        try:
            from_json(path.read_bytes(), path.name)
        except NewerRecordError as problem:
            raise RecordError(f"{problem}, or choose another folder with results=FOLDER") from None
        except (OSError, RecordError):
            pass

    def load(self, run_id: str) -> Record | None:
        """The record of a run; None if there is none that can be read."""
        path = self._path(run_id)
        try:
            record = from_json(path.read_bytes(), path.name)
        except FileNotFoundError:
            return None
        except (OSError, RecordError) as problem:
            log.warning("ignored %s: %s", path, one_line(problem))
            return None
        if record.run_id != run_id:
            log.warning("ignored %s: it holds run %s", path, record.run_id)
            return None
        return record

    def finished(self, run_id: str) -> Record | None:
        """The record of a run that need not be repeated: done, and its outcomes can be read."""
        record = self.load(run_id)
        if record is None or not record.done:
            return None
        if record.outcomes is not None and self.outcomes(record) is None:
            return None
        return record

    def outcomes(self, run: str | Record) -> dict[str, np.ndarray] | None:
        """The per-sample outcomes of a run, column -> [n]; None if there are none to be read.

        run: a run id, or a record for the outcomes it was written with, even if another process
        has replaced the record since.
        """
        record = self.load(run) if isinstance(run, str) else run
        if record is None or record.outcomes is None:
            return None
        path = self.folder / Path(record.outcomes.file).name
        try:
            content = path.read_bytes()
        except OSError as problem:
            log.warning("outcomes of run %s cannot be read: %s", record.run_id, one_line(problem))
            return None
        if hashlib.sha256(content).hexdigest() != record.outcomes.sha256:
            log.warning("outcomes of run %s are damaged: %s is not as written", record.run_id, path)
            return None
        import pyarrow.parquet  # a slow import that most commands do not need

        table = pyarrow.parquet.read_table(io.BytesIO(content))
        return {name: table[name].to_numpy() for name in table.column_names}

    def all(self) -> list[Record]:
        """Every record that can be read, oldest first."""
        ids = sorted(path.stem for path in self.folder.glob("*.json") if _RUN_ID.fullmatch(path.stem))
        records = [record for run_id in ids if (record := self.load(run_id)) is not None]
        return sorted(records, key=lambda record: record.started)

    def _path(self, run_id: str) -> Path:
        if not _RUN_ID.fullmatch(run_id):
            raise RecordError(f"{run_id!r} is not a run id: expected 16 hexadecimal digits")
        return self.folder / f"{run_id}.json"

    def _is_referenced(self, path: Path) -> bool:
        """Whether a record names this outcomes file, or might: an unreadable one is left alone."""
        run_id = path.name.split(".")[0]
        if not _RUN_ID.fullmatch(run_id):
            return True  # not ours
        record = self.load(run_id)
        if record is None:
            return self._path(run_id).exists()
        return record.outcomes is not None and record.outcomes.file == path.name


def _encode_outcomes(record: Record, outcomes: Mapping[str, Sequence[Any]]) -> bytes:
    """Parquet bytes. Raises RecordError for columns that do not fit together."""
    import pyarrow
    import pyarrow.parquet

    needed = ["id"] + ([record.headline.outcome] if record.headline.outcome else [])
    missing = [name for name in needed if name not in outcomes]
    if missing:
        raise RecordError(f"outcomes of run {record.run_id} lack the column {' and '.join(missing)}")
    rows = len(outcomes["id"])
    if any(len(column) != rows for column in outcomes.values()):
        raise RecordError(f"outcomes of run {record.run_id} have columns of different lengths")
    try:
        table = pyarrow.table({name: pyarrow.array(column) for name, column in outcomes.items()})
    except (pyarrow.ArrowException, TypeError) as problem:
        raise RecordError(f"outcomes of run {record.run_id} cannot be stored: {one_line(problem)}") from None
    if len(table["id"].unique()) != rows:
        raise RecordError(f"outcomes of run {record.run_id} have an id twice")
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()
