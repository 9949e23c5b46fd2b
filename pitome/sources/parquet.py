"""Parquet files: rows, and images read when asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from PIL import Image

from pitome.errors import DataError, Unreadable
from pitome.sources.images import DEFAULT, ImageRules, decode


class ParquetImages:
    """A column `image` (struct with `bytes`) of parquet files; images are read when asked for, and the
    group of rows that was read last is kept."""

    def __init__(self, files: Sequence[Path], rules: ImageRules = DEFAULT) -> None:
        """Raises DataError for files that cannot be read or have no such column."""
        import pyarrow.parquet

        self._rules = rules
        self._groups: list[tuple[Path, int]] = []
        sizes = []
        for file in files:
            metadata = parquet(file, lambda path: pyarrow.parquet.read_metadata(path))
            if "image" not in metadata.schema.to_arrow_schema().names:
                raise DataError(f"{file} has no column image; fetch it again")
            for group in range(metadata.num_row_groups):
                self._groups.append((file, group))
                sizes.append(metadata.row_group(group).num_rows)
        self._starts = [0, *accumulate(sizes)]
        self._read: tuple[int, list[object]] = (-1, [])

    def read(self, row: int, name: str) -> Image.Image:
        """The image of a row, counted over all files, in mode RGB. Raises Unreadable."""
        import pyarrow.parquet

        group = bisect_right(self._starts, row) - 1
        if self._read[0] != group:
            file, number = self._groups[group]
            table = parquet(
                file, lambda path: pyarrow.parquet.ParquetFile(path).read_row_group(number, ["image"])
            )
            self._read = group, table["image"].to_pylist()
        cell = self._read[1][row - self._starts[group]]
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not content:
            raise Unreadable(f"{name}: no image")
        return decode(content, name, self._rules).image


def parquet(path: Path, read):  # type: ignore[no-untyped-def]
    """`read(path)` of pyarrow. Raises DataError, one line, where it cannot."""
    import pyarrow

    try:
        return read(path)
    except (OSError, pyarrow.ArrowException) as problem:
        reason = " ".join(str(problem).split())
        raise DataError(f"{path} cannot be read ({reason}); fetch it again") from None
