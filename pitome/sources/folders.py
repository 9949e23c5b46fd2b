"""Folders with data: looked at before a run starts. Imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from pitome.errors import DataError

_READ = 1 << 28  # bytes; to read the 50,000 photographs of ImageNet would take minutes
_LEFT_BEHIND = {
    "$recycle.bin",
    "@eadir",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "ehthumbs.db",
    "lost+found",
    "system volume information",
    "thumbs.db",
}


def cache_folder() -> Path:
    """Where this project keeps what it fetched: PITOME_CACHE, else ~/.cache/pitome."""
    return Path(os.environ.get("PITOME_CACHE") or "~/.cache/pitome").expanduser()


def check_root(root: str | Path) -> Path:
    """The data folder as a path. Raises DataError when it is missing, no folder, empty or closed."""
    path = Path(root).expanduser()
    hint = "give the folder of the data set with data.root=FOLDER, or use source=auto without data.root"
    if not path.exists():
        raise DataError(f"data.root={root}: no such folder; {hint}")
    if not path.is_dir():
        raise DataError(f"data.root={root} is not a folder; {hint}")
    try:
        empty = all(ignored(inside.name) for inside in path.iterdir())
    except OSError as problem:
        raise DataError(f"data.root={root} cannot be read ({problem.strerror}); {hint}") from None
    if empty:
        raise DataError(f"data.root={root} is empty; {hint}")
    return path


def check_source(source: str, root: str | Path | None) -> Path | None:
    """Check `source` against `data.root`, and the folder itself. Raises DataError when they disagree."""
    if root is not None and source in ("hub", "package"):
        raise DataError(f"source={source} and data.root={root} exclude each other; leave one out")
    if source == "local" and root is None:
        raise DataError("source=local needs the folder of the data set: data.root=FOLDER")
    return None if root is None else check_root(root)


def ignored(name: str) -> bool:
    """Whether a file or folder of this name is never data: hidden, or made by a system or program."""
    return name.startswith(".") or name.endswith("~") or name.lower() in _LEFT_BEHIND


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder and not `ignored`, sorted by name. Raises DataError where it cannot be read."""
    try:
        with os.scandir(folder) as inside:
            return sorted((entry for entry in inside if not ignored(entry.name)), key=lambda e: e.name)
    except OSError as problem:
        raise DataError(f"{folder} cannot be read ({problem.strerror}); make it a readable folder") from None


def walk(root: Path, depth: int | None = None) -> list[str]:
    """The files in a folder and in the folders in it, at most `depth` folders deep: sorted relative paths.

    What is `ignored` is left out. Links are followed, but not to a folder that `root` is in, and every
    folder is entered once, by its own name rather than by a link, so that loops of links end. Whatever is
    no folder counts as a file: pipes and links to nowhere as well. Raises DataError for a folder that
    cannot be read.
    """
    files: list[str] = []
    seen = set(map(_identity, root.resolve().parents))
    folders, links = [("", 1)], deque[tuple[str, int]]()
    while folders or links:
        folder, level = folders.pop() if folders else links.popleft()
        inside = entries(root / folder)
        if (identity := _identity(root / folder)) in seen:
            continue
        seen.add(identity)
        for entry in inside:
            name = f"{folder}/{entry.name}" if folder else entry.name
            link = entry.is_symlink()
            if not (os.path.isdir(entry.path) if link else entry.is_dir(follow_symlinks=False)):
                files.append(name)
            elif depth is None or level < depth:
                (links if link else folders).append((name, level + 1))
    return sorted(files, key=lambda name: name.split("/"))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def fingerprint(files: Iterable[tuple[str, Path]]) -> str:
    """What stands for files, each given with its name: `sha256:` of names and contents or, of more than
    256 MB, `names:`, a sha256 of names and sizes. One that cannot be read counts as empty."""
    sizes = [(name, path, path.stat().st_size if path.is_file() else None) for name, path in files]
    read = sum(size or 0 for _, _, size in sizes) <= _READ
    digest = hashlib.sha256()
    for name, path, size in sizes:
        digest.update(f"{name} {size or 0}\n".encode("utf-8", "surrogateescape"))
        if read and size is not None:
            with contextlib.suppress(OSError), path.open("rb") as file:
                digest.update(file.read(size))  # no more, should it grow
    return f"{'sha256' if read else 'names'}:{digest.hexdigest()}"


def stamp(files: Iterable[Path]) -> str:
    """Changes whenever one of the files does; reads no contents."""
    digest = hashlib.sha256()
    for path in files:
        with contextlib.suppress(OSError):  # gone
            digest.update(f"{path.stat().st_mtime_ns}".encode())
        digest.update(b"\n")
    return digest.hexdigest()


def folder_fingerprint(root: Path) -> str:
    """`fingerprint` of all files in a folder and its folders, ignored ones left out."""
    return fingerprint((name, root / name) for name in walk(root))
