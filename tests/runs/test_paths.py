"""Every path that a shell can pass works unquoted; a new one joins with one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pitome.errors import UsageError
from pitome.runs.compose import check_command_line, register_schema
from pitome.runs.paths import quote_paths

NAMES = (
    "epoch=3-step=10.ckpt",
    "with spaces.pth",
    "a,b.pth",
    "[brackets].pth",
    "{braces}.pth",
    "it's.pth",
    '"double".pth',
    "'single'.pth",
    "$HOME.pth",
    "${HOME}.pth",
    "back\\slash.pth",
    "ends with backslash\\",
    "äöü ß 文字.pth",
    "#hash (1) & more; <x>|y*?.pth",
    "~tilde.pth",
    "key: value.pth",
    "null.pth",
    "1e3",
    "true",
    "%41.pth",
    " leading and trailing ",
    "new\nline.pth",
)
KEYS = ("weights", "data.root", "results")


@pytest.mark.parametrize("multirun", (False, True), ids=("one", "sweep"))
@pytest.mark.parametrize("name", NAMES)
def test_any_name(name: str, multirun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pitome.runs.compose.validate", lambda config: None)  # only how it is read
    register_schema()
    (tmp_path / name).mkdir()
    given = {key: str(tmp_path / name) for key in KEYS}
    words = quote_paths([f"{key}={path}" for key, path in given.items()], multirun)
    ((config, _),) = check_command_line(words, multirun)
    assert {"weights": config.weights, "data.root": config.data.root, "results": config.results} == given


@pytest.mark.parametrize(
    ("word", "values"),
    (
        ("weights=a.pth,b.pth", ["a.pth", "b.pth"]),
        ("weights=pretrained,random", ["pretrained", "random"]),
        ("weights=null,a=1.pth", [None, "a=1.pth"]),
        ("weights='a,b.pth',c.pth", ["a,b.pth", "c.pth"]),
        ("weights='a,b.pth'", ["a,b.pth"]),
        ("weights=x,y.pth", ["x,y.pth"]),  # a file that exists
    ),
)
def test_commas_of_a_sweep(
    word: str, values: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pitome.runs.compose.validate", lambda config: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x,y.pth").touch()
    register_schema()
    assert [config.weights for config, _ in check_command_line(quote_paths([word], True), True)] == values


def test_a_comma_that_is_both_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x", "y.pth", "x,y.pth"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="one file and of 2; put the one, or each, in quotes"):
        quote_paths(["weights=x,y.pth"], True)
    assert quote_paths(["weights=x,y.pth"], False) == ["weights='x,y.pth'"]


def test_where_results_go_is_one_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pitome.runs.compose.validate", lambda config: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    register_schema()
    ((config, _),) = check_command_line(quote_paths(["results=~/not, there=yet"], True), True)
    assert config.results == f"{tmp_path}/not, there=yet"


def test_other_keys_stay_as_they_are() -> None:
    words = ["ratio=[0.9,0.8]", "merge=a,b", "weights=null", "weights=", "--cfg"]
    assert quote_paths(words, True) == words
