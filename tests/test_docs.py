"""Docs: every link leads somewhere, and the page on the architecture names every package and arrow."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import pitome
from pitome.sources.yaml_files import read_yaml
from tests import ROOT
from tests.cli.worker import Worker

PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "pitome").rglob("*.md")]
    if "node_modules" not in path.parts
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """The anchors that headings make, as repositories show them."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        place, _, anchor = link.partition("#")
        if place.startswith(("https://", "http://", "mailto:")):
            continue
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target.read_text()), f"{page.name} links to {link}"


def test_the_architecture_names_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    folders = [path.parent.relative_to(ROOT) for path in (ROOT / "pitome").rglob("__init__.py")]
    missing = [str(folder) for folder in folders if f"{folder.name}/" not in text and folder.name != "pitome"]
    assert not missing


def test_the_architecture_shows_the_contract() -> None:
    """The layers stand there in the order that `make lint` enforces."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    arrows = " < ".join(layer.replace(" | ", ", ") for layer in reversed(layers))
    assert arrows in (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf" / "data").glob("*.yaml")))
def test_every_data_set_has_a_row_and_an_example(name: str) -> None:
    text = (ROOT / "docs" / "data.md").read_text()
    rows = [
        line.split("|")[1:4] for line in text[text.index("## Data sets") :].splitlines() if line[:2] == "| "
    ]
    found = [(what, example) for sets, what, example in rows if name in re.split(r"[ ,]+", sets)]
    made = read_yaml(ROOT / "conf" / "data" / f"{name}.yaml").get("sources") == ["package"]  # takes no folder
    given = f"data={name}" if made else "data.root="
    assert found and all(what.strip() and given in example for what, example in found)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_is_named_exists(page: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert (ROOT / file).is_file(), file
        assert f"def {name}" in (ROOT / file).read_text(), f"{file}::{name}"


def commands() -> dict[str, str]:
    """Command of run.py and show_tokens in a code block -> the page with it."""
    found = {}
    for page in PAGES:
        text = "" if page.name == "adding.md" else page.read_text()  # tests/test_adding.py runs those
        for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                line = line.partition(" #")[0]
                if line.startswith(("python run.py", "python scripts/show_tokens.py")) and "..." not in line:
                    found[" ".join(line.split())] = page.name
    return found


PLACES = (
    "no such folder",
    "no such file",
    "is not installed",
    " needs ",
    "cannot be read",
)  # not on this machine


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("docs")
    (folder / "my_method.py").write_text(python_blocks("tutorial_method")[0])
    made = Worker(folder)
    yield made
    made.close()


@pytest.mark.parametrize(
    "pages", ["README", pytest.param("", marks=pytest.mark.nightly)], ids=["short", "all"]
)
def test_every_command_is_accepted(pages: str, worker: Worker) -> None:
    """Composed and checked, up to where torch would be imported."""
    refused = {}
    for line, page in commands().items():
        if pages not in page:
            continue
        name, *words = shlex.split(line.removeprefix("python "))
        answer = worker("run" if name == "run.py" else "show_tokens", words)
        if answer.fault or (answer.code == 2 and not any(place in answer.err for place in PLACES)):
            refused[f"{page}: {line}"] = answer.fault or answer.err
    assert len(commands()) > 40 and not refused


def python_blocks(name: str) -> list[str]:
    text = (ROOT / "docs" / f"{name}.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_tutorial_on_a_method_gives_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from pitome.merge import registry
    from tests.adapters.tiny import images, vit

    registry.names()
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    exec(python_blocks("tutorial_method")[0], {"__name__": "my_method"})
    model = vit()
    with pitome.patch(model, "mine", ratio=0.9) as patched:
        model(images(model))
    assert patched.tokens == [16, 15, 14, 13, 12]


def test_the_tutorial_on_a_model_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec("".join(python_blocks("tutorial_model")), {})
    shown = capsys.readouterr().out
    assert "[197, 183, " in shown and "of the unmerged model" in shown and "times as fast [" in shown


def test_the_notebook_runs(capsys: pytest.CaptureFixture[str]) -> None:
    cells = json.loads((ROOT / "docs" / "first_steps.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells)
    exec("\n".join(code), {})
    shown = capsys.readouterr().out
    assert "[197, 178, " in shown and re.search(r"\(\d\d%\)\n", shown) and "random" in shown


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs mkdocs: pip install -e '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference.html").read_text()
    assert "At most this share" in reference or "ratio" in reference
    assert "merge=tome r=16" in (tmp_path / "configuration.html").read_text()
    pages = "".join(path.read_text() for path in tmp_path.glob("*.html"))
    assert not re.findall(
        r'<(?:script|link|img)[^>]+(?:src|href)="https?://', pages
    )  # works without a network
