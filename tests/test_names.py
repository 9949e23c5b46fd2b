"""Names that mean one thing."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests import ROOT


def test_a_name_of_a_type_stands_for_one_type() -> None:
    """Classes, and what a module calls a type that is put together of others (`Batch = ...`)."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "pitome").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            match node:
                case ast.ClassDef(name=name):
                    places[name].append(str(path.relative_to(ROOT)))
                case ast.Assign(targets=[ast.Name(id=name)]) if name[0].isupper() and not name.isupper():
                    places[name].append(str(path.relative_to(ROOT)))
    assert len(places) > 200
    twice = {name: files for name, files in places.items() if len(files) > 1}
    assert not twice
