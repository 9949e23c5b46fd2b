"""The text data sets: what each one's files look like. Imports no torch."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pitome.errors import DataError, UsageError, nearest
from pitome.sources.folders import cache_folder
from pitome.sources.pypi import Archive, fetch_archive

VADER = Archive(
    "vaderSentiment",
    "3.3.2",
    sdist=True,
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    megabytes=2.5,
)
_SNIPPETS = "movieReviewSnippets_GroundTruth.txt"
_POSITIVE, _LABELLED = 5152, 10312  # rows: first the positive ones, then the negative, then others


@dataclass(frozen=True)
class TextSet:
    """A classified set of texts."""

    name: str
    classes: tuple[str, ...]  # their names, by label
    column: str  # of the text on the hub
    files: str  # the hub's parquet files of a split, {} its name
    # ours -> the hub's; `validation` only where there is one besides what is tested on
    splits: dict[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    archive: Archive | None = None  # on PyPI, if there is one


SETS = {
    # The labels of SST-2's test sentences are not public: its validation split is tested on, as
    # everywhere (paper, Table 9).
    "sst2": TextSet(
        "sst2",
        ("negative", "positive"),
        "sentence",
        "data/{}-*.parquet",
        {"train": "train", "test": "validation"},
    ),
    "imdb": TextSet("imdb", ("negative", "positive"), "text", "plain_text/{}-*.parquet"),
    "rotten_tomatoes": TextSet(
        "rotten_tomatoes",
        ("negative", "positive"),
        "text",
        "{}.parquet",
        {"train": "train", "validation": "validation", "test": "test"},
        VADER,
    ),
}


def text_set(name: str, classes: Sequence[str] = ()) -> TextSet:
    """The set `name`: one of the project's, or a user's own, with these `classes` and the column `text`.

    Raises UsageError for an unknown one without classes.
    """
    if name in SETS:
        return SETS[name]
    if not classes:
        raise UsageError(f"unknown data {name!r}; {nearest(name, SETS)}")
    return TextSet(name, tuple(classes), "text", "*{}-*.parquet")


def package_rows(otherwise: str) -> tuple[list[str], list[int]]:
    """Rotten Tomatoes out of the sdist of vaderSentiment: 10,312 texts and their labels, in file order.

    The archive holds 10,312 of the 10,662 snippets of Pang and Lee (2005), in mixed case and
    without the spaces around punctuation that the hub's texts have. Rows 0 to 5,151 are positive,
    rows to 10,311 negative; the last 293 are of other origin and left out. Raises DataError.
    """
    folder = fetch_archive(VADER, _unpack_snippets, cache_folder() / "rotten_tomatoes", otherwise=otherwise)
    path = folder / _SNIPPETS
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not at U+2028
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(
            f"{path} cannot be read ({problem}); delete its folder to fetch it again, or {otherwise}"
        ) from None
    texts = [line.split("\t", 2)[-1] for line in lines[:_LABELLED]]
    if len(texts) != _LABELLED:
        raise DataError(f"{path} has {len(lines)} rows; delete its folder to fetch it again, or {otherwise}")
    return texts, [1] * _POSITIVE + [0] * (_LABELLED - _POSITIVE)


def _unpack_snippets(sdist: Path, folder: Path) -> None:
    """The one file of an archive inside the archive."""
    inner = f"{VADER.name}-{VADER.version}/additional_resources/hutto_ICWSM_2014.tar.gz"
    try:
        with tarfile.open(sdist) as outer:
            packed = _member(outer, inner)
        with tarfile.open(fileobj=io.BytesIO(packed)) as opened:
            (folder / _SNIPPETS).write_bytes(_member(opened, f"hutto_ICWSM_2014/{_SNIPPETS}"))
    except (tarfile.TarError, KeyError, EOFError) as problem:
        raise DataError(f"the package {VADER.name} does not hold {_SNIPPETS} ({problem})") from None


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read()
