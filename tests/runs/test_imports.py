"""`imports=[...]`: modules of the user's own, whatever they do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

from pitome.cli.main import main
from pitome.merge import registry
from pitome.records import Record, code
from pitome.runs.compose import check_command_line, register_schema

METHOD = """
from collections.abc import Sequence
from dataclasses import dataclass
import pitome

@dataclass(frozen=True)
class Options(pitome.MethodOptions):
    share: float = 0.5
    steps: Sequence[int] = (1, 2)

@pitome.register("swap", options=Options)
def swap(tokens, remove, options):
    raise NotImplementedError
"""


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current directory is empty; what a test imports and registers is forgotten."""
    registry.names()
    register_schema()
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setitem(ConfigStore.instance().repo, "merge", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


CASES = {
    "a module that does not exist": (None, "ModuleNotFoundError: No module named 'own_module'"),
    "one that raises": ("raise OSError('no\\nluck')", "own_module cannot be imported (OSError: no luck)"),
    "an error without words": ("raise ValueError", "(ValueError)"),
    "one that exits": ("import sys; sys.exit(0)", "(SystemExit: 0)"),
    "one that says nothing": ("raise SystemExit", "(SystemExit"),
    "wrong syntax": ("def f(:", "SyntaxError: invalid syntax (own_module.py, line 1)"),
    "a taken name": (
        "import pitome\npitome.register('tome')(lambda tokens, remove, options: None)",
        "(a merge method named 'tome' is registered already; choose another name)",
    ),
    "an option of an unknown type": (
        METHOD.replace("float = 0.5", "dict[str, int] = None"),
        "(merge=swap: option share has type dict[str, int]; use bool",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_that_cannot_be_imported_is_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, says = CASES[case]
    if text is not None:
        (tmp_path / "own_module.py").write_text(text)
    assert main(["imports=[own_module]", "weights=random"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert shown.err.startswith("error: imports: own_module cannot be imported") and says in shown.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["imports=[own_module.py]"], "own_module.py is a file; give the name of the module"),
        (["imports=[./own_module]"], "./own_module is a file"),
        (["imports=own_module"], "write imports=[own_module]"),
        (["-m", "imports=[a],[b]"], "give all modules in one list, imports=[a,b]"),
        (["imports=[own_module]", "merge=swapp"], "unknown merge=swapp; did you mean swap"),
        (["imports=[own_module]", "merge=swap", "merge.options.share=much"], "merge=swap: share=much"),
        (["imports=[own_module]", "merge=swap", "merge.options.steps=3"], "a list of whole numbers"),
        (["imports=[own_module]", "merge=swap", "merge.options.shar=1"], "did you mean merge.options.share"),
        (["imports=[own_module]", "merge=swap", "+merge.options.shar=1"], "did you mean share"),
        (["imports=[own_module]", "merge=swap", "merge.name=swip"], "did you mean swap"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_with_a_choice_is_said_before_anything_runs(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_module.py").write_text(METHOD)
    assert main([*words, "weights=random"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert says in shown.err


def test_a_method_of_a_file_in_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "own_module.py").write_text(METHOD)
    words = ["imports=[own_module]", "merge=tome,swap", "ratio=0.9", "weights=random"]
    (_, (config, _)) = check_command_line(words, multirun=True)
    assert config.merge.name == "swap"
    assert config.merge.options["share"] == 0.5 and list(config.merge.options["steps"]) == [1, 2]
    (own,) = check_command_line(
        ["imports=[own_module]", "merge=swap", "merge.options.share=1", "weights=random"], multirun=False
    )
    assert own[0].merge.options["share"] == 1


WORKING = """
import pitome
from pitome.merge.methods.stride import stride

@pitome.register("mine")
def mine(tokens, remove, options):
    return stride(tokens, remove, options)
"""


def test_a_changed_method_of_ones_own_is_repeated(
    run: Callable[..., int],
    records: Callable[[], dict[str, Record]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("imports=[own_to_change]", "merge=mine", "ratio=0.9", "limit=8")
    times = []
    for text, repeated in (
        (WORKING, False),
        (f"# a comment\n{WORKING}", False),
        (f"{WORKING}    # end\nX = 1\n", True),
    ):
        (tmp_path / "own_to_change.py").write_text(text)
        for function in (code._digest, code._read):
            function.cache_clear()  # a new process
        assert run(*words) == 0
        assert ("merge=mine has changed since" in capsys.readouterr().err) is repeated
        times.append(records()["mine 0.9"].started)
    assert times[0] == times[1] < times[2]
