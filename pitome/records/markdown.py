"""The one writer of Markdown tables, and names as plain text in them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_MEANING = re.compile(r"[\\`*|~]|(?<=\])\(|(?<![^\W_])_|_(?![^\W_])")
_CODE = re.compile(r"(`[^`]*`)")


def escape(text: str) -> str:
    """Plain text in which Markdown and HTML read no command, on one line. What has no meaning stays: an
    underscore within a word, brackets, a single dollar sign."""
    return _escaped(" ".join(text.split()))


def escape_words(line: str) -> str:
    """A line with `code` in it, which stays as it is."""
    parts = _CODE.split(" ".join(line.split()))  # every second one is code
    return "".join(part if i % 2 else _escaped(part) for i, part in enumerate(parts))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """A table in GitHub's Markdown, without an end of line; empty without rows.

    Cells are Markdown already. right: indices of the columns whose cells are aligned to the right.
    """
    if not rows:
        return ""
    rule = ["---:" if j in right else "---" for j in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def _escaped(text: str) -> str:
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;")
    text = _MEANING.sub(lambda match: f"\\{match[0]}", text)
    return text.replace("$", "\\$") if text.count("$") > 1 else text
