"""docs/reproducing.md: what the published offline experiments gave."""

from __future__ import annotations

from pitome.records.markdown import markdown_table
from pitome.report.items import published_records
from pitome.report.offline import to_table


def tables() -> dict[str, str]:
    """The table of `python scripts/report.py offline`."""
    table = to_table(published_records())
    return {"offline": markdown_table(table.header, table.rows)}
