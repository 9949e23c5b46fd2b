"""Images in folders and zip files, by name."""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pitome.errors import DataError, Unreadable
from pitome.sources.images import read_image
from pitome.sources.json_files import damaged


@dataclass(frozen=True)
class _Member:
    archive: zipfile.ZipFile
    info: zipfile.ZipInfo


class ImageFiles:
    """The images in a folder, in all folders in it and in its zip files, by file name."""

    def __init__(self, root: Path) -> None:
        """Raises DataError for a damaged zip file."""
        self._places: dict[str, Path | _Member] = {}
        for folder, folders, files in os.walk(root, followlinks=True):
            folders.sort()
            for name in sorted(files):
                path = Path(folder) / name
                if path.suffix.lower() in _SUFFIXES:
                    self._places.setdefault(name, path)
                elif path.suffix.lower() == ".zip":
                    self._open(path)

    def _open(self, path: Path) -> None:
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as problem:
            raise damaged(path, str(problem)) from None
        for info in archive.infolist():
            name = info.filename.rpartition("/")[2]
            hidden = name.startswith("._") or "__MACOSX" in info.filename
            if name.lower().endswith(_SUFFIXES) and not hidden:
                self._places.setdefault(name, _Member(archive, info))

    def read(self, name: str) -> Image.Image:
        """An image in mode RGB. Raises Unreadable."""
        place = self._places.get(name)
        if place is None:
            raise Unreadable(f"{name}: no such file")
        if int(self.size(name)) > _LARGEST:
            raise Unreadable(f"{name}: the file is larger than {_LARGEST / 1e6:.0f} MB")
        try:
            content = place.read_bytes() if isinstance(place, Path) else place.archive.read(place.info)
            return read_image(name, file=io.BytesIO(content)).image
        except DataError as problem:
            raise Unreadable(str(problem).removeprefix("image=").rpartition(";")[0]) from None
        except (OSError, zipfile.BadZipFile, RuntimeError, ValueError) as problem:
            raise Unreadable(f"{name}: {problem}") from None

    def size(self, name: str) -> str:
        """Bytes of an image's file; empty where there is none."""
        place = self._places.get(name)
        if place is None:
            return ""
        return str(place.stat().st_size if isinstance(place, Path) else place.info.file_size)

    def stamp(self, name: str) -> str:
        """Changes whenever the file does."""
        place = self._places.get(name)
        if place is None:
            return ""
        return str(place.stat().st_mtime_ns if isinstance(place, Path) else place.info.CRC)


_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


_LARGEST = 200_000_000  # bytes of one image file


def read_file(folder: Path, name: str) -> Image.Image:
    """An image of a folder, in mode RGB. Raises Unreadable with a reason that names no folder."""
    try:
        return read_image(folder / name).image
    except DataError as problem:
        raise Unreadable(_reason(problem).replace(f"{folder}/", "")) from None


def _reason(problem: DataError) -> str:
    return str(problem).removeprefix("image=").rpartition(";")[0]
