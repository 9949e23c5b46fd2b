"""Parquet files through `datasets`: any row of any file without reading those around it, from its cache.

The footers are read with pyarrow first, because `datasets` does not say which of several files is damaged or
lacks a column. Images stay encoded: they are decoded as everywhere else (`pitome.sources.images`).
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pitome.errors import DataError, Unreadable, one_line
from pitome.sources.hub import full_or_closed
from pitome.sources.images import DEFAULT, ImageRules, decode
from pitome.sources.json_files import check_regular

if TYPE_CHECKING:
    import pyarrow.parquet
    from datasets import Dataset

_MOST_PACKED, _SMALL = 1000, 256_000_000  # how many times larger a file may unpack, and what is no harm
_FEW_ROWS, _SAMPLE = 1_000_000, 16  # rows


def load_parquet(files: Sequence[Path], columns: Sequence[str] = ()) -> Dataset:
    """The rows of all files, in their order, with these columns (all of them for none).

    Raises DataError, one line that names the file, for damaged files and missing columns.
    """
    import datasets  # slow: 0.5 s
    import pyarrow.parquet

    for file in files:
        check_regular(file)
        try:
            with pyarrow.parquet.ParquetFile(file) as opened:
                known = opened.schema_arrow.names
                _check_size(file, opened)
        except (OSError, pyarrow.ArrowException) as problem:
            raise _damaged(file, problem) from None
        if lacking := [column for column in columns if column not in known]:
            raise DataError(f"{file} has no column {lacking[0]}, it has {', '.join(known)}; fetch it again")
    try:
        paths = [glob.escape(str(file.absolute())) for file in files]
        table: Any = datasets.load_dataset("parquet", data_files=paths, split="train")
        for name, feature in table.features.items():
            if isinstance(feature, datasets.Image):
                table = table.cast_column(name, datasets.Image(decode=False))
    except Exception as problem:  # its errors wrap those of pyarrow and of its own cache
        cause = problem.__cause__ or problem
        if (why := full_or_closed(cause)) is not None:
            raise DataError(
                f"the cache of datasets, {datasets.config.HF_DATASETS_CACHE}, cannot be written ({why}): "
                "make room there, or choose another folder with HF_HOME=FOLDER"
            ) from None
        raise _damaged(files[0], cause) from None
    return table.select_columns(list(columns)) if columns else table


def class_names(table: Dataset, column: str) -> list[str] | None:
    """What the numbers of a column mean, where its files say so."""
    names = getattr(table.features.get(column), "names", None)  # of a ClassLabel
    return list(names) if names else None


def encoded_image(cell: object) -> bytes | None:
    """The bytes of an image in a cell, bare or in a struct with `bytes`; None if there are none."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) and content else None


class ParquetImages:
    """The column `image` of parquet files; images are read when asked for."""

    def __init__(self, files: Sequence[Path], rules: ImageRules = DEFAULT) -> None:
        """Raises DataError for files that cannot be read or have no such column."""
        self._rules, self._table = rules, load_parquet(files, ["image"])

    def read(self, row: int, name: str) -> Image.Image:
        """The image of a row, counted over all files, in mode RGB. Raises Unreadable."""
        content = encoded_image(self._table[row]["image"])
        if content is None:
            raise Unreadable(f"{name}: no image")
        return decode(content, name, self._rules).image


def _check_size(file: Path, opened: pyarrow.parquet.ParquetFile) -> None:
    """Raise DataError for a small file that would unpack to what fills a disk: equal rows, and equal values
    in them, are packed to nothing."""
    packed, rows = file.stat().st_size, opened.metadata.num_rows
    groups = range(opened.metadata.num_row_groups)
    unpacked = sum(opened.metadata.row_group(i).total_byte_size for i in groups)
    most = _MOST_PACKED * packed + _SMALL
    if unpacked <= most:
        first = next(opened.iter_batches(batch_size=_SAMPLE), None)
        unpacked = first.nbytes * rows // max(len(first), 1) if first is not None else 0
    if unpacked > most or rows > max(_FEW_ROWS, 10 * packed):
        raise DataError(
            f"{file}: {packed:,} bytes would unpack to {rows:,} rows, {unpacked:,} bytes; fetch it again"
        )


def _damaged(file: Path, problem: BaseException) -> DataError:
    return DataError(f"{file} cannot be read ({one_line(problem)[:200]}); fetch it again")
