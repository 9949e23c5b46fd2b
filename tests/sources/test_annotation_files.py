"""Annotation files wherever people have them. The forms of each set: tests/tasks/*/test_data.py."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from pitome.errors import DataError
from pitome.sources.annotation_files import AnnotationFiles


def test_the_nearest_file_that_is_data(tmp_path: Path) -> None:
    for name in ("b/x.json", "a/x.json", ".old/x.json", "__MACOSX/y.json", "c/d/e/z.json", "c/d/e/f/v.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = AnnotationFiles(tmp_path)
    found = [files.find(name) for name in ("x.json", "y.json", "z.json", "v.json")]
    assert found == [tmp_path / "a/x.json", None, tmp_path / "c/d/e/z.json", None]
    assert files.first(("y.json", "z.json")) == tmp_path / "c/d/e/z.json"
    (tmp_path / "x.json").write_text("another")
    assert AnnotationFiles(tmp_path).find("x.json") == tmp_path / "x.json"


def test_in_a_zip_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a/x.json", "[1]")
        archive.writestr("__MACOSX/a/x.json", "no")
    found = AnnotationFiles(tmp_path).find("x.json")
    assert found is not None and found.read_bytes() == b"[1]" and str(found).endswith("all.zip/a/x.json")
    (tmp_path / "x.json").write_text("[2]")
    assert AnnotationFiles(tmp_path).find("x.json") == tmp_path / "x.json"
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"broken\.zip cannot be read"):
        AnnotationFiles(tmp_path).find("y.json")
