"""A folder of records: one JSON file per run, its per-sample outcomes beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import logging
import math
import os
import re
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitome.errors import one_line, redact
from pitome.records.files import TEMPORARY, remove_if_stale, write_atomically
from pitome.records.schema import (
    SEALED,
    NewerRecordError,
    OutcomesFile,
    Record,
    RecordError,
    from_json,
    to_json,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

log = logging.getLogger(__name__)

DAMAGED = ".damaged"
_RUN_ID = re.compile(r"[0-9a-f]{16}")
_LARGEST = 64_000_000  # bytes of a record
_MOST_ROWS = 50_000_000  # of outcomes: a few bytes can claim any number of them
_TOLERANCE = 1e-5  # between a headline and the mean of its outcomes: a mean in float32
_FRESH_NS = 2_000_000_000  # age up to which a changed file may bear the time it had before


class Store:
    """Records by run id.

    Safe with several processes and with kill -9 at any moment: a record appears as a whole or not
    at all, and names the outcomes it was written with, which were there before it. What cannot be
    read or was changed by hand is logged as a warning, once, and counts as absent: nothing shows it, and
    the run that is made in its place moves it aside.
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
        self._move_aside(record.run_id)
        if content is not None and record.outcomes is not None:
            write_atomically(self.folder / record.outcomes.file, content)
        write_atomically(self._path(record.run_id), text.encode())
        return from_json(text, record.run_id)

    def check_replaceable(self, run_id: str) -> None:
        """Raise RecordError where a newer version of this project has recorded the run: it is left alone."""
        try:
            _read(self._path(run_id))
        except NewerRecordError as problem:
            raise RecordError(f"{problem}, or choose another folder with results=FOLDER") from None
        except (OSError, RecordError):
            pass

    def load(self, run_id: str) -> Record | None:
        """The record of a run; None if there is none that can be believed."""
        path = self._path(run_id)
        try:
            record = _read(path)
            if record.run_id != run_id:
                raise RecordError(f"it holds run {record.run_id}")
            self._check_headline(record)
        except FileNotFoundError:
            return None
        except NewerRecordError as problem:
            _warn(f"ignored {path}: {one_line(problem)}")
        except (OSError, RecordError) as problem:
            _warn(f"ignored {path}: {one_line(problem)}; the same command runs it again")
        else:
            return record
        return None

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
        import pyarrow  # a slow import that most commands do not need

        path = self.folder / Path(record.outcomes.file).name
        try:
            table = _table(path.read_bytes(), record.outcomes.sha256, record.outcomes.rows)
            return {name: table[name].to_numpy() for name in table.column_names}
        except OSError as problem:
            _warn(f"outcomes of run {record.run_id} cannot be read: {one_line(problem)}")
        except (RecordError, pyarrow.ArrowException, ValueError) as problem:
            _warn(f"outcomes of run {record.run_id} are damaged: {path.name}: {one_line(problem)}")
        return None

    def all(self) -> list[Record]:
        """Every record that can be read, oldest first."""
        ids = sorted(path.stem for path in self.folder.glob("*.json") if _RUN_ID.fullmatch(path.stem))
        records = [record for run_id in ids if (record := self.load(run_id)) is not None]
        if old := sum(record.schema_version < SEALED for record in records):
            _warn(
                f"{old} records in {self.folder} are of before records had a digest, so only their headlines "
                f"are checked; python scripts/report.py seal {self.folder} adds it"
            )
        return sorted(records, key=lambda record: record.started)

    def seal(self) -> int:
        """Write the records of before records had a digest again, with one; returns their number."""
        old = [record for record in self.all() if record.schema_version < SEALED]
        for record in old:
            write_atomically(self._path(record.run_id), to_json(record).encode())
        return len(old)

    def _path(self, run_id: str) -> Path:
        if not _RUN_ID.fullmatch(run_id):
            raise RecordError(f"{run_id!r} is not a run id: expected 16 hexadecimal digits")
        return self.folder / f"{run_id}.json"

    def _is_referenced(self, path: Path) -> bool:
        """Whether a record names this outcomes file, or might: an unreadable one is left alone."""
        run_id = path.name.split(".")[0]
        if not _RUN_ID.fullmatch(run_id):
            return True  # not ours
        record = self._path(run_id)
        try:
            if path.name.encode() in record.read_bytes():  # quicker than reading a record of each file
                return True
            _read(record)
        except FileNotFoundError:
            return False
        except (OSError, RecordError):
            return True
        return False

    def _check_headline(self, record: Record) -> None:
        """Raise RecordError for a headline that its outcomes do not give, and for one that neither
        outcomes nor a digest stand for. Without its outcomes a record with a digest stands."""
        column = record.headline.outcome
        if record.score is None:
            return
        sealed = record.schema_version >= SEALED
        if record.outcomes is None or column is None:
            if not sealed:
                raise RecordError(f"neither a digest nor outcomes stand for its {record.headline.name}")
            return
        try:
            path = self.folder / Path(record.outcomes.file).name
            rows, mean = _mean(path, _stamp(path), record.outcomes.sha256, record.outcomes.rows, column)
        except FileNotFoundError:
            if not sealed:
                raise RecordError(f"it has no digest, and its outcomes {path.name} are missing") from None
            return
        _check_against(record, rows, mean)

    def _move_aside(self, run_id: str) -> None:
        """Rename what stands in the place of a run and cannot be believed."""
        path = self._path(run_id)
        with contextlib.suppress(OSError):
            if path.is_file() and self.load(run_id) is None:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                aside = path.with_name(f"{run_id}.{digest[:8]}{DAMAGED}")
                os.replace(path, aside)
                _warn(f"kept what could not be believed as {aside}")


