"""The record of a bench: kept between calls, refused under other conditions, anew for other code."""

from __future__ import annotations

import json
import subprocess

import pytest

from pitome.errors import DataError
from scripts.bench import record as module
from scripts.bench.record import Record, same_code

HERE = {"device": "cpu", "torch": "2.15", "load": 0.1, "git_revision": "a", "kernel": "plain path"}


def test_what_was_saved_is_found_again_and_the_rest_is_not(tmp_path):
    record = Record(tmp_path / "a.json", HERE)
    record.keep("speed", "x", {"rounds": [1]})
    record.part("speed")["y"] = {}
    measured = {"git_revision": "a", "git_dirty": None, "load": 0.1, "kernel": "plain path"}
    again = Record(tmp_path / "a.json", HERE)
    assert again.parts == {"speed": {"x": {"rounds": [1], "measured": measured}}}
    assert again.conditions == {"device": "cpu", "torch": "2.15"}


def test_a_record_that_does_not_say_a_condition_is_refused(tmp_path):
    Record(tmp_path / "a.json", {"device": "cpu"}).save()
    with pytest.raises(DataError, match="memory=None, not kept; move it away"):
        Record(tmp_path / "a.json", {"device": "cpu", "memory": "kept"})


def test_other_conditions_are_refused_but_load_and_revision_may_change(tmp_path):
    Record(tmp_path / "a.json", HERE).save()
    Record(tmp_path / "a.json", HERE | {"load": 3.0, "git_revision": "b"})
    with pytest.raises(DataError, match=r"measured with torch=2.15, not 2.16; move it away"):
        Record(tmp_path / "a.json", HERE | {"torch": "2.16"})


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"conditions": {}}'])
def test_a_damaged_file_is_one_line(content, tmp_path):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match="is not a record of the bench") as caught:
        Record(tmp_path / "a.json", HERE)
    assert "\n" not in str(caught.value)


def written_before(path) -> dict:
    """A record as it was when the file said once what each cell says now."""
    content = {
        "conditions": {"device": "cpu", "torch": "2.15", "load": 2.0, "git_revision": "a", "git_dirty": True},
        "parts": {"speed": {"x": {"rounds": [1]}}, "export": {"y": {"onnxruntime": 0.0}}},
    }
    path.write_text(json.dumps(content))
    return content["parts"]


def test_cells_of_a_former_record_have_its_revision_and_stay(tmp_path):
    cells = written_before(tmp_path / "a.json")
    record = Record(tmp_path / "a.json", HERE | {"git_revision": "b"})
    record.keep("layers", "z", {"seconds": 1})
    found = Record(tmp_path / "a.json", HERE).parts
    of_then = {"git_revision": "a", "git_dirty": True, "load": 2.0, "kernel": None}
    assert found["speed"]["x"] == cells["speed"]["x"] | {"measured": of_then}
    assert found["export"]["y"] == cells["export"]["y"] | {"measured": of_then}
    assert found["layers"]["z"]["measured"]["git_revision"] == "b"


def test_other_code_measures_anew_and_the_old_cell_stays_until_that_is_done(tmp_path, capsys):
    written_before(tmp_path / "a.json")
    now = HERE | {"git_revision": "b"}
    record = Record(tmp_path / "a.json", now)
    assert record.find("speed", "x") is None and record.find("speed", "x") is None
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "speed: x was measured by other code (revision a, with" in said
    record.keep("speed", "x", {"rounds": [2]}, complete=False)
    again = Record(tmp_path / "a.json", now)
    assert again.part("speed")["x"]["rounds"] == [1]
    begun = again.find("speed", "x")
    assert begun["rounds"] == [2] and capsys.readouterr().err == ""
    begun["rounds"].append(3)
    again.keep("speed", "x", begun)
    last = Record(tmp_path / "a.json", now)
    assert last.part("speed")["x"]["rounds"] == [2, 3] and not any(last.anew.values())
    assert last.part("speed")["x"]["measured"]["git_revision"] == "b"


def test_the_same_code_of_another_revision_goes_on(tmp_path, monkeypatch, capsys):
    written_before(tmp_path / "a.json")
    monkeypatch.setattr(module, "same_code", lambda one, other: True)
    record = Record(tmp_path / "a.json", HERE | {"git_revision": "b", "git_dirty": False})
    cell = record.find("speed", "x")
    record.keep("speed", "x", cell, complete=False)
    assert record.part("speed")["x"]["rounds"] == [1] and capsys.readouterr().err == ""
    # a part of it was measured with uncommitted changes
    measured = record.part("speed")["x"]["measured"]
    assert (measured["git_revision"], measured["git_dirty"]) == ("b", True)


def test_code_is_what_a_time_depends_on(tmp_path, monkeypatch):
    def git(*words: str) -> str:
        own = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *own, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init")
    for part in ("merge", "page"):
        (tmp_path / "pitome" / part).mkdir(parents=True)
    revisions = []
    for name, text in (("pitome/merge/a.py", "1"), ("pitome/page/a.py", "2"), ("pitome/merge/a.py", "3")):
        (tmp_path / name).write_text(text)
        git("add", ".")
        git("commit", "-m", text)
        revisions.append(git("rev-parse", "HEAD"))
    monkeypatch.setattr(module, "ROOT", tmp_path)
    first, page, code = revisions
    assert same_code(first, page) and not same_code(page, code)
    assert same_code("unknown", "unknown") and same_code(None, None)
    assert not any(same_code(first, other) for other in (None, "0" * 40, "--stat"))
