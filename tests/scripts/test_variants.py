"""docs/variants.md is what the published records give."""

from __future__ import annotations

import importlib.util

from pitome.config import CONF
from pitome.records.store import Store
from pitome.report.items import PUBLISHED, VARIANTS


def test_the_page_is_made_of_the_records() -> None:
    path = CONF.parent / "scripts" / "variants.py"
    spec = importlib.util.spec_from_file_location("variants", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.page([Store(PUBLISHED), Store(VARIANTS)]) == script.PAGE.read_text()
