"""The cache of arrays: bounded, shared by processes, keyed by content."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pitome.errors import DataError, UsageError
from pitome.sources.cache import cached


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path))
    return tmp_path / "arrays"


def fill(text: str, size: int = 0) -> Callable[[Path], object]:
    return lambda folder: (folder / "content").write_bytes(text.encode().ljust(size))


def test_made_once_for_each_key(place: Path) -> None:
    first = cached("texts", {"a": 1}, fill("one"))
    assert cached("texts", {"a": 1}, fill("never")) == first
    assert (first / "content").read_text() == "one"
    assert cached("texts", {"a": 2}, fill("two")) != first
    assert cached("images", {"a": 1}, fill("three")) != first
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


def test_the_least_recently_used_goes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PITOME_CACHE_GB", "0.000035")
    made = [cached("x", {"n": n}, fill(str(n), 10_000)) for n in range(3)]
    for age, folder in zip((30, 20, 10), made, strict=True):
        os.utime(folder, (1e9 - age, 1e9 - age))
    cached("x", {"n": 0}, fill("never"))  # used again
    cached("x", {"n": 3}, fill("3", 10_000))
    assert [folder.exists() for folder in made] == [True, False, True]


def test_an_entry_above_the_limit_is_still_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PITOME_CACHE_GB", "0")
    old = cached("x", {"n": 0}, fill("0", 10))
    new = cached("x", {"n": 1}, fill("1", 10))
    assert new.exists() and not old.exists()


def test_a_failure_leaves_nothing(place: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        cached("x", {}, broken)
    assert list(place.iterdir()) == []
    assert cached("x", {}, fill("whole")).is_dir()


def test_a_full_disk_is_one_line(place: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"No space left on device\); free some space"):
        cached("x", {}, full)


def test_a_size_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PITOME_CACHE_GB", "much")
    with pytest.raises(UsageError, match="PITOME_CACHE_GB=much is not a size"):
        cached("x", {}, fill("1"))


def _ask(number: int) -> tuple[str, str]:
    folder = cached("x", {}, lambda place: [(place / name).write_text(str(number)) for name in "ab"] and None)
    return (folder / "a").read_text(), (folder / "b").read_text()


def test_processes_agree_on_one(place: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        answers = pool.map(_ask, range(8), chunksize=1)
    assert len(set(answers)) == 1 and answers[0][0] == answers[0][1]
