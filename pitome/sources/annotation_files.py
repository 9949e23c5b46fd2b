"""Annotation files in a folder as people have it: in folders in it, or in a zip file as downloaded."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from pitome.errors import DataError
from pitome.sources.folders import ignored, walk
from pitome.sources.json_files import File, damaged

_DEPTH = 4  # folders, e.g. ScienceQA/data/scienceqa/problems.json below the folder that is given


class AnnotationFiles:
    """Files by their names: those nearest to the top of a folder, and files before members of zip files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def first(self, names: Sequence[str]) -> File | None:
        """The file of the first of these names that there is. Raises DataError as `find` does."""
        return next((file for name in names if (file := self.find(name)) is not None), None)

    def find(self, name: str) -> File | None:
        """The file `name`. Raises DataError for two that differ, and for a zip file that is damaged."""
        if found := self._files.get(name):
            return self._same(name, found)
        return self._same(name, found) if (found := self._members.get(name)) else None

    @cached_property
    def _paths(self) -> list[Path]:
        return [self.root / name for name in walk(self.root, depth=_DEPTH)]

    @cached_property
    def _files(self) -> dict[str, list[File]]:
        files: dict[str, list[File]] = defaultdict(list)
        for path in self._paths:
            files[path.name].append(path)
        return files

    @cached_property
    def _members(self) -> dict[str, list[File]]:
        members: dict[str, list[File]] = defaultdict(list)
        for path in self._paths:
            if path.suffix.lower() != ".zip" or not path.is_file():
                continue
            try:
                archive = zipfile.ZipFile(path)
            except (zipfile.BadZipFile, OSError) as problem:
                raise damaged(path, str(problem)) from None
            for name in archive.namelist():
                if not any(map(ignored, name.split("/"))):
                    members[name.rpartition("/")[2]].append(zipfile.Path(archive, name))
        return members

    def _same(self, name: str, found: list[File]) -> File:
        """Of several the one nearest to the top, if others as near are copies of it."""
        nearest = min(str(file).count("/") for file in found)
        first, *others = [file for file in found if str(file).count("/") == nearest]
        for other in others:
            if first.read_bytes() != other.read_bytes():
                raise DataError(f"{name} may be {first} or {other}, which differ; remove one")
        return first
