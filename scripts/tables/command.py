"""The tables of docs/: python -m scripts.tables [PAGE ...] [--write]

Prints the tables of these pages in Markdown, of all pages without a name: PAGES.
--write puts them between the markers of docs/PAGE.md instead, and draws their figures.
Costs follow from what the paper prints (scripts/tables/*.yaml) and from architectures built without
weights, the other tables from published records: no model is run.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from pitome.errors import PitomeError, UsageError, nearest
from pitome.records.files import write_atomically

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = (
    "dense",
    "models",
    "reproducing",
    "results",
    "retrieval_flops",
    "search",
    "spectral",
    "text_flops",
    "training",
    "variants",
    "vqa_flops",
)
"""Pages of docs/ with tables between markers; the module of the same name has `tables()`."""
FIGURES = {"spectral": "scripts.tables.spectral", "text_flops": "scripts.tables.text_figure"}
"""Page -> the module whose `write` draws its figure."""
_MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def main(words: Sequence[str]) -> int:
    """Print or write the tables of the pages named. Returns the exit code."""
    if {"-h", "--help"} & set(words):
        print((__doc__ or "").replace("PAGES.", f"{', '.join(PAGES)}."))
        return 0
    names = [word for word in words if word != "--write"]
    try:
        for name in names:
            if name not in PAGES:
                raise UsageError(f"no page {name} with tables; {nearest(name, PAGES)}")
        for name in names or PAGES:
            tables = tables_of(name)
            if "--write" in words:
                path = DOCS / f"{name}.md"
                write_atomically(path, insert(path.read_text(encoding="utf-8"), tables).encode())
                print(path)
            else:
                print(*(f"{name}, {title}:\n\n{table}\n" for title, table in tables.items()), sep="\n")
        for name in FIGURES if "--write" in words else ():
            if name in (names or PAGES):
                print(importlib.import_module(FIGURES[name]).write(DOCS / f"{name}.png"))
    except (PitomeError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def tables_of(page: str) -> dict[str, str]:
    """Name in the markers -> the table in Markdown, of one page of PAGES."""
    tables: dict[str, str] = importlib.import_module(f"scripts.tables.{page}").tables()
    return tables


def insert(text: str, tables: Mapping[str, str]) -> str:
    """`text` with each table between its markers. Raises UsageError where a table has no markers or
    markers have no table."""
    if lonely := {match[2] for match in _MARKED.finditer(text)} ^ tables.keys():
        raise UsageError(f"{', '.join(sorted(lonely))}: a table needs markers in the page, and these a table")
    return _MARKED.sub(lambda match: f"{match[1]}{tables[match[2]]}\n{match[3]}", text)
