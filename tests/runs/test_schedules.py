"""`schedule=` on the command line: a list, a file and a published name, in one run and in a sweep."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pitome.records.settings import setting
from pitome.records.store import Store


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("merge=tome", "schedule=[9,8]"), "the schedule has 2 entries, the model has 4 layers"),
        (("merge=diffrate", "schedule=published/deit_s@2.9"), "12 entries, the model has 4 layers"),
        (("merge=tome", "schedule=[50,40,30,20]"), "removes 147 of 197 tokens in layer 0; merge=tome can"),
        (("merge=tome", "schedule=[257,250,240,230]"), "another model's: it keeps 257 tokens in layer 0"),
    ],
)
def test_what_the_model_does_not_take(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    assert run(*words, "limit=4") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error: ") and says in line], lines


def test_lists_and_files_in_one_sweep(run: Callable[..., int], tmp_path: Path) -> None:
    path = tmp_path / "kept @ 2.json"
    path.write_text(json.dumps({"prune_kept": [190, 150, 120, 90], "merge_kept": [180, 150, 110, 90]}))
    assert run("-m", "merge=diffrate,tome", f"schedule={path}", "limit=4") == 0
    assert run("merge=tome", "schedule=[180,150,110,90]", "limit=4") == 0
    found = Store(tmp_path / "results" / "runs").all()
    assert sorted(record.method.name for record in found) == ["diffrate", "tome"], "the list is the file's"
    for record in found:
        assert record.method.schedule == [17, 30, 40, 20]  # what each layer removes
        assert record.config["schedule"] == "kept @ 2.json"
        assert setting(record) == "schedule kept @ 2.json"
    (diffrate,) = (record for record in found if record.method.name == "diffrate")
    assert diffrate.method.options["prune_kept"] == [190, 150, 120, 90]
