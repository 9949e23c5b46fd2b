"""Methods that other distributions bring, working and not."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

import pitome
from pitome.cli.main import main
from pitome.errors import MethodError, UsageError
from pitome.merge import plugins, registry
from pitome.merge.registry import MethodOptions
from pitome.runs.compose import check_command_line, register_schema

METHOD = """
import pitome

@pitome.register("{name}")
def {name}(tokens, remove, options):
    return pitome.Plan(kept=None, source=None, target=None)
"""
Install = Callable[..., None]


def write(folder: Path, distribution: str, name: str, text: str) -> None:
    """A distribution whose entry point `name` is a module of these lines."""
    module = f"{distribution.replace('-', '_')}_{name}"
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    with (info / "entry_points.txt").open("a") as file:
        file.write(f"[pitome.methods]\n{name} = {module}\n")
    (folder / f"{module}.py").write_text(text)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """install(distribution, name, text): as if it had been there when the process began."""
    registry.names()
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.syspath_prepend(tmp_path)
    modules = set(sys.modules)

    def call(distribution: str, name: str, text: str = "") -> None:
        write(tmp_path, distribution, name, text or METHOD.format(name=name))
        importlib.invalidate_caches()
        plugins.offered.cache_clear()
        registry._load_plugins.cache_clear()

    yield call
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    monkeypatch.undo()
    plugins.offered.cache_clear()
    registry._load_plugins.cache_clear()


def test_a_method_of_a_distribution(install: Install) -> None:
    install("dist-a", "swap")
    assert "swap" in pitome.methods()
    assert registry.get("swap").plan.__module__ == "dist_a_swap"


def test_it_is_loaded_when_it_is_asked_for_and_not_before(install: Install) -> None:
    install("dist-a", "swap")
    assert list(plugins.offered()) == ["swap"]
    assert "tome" in registry.loaded() and registry.get("tome").name == "tome"
    assert "dist_a_swap" not in sys.modules and "swap" not in registry.loaded()
    with pytest.raises(UsageError, match="did you mean swap"):
        registry.get("swop")
    assert "dist_a_swap" not in sys.modules
    registry.get("swap")
    assert "dist_a_swap" in sys.modules


BROKEN = {
    "1 / 0": "ZeroDivisionError: division by zero",
    "raise SystemExit(3)": "SystemExit: 3",
    "import no_such_module": "No module named 'no_such_module'",
    "def f(:": "SyntaxError",
    "raise ValueError": "(ValueError)",
    METHOD.format(name="tome"): "registered already",
    METHOD.format(name="other"): "registers no method of that name",
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_one_that_fails_is_one_line_and_stops_no_other(
    install: Install, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    install("dist-a", "bad", text)
    install("dist-b", "swap")
    with caplog.at_level(logging.WARNING, logger="pitome"):
        names = pitome.methods()
        pitome.methods()
    assert "bad" not in names and {"swap", "tome"} <= set(names)
    assert registry.get("tome").plan.__module__ == "pitome.merge.methods.tome"
    (warning,) = caplog.messages
    assert warning.startswith("merge=bad of ") and "dist-a" in warning
    assert BROKEN[text] in warning and "\n" not in warning
    with pytest.raises(MethodError, match=r"merge=bad of .*dist-a"):
        registry.get("bad")


def test_the_names_of_this_package_are_not_to_be_had(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("dist-a", "pitome")
    assert registry.get("pitome").plan.__module__ == "pitome.merge.methods.pitome"
    assert "pitome" in pitome.methods()
    assert caplog.messages == ["merge=pitome of dist-a is left out: pitome has a method of that name"]


def test_of_two_that_offer_a_name_one_counts(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("dist-b", "swap")
    install("dist-a", "swap")
    assert registry.get("swap").plan.__module__ == "dist_a_swap"
    assert caplog.messages == ["merge=swap of dist-b is left out: dist-a offers that name too"]


def test_the_command_line_knows_the_names_without_torch(tmp_path: Path) -> None:
    write(tmp_path, "dist-a", "swap", METHOD.format(name="swap"))
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]\n"
    code += "from pitome.cli.main import main\nfor word in sys.argv[1:]: main([word, 'weights=random'])"
    done = subprocess.run(
        [sys.executable, "-c", code, "merge=swapp", "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: unknown merge=swapp; did you mean swap")
    assert "  swap               of dist-a\n" in done.stdout


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Hydra can choose is the process's: as before afterwards."""
    register_schema()
    monkeypatch.setitem(ConfigStore.instance().repo, "merge", {})


@pytest.mark.usefixtures("choices")
def test_it_can_be_chosen_on_the_command_line(install: Install) -> None:
    install("dist-a", "swap")
    install("dist-b", "bad", "1 / 0")  # not asked for, so it does not matter
    (_, (config, _)) = check_command_line(["merge=tome,swap", "weights=random", "ratio=0.9"], multirun=True)
    assert config.merge.name == "swap"
    assert config.merge.options == dataclasses.asdict(MethodOptions())


@pytest.mark.usefixtures("choices")
def test_one_that_fails_ends_the_command_that_asks_for_it(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("dist-a", "bad", "1 / 0")
    assert main(["-m", "merge=tome,bad", "weights=random"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (
        "error: merge=bad of the distribution dist-a cannot be loaded (ZeroDivisionError: division by zero)\n"
    )
