"""Where the tables of a sweep go."""

from __future__ import annotations

from pathlib import Path

import pytest

from pitome.records.schema import RecordError
from pitome.runs.summary import new_folder


def test_sweeps_that_end_in_the_same_second_keep_their_own_tables(tmp_path: Path) -> None:
    folders = [new_folder(tmp_path / "sweeps", "20260101-000000") for _ in range(3)]
    assert [folder.name for folder in folders] == [
        "20260101-000000",
        "20260101-000000-2",
        "20260101-000000-3",
    ]
    assert all(folder.is_dir() for folder in folders)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "sweeps").write_text("a file")
    with pytest.raises(RecordError, match="cannot write to"):
        new_folder(tmp_path / "sweeps", "20260101-000000")
