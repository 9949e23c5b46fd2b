"""Names that mean one thing."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests import ROOT

# To become fewer, not more.
STILL_TWICE = {"Cell", "DataInfo", "ImageFiles", "Picture", "Row", "Samples", "Text"}


def test_a_class_name_stands_for_one_class() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "pitome").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    twice = {name: files for name, files in places.items() if len(files) > 1}
    assert twice.keys() <= STILL_TWICE, twice