def _check_against(record: Record, rows: int, mean: float) -> None:
    """Raise RecordError if the outcomes of a record, so many rows with this mean in the column of its
    headline, are not those of its headline and its samples."""
    name, samples = record.headline.name, record.data.n_samples
    if record.score is not None and not math.isclose(record.score, mean, abs_tol=_TOLERANCE):
        raise RecordError(f"its {name} is {record.score:.6g}, but its outcomes give {mean:.6g}")
    if samples is not None and samples != rows:
        raise RecordError(f"it names {samples} samples, but its outcomes are of {rows}")


@functools.cache
def _warn(line: str) -> None:
    """Once for each line."""
    log.warning("%s", redact(line))


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file does. Raises OSError, and RecordError for what is no file."""
    known = path.stat()
    if not stat.S_ISREG(known.st_mode):
        raise RecordError(f"{path.name} is no file")
    fresh = time.time_ns() if time.time_ns() - known.st_mtime_ns < _FRESH_NS else 0
    return known.st_ino, known.st_size, known.st_mtime_ns, known.st_ctime_ns, fresh


def _read(path: Path) -> Record:
    """The record in a file. Raises OSError, RecordError."""
    stamp = _stamp(path)
    if stamp[1] > _LARGEST:
        raise RecordError(f"{path.name} is damaged: {stamp[1]:,} bytes are no record")
    return _parse(path, stamp)


@functools.lru_cache(maxsize=100_000)
def _parse(path: Path, stamp: tuple[int, ...]) -> Record:
    """The record in a file, read once while the file is as `stamp` says."""
    return from_json(path.read_bytes(), path.name)


@functools.lru_cache(maxsize=100_000)
def _mean(path: Path, stamp: tuple[int, ...], sha256: str, rows: int, column: str) -> tuple[int, float]:
    """Rows of an outcomes file, and the mean of a column. Raises OSError, RecordError."""
    import pyarrow

    try:
        return rows, _mean_of(_table(path.read_bytes(), sha256, rows, [column])[column])
    except (pyarrow.ArrowException, ValueError, TypeError) as problem:
        raise RecordError(f"its outcomes {path.name} are damaged: {one_line(problem)}") from None


def _mean_of(column: pyarrow.ChunkedArray) -> float:
    """nan where a value is missing. Raises ValueError for what is no number."""
    return float(column.to_numpy().astype(float).mean()) if len(column) else math.nan


def _table(content: bytes, sha256: str, rows: int, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """An outcomes file as a table. Raises RecordError if it is not as written, and pyarrow's errors."""
    import pyarrow.parquet

    if hashlib.sha256(content).hexdigest() != sha256:
        raise RecordError("it is not as written")
    file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
    if file.metadata.num_rows != rows or rows > _MOST_ROWS:
        raise RecordError(f"it has {file.metadata.num_rows:,} rows, not the {rows:,} of the record")
    if lacking := set(columns or ()) - set(file.schema_arrow.names):
        raise RecordError(f"it has no column {', '.join(sorted(lacking))}")
    return file.read(columns=columns)


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
    column = record.headline.outcome if record.score is not None else None
    try:
        table = pyarrow.table({name: pyarrow.array(column) for name, column in outcomes.items()})
        mean = _mean_of(table[column]) if column is not None else 0.0
    except (pyarrow.ArrowException, ValueError, TypeError) as problem:
        raise RecordError(f"outcomes of run {record.run_id} cannot be stored: {one_line(problem)}") from None
    if len(table["id"].unique()) != rows:
        raise RecordError(f"outcomes of run {record.run_id} have an id twice")
    if column is not None:
        _check_against(record, rows, mean)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()
