"""docs/retrieval_flops.md: follows from the printed values and the code, and says what is so."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import yaml

import pitome
from tests import ROOT

SCRIPTS = ROOT / "scripts"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """scripts/retrieval_flops.py as a module."""
    spec = importlib.util.spec_from_file_location("retrieval_flops", SCRIPTS / "retrieval_flops.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks there for its annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def towers(script: ModuleType) -> dict[str, Any]:
    return {name: script.Tower(name) for name in script.TOWERS}


def printed(script: ModuleType, kind: str) -> list[Any]:
    return [script.Row(**entry) for entry in yaml.safe_load(script.PRINTED.read_text())[kind]]


def cut(value: float, like: str) -> str:
    """`value` with as many digits as `like`, the rest cut off."""
    digits = len(like.partition(".")[2])
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


def test_the_page_is_up_to_date(script: ModuleType, towers: dict[str, Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(script, "Tower", towers.__getitem__)
    assert script.page(yaml.safe_load(script.PRINTED.read_text())) == script.PAGE.read_text()


def test_the_formula_gives_what_the_page_says_it_gives(script: ModuleType, towers: dict[str, Any]) -> None:
    for row in printed(script, "costs"):
        formula = towers[row.tower].formula(row, row.ratio, class_token=True)
        assert (cut(formula, row.printed) == row.printed) is not (row.row == "BLIP"), row
    clip, blip = printed(script, "speedups")
    for row, same in ((clip, True), (blip, False)):
        tower = towers[row.tower]
        share = tower.formula(row, None, class_token=True) / tower.formula(row, row.ratio, class_token=True)
        assert (cut(share, row.printed) == row.printed) is same


def test_the_closed_form_is_what_a_forward_costs(script: ModuleType, towers: dict[str, Any]) -> None:
    """Counted operation by operation on the meta device, merging included."""
    row = next(row for row in printed(script, "speedups") if row.tower == "clip_l")
    tower = towers["clip_l"]
    with pitome.patch(tower.model, "pitome_repo", ratio=row.ratio):
        counted = pitome.flops(tower.model).macs
    assert counted == tower.ours("pitome_repo", row).macs
