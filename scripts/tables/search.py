"""docs/search.md: schedules against the uniform ratio at equal FLOPs."""

from __future__ import annotations

from pitome.paper.experiments import load
from pitome.records.markdown import markdown_table
from pitome.report import schedules
from pitome.report.items import outcomes_in, published_records, published_stores


def tables() -> dict[str, str]:
    """The table of the published runs, and what it says in a sentence."""
    made = schedules.table(load("schedules"), published_records(), outcomes_in(published_stores()))
    if made is None:
        return {"schedules": "No runs yet."}
    text = markdown_table(made.header, made.rows, right=set(range(len(made.header))) - made.text)
    return {"schedules": "\n\n".join([text, *made.notes])}
