"""The record of a bench: kept between calls, refused under other conditions."""

from __future__ import annotations

import pytest

from pitome.bench.record import Record
from pitome.errors import DataError

HERE = {"device": "cpu", "torch": "2.15", "load": 0.1, "git_revision": "a"}


def test_what_was_saved_is_found_again_and_the_rest_is_not(tmp_path):
    record = Record(tmp_path / "a.json", HERE)
    record.part("speed")["x"] = {"rounds": [1]}
    record.save()
    record.part("speed")["y"] = {}
    assert Record(tmp_path / "a.json", HERE).parts == {"speed": {"x": {"rounds": [1]}}}


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
    with pytest.raises(DataError, match="is no record of the bench") as caught:
        Record(tmp_path / "a.json", HERE)
    assert "\n" not in str(caught.value)
