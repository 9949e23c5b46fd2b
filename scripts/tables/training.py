"""docs/training.md: what a short training with merging on gives back, task by task."""

from __future__ import annotations

from pitome.records.markdown import markdown_table
from pitome.report.items import outcomes_in, published_records, published_stores
from pitome.report.trained import table

ITEMS = {"images": "table5", "texts": "table6", "retrieval": "table2"}


def tables() -> dict[str, str]:
    """A table per task, of the published runs."""
    records, outcomes = published_records(), outcomes_in(published_stores())
    made = {name: table(item, records, outcomes) for name, item in ITEMS.items()}
    return {
        name: markdown_table(found.header, found.rows, right={0, *range(2, 8)})
        for name, found in made.items()
        if found is not None
    }
