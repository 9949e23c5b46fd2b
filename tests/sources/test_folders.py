import os

import pytest

from pitome.errors import DataError
from pitome.sources import folders as roots
from pitome.sources.folders import (
    cache_folder,
    check_root,
    check_source,
    folder_fingerprint,
    ignored,
    walk,
)


def test_a_folder_with_something_in_it_is_fine(tmp_path):
    (tmp_path / "a").touch()
    assert check_root(str(tmp_path)) == tmp_path
    assert check_source("auto", tmp_path) == tmp_path
    assert check_source("local", tmp_path) == tmp_path


def test_missing_empty_or_no_folder(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, says in (("missing", "no such folder"), ("file", "is not a folder"), ("empty", "is empty")):
        with pytest.raises(DataError, match=says) as error:
            check_root(tmp_path / name)
        assert "\n" not in str(error.value) and "data.root=" in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_closed_folder(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with pytest.raises(DataError, match="cannot be read"):
        check_root(closed)


def test_source_and_root_must_agree(tmp_path):
    assert check_source("auto", None) is None
    assert check_source("hub", None) is None
    with pytest.raises(DataError, match="needs the folder"):
        check_source("local", None)
    for source in ("hub", "package"):
        with pytest.raises(DataError, match="exclude each other"):
            check_source(source, tmp_path)


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("PITOME_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "pitome"


def test_a_folder_is_known_by_names_and_contents_or_sizes(monkeypatch, tmp_path):
    def now():
        return folder_fingerprint(tmp_path)

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.csv").write_text("one")
    first = now()
    (tmp_path / ".notes").write_text("no sample")
    assert now() == first and first.startswith("sha256:")
    (tmp_path / "a" / "1.csv").write_text("two")
    second = now()
    (tmp_path / "a" / "1.csv").rename(tmp_path / "a" / "2.csv")
    third = now()
    (tmp_path / "b.csv").touch()
    assert len({first, second, third, now()}) == 4
    monkeypatch.setattr(roots, "_READ", 2)
    large = now()
    assert large.startswith("names:") and len(large) == len("names:") + 64
    (tmp_path / "a" / "2.csv").write_text("six")
    assert now() == large  # as said: of large folders the sizes alone
    (tmp_path / "a" / "2.csv").write_text("four")
    assert now() != large


IGNORED = [".a", "._a.jpg", ".DS_Store", ".ipynb_checkpoints", "__MACOSX", "Thumbs.db", "THUMBS.DB", "a.txt~"]
KEPT = ["a", "a.b", "_a", "thumbs", "a~b", "MACOSX", "db"]


def test_what_is_never_data():
    assert all(map(ignored, IGNORED)) and not any(map(ignored, KEPT))


def test_walk_finds_files_in_folders_sorted_by_their_parts(tmp_path):
    for name in ("b/1", "b-c/1", "b/a/2", "a", ".x/1", "b/__MACOSX/1", "b/Thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert walk(tmp_path) == ["a", "b/1", "b/a/2", "b-c/1"]
    assert walk(tmp_path, depth=2) == ["a", "b/1", "b-c/1"] and walk(tmp_path, depth=1) == ["a"]
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "1").touch()
    assert walk(tmp_path / ".hidden") == ["1"], "the rule is for what is in a folder"


def test_walk_survives_links(tmp_path):
    """Every folder once, by its own name; no link to where the folder itself lies; pipes are not opened."""
    data = tmp_path / "data"
    for name in ("data/z/1", "data/y/2", "apart/3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    links = {
        "a": data / "z",
        "y/up": data,
        "y/over": tmp_path,
        "me": "me",
        "nowhere": "gone",
        "b": "../apart",
    }
    for name, target in links.items():
        (data / name).symlink_to(target)
    os.mkfifo(data / "pipe")
    assert walk(data) == ["b/3", "me", "nowhere", "pipe", "y/2", "z/1"]
    assert folder_fingerprint(data).startswith("sha256:")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_walk_says_which_folder_is_closed(tmp_path):
    (tmp_path / "a").mkdir(mode=0)
    with pytest.raises(DataError, match="a cannot be read"):
        walk(tmp_path)


def test_a_folder_of_leftovers_is_empty(tmp_path):
    (tmp_path / ".DS_Store").touch()
    with pytest.raises(DataError, match="is empty"):
        check_root(tmp_path)
