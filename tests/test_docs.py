"""Docs: every link leads somewhere, and the page on the architecture names every package and arrow."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests import ROOT

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
    assert found and all(what.strip() and "data.root=" in example for what, example in found)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_is_named_exists(page: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert (ROOT / file).is_file(), file
        assert f"def {name}" in (ROOT / file).read_text(), f"{file}::{name}"
