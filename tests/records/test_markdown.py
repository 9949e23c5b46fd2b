"""Names in Markdown are read as they are written."""

from __future__ import annotations

import pytest

from pitome.records.markdown import escape, escape_words


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("pitome_repo, ratio 0.9 [+0.1, 0.2]", "pitome_repo, ratio 0.9 [+0.1, 0.2]"),
        ("a|b", r"a\|b"),
        ("*a* **b**", r"\*a\* \*\*b\*\*"),
        ("_a_ __b__ c_", r"\_a\_ \_\_b\_\_ c\_"),
        ("`code`", r"\`code\`"),
        ("<script>", "&lt;script>"),
        ("&lt; & &#60;", "&amp;lt; & &amp;#60;"),
        ("[a](http://b)", r"[a]\(http://b)"),
        ("a\\|b", r"a\\\|b"),
        ("~~a~~", r"\~\~a\~\~"),
        ("$a$ 5", r"\$a\$ 5"),
        ("5 $", "5 $"),
        ("a\nb\r\n| c", r"a b \| c"),
    ],
)
def test_names(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_code_in_a_line_stays() -> None:
    assert escape_words("run `a_ *|* b` on <x> *y*") == "run `a_ *|* b` on &lt;x> \\*y\\*"
    assert escape_words("one ` alone") == "one \\` alone"
