"""What mkdocs cannot do itself: the page of the command line, and links to files outside docs/."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_OUTSIDE = re.compile(r"\[([^\]]*)\]\((\.\./[^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the page of groups, choices and keys, made from conf/ as `python run.py --help` is."""
    from pitome.cli.help import help_text
    from pitome.config import CONF

    text = (
        f"# Command line\n\n`python run.py --help`, made from `conf/`:\n\n```text\n{help_text(CONF)}\n```\n"
    )
    files.append(File.generated(config, "configuration.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Files outside docs/ are links where the repository's address is given (REPOSITORY), else names."""
    address = os.environ.get("REPOSITORY")

    def replaced(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = (ROOT / "docs" / target.partition("#")[0]).resolve()
        if not path.exists():
            raise FileNotFoundError(f"docs/{page.file.src_uri} links to {target}")
        if not address:
            return text
        return f"[{text}]({address}/blob/main/{path.relative_to(ROOT)})"

    return _OUTSIDE.sub(replaced, markdown)
