"""The one writer of Markdown tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """A table in GitHub's Markdown, without an end of line; empty without rows.

    Cells are Markdown already. right: indices of the columns whose cells are aligned to the right.
    """
    if not rows:
        return ""
    rule = ["---:" if j in right else "---" for j in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
