"""docs/dense.md: what merging costs features of single patches (`scripts/dense.py`)."""

from __future__ import annotations

import json

from pitome.config import CONF
from pitome.records.markdown import markdown_table
from pitome.records.statistics import compare

FILE = CONF.parent / "results" / "dense" / "clip_scenes.json"


def tables() -> dict[str, str]:
    """Every method and ratio against the unmerged model, paired by scene."""
    rows = json.loads(FILE.read_text(encoding="utf-8"))["rows"]
    whole, lines = rows[0]["right"], []
    scenes = list(range(len(whole)))
    for row in rows:
        found = compare(scenes, row["right"], scenes, whole)
        assert found is not None
        points = [100 * value for value in vars(found.difference).values()]
        merged = row["method"] != "none"
        lines.append(
            [
                f"`{row['method']}`",
                f"{row['ratio']:g}" if merged else "-",
                str(row["tokens"]),
                f"{100 * row['share']:.1f}",
                f"{100 * row['miou']:.1f}",
                f"{100 * sum(row['right']) / len(scenes):.1f}",
                f"{points[0]:+.1f} [{points[1]:+.1f}, {points[2]:+.1f}]" if merged else "-",
            ]
        )
    header = ["Method", "Ratio", "Tokens left", "Cost %", "mIoU %", "Patches right %", "Difference [95 %]"]
    return {"segmentation": markdown_table(header, lines)}
