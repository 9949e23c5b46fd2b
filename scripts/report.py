"""Tables and plots of all recorded runs: python scripts/report.py [FOLDER ...]

Without a folder: the local runs (results/runs), or the published ones where there are none.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pitome.errors import DataError, PitomeError
from pitome.records import plots, tables
from pitome.records.store import Store

RESULTS = Path(__file__).parent.parent / "results"


def main(folders: list[str]) -> int:
    """Print the tables and write report.md and the plots beside the runs. Returns the exit code."""
    try:
        for folder in map(Path, folders or [default()]):
            store = Store(folder)
            records = store.all()
            if not records:
                raise DataError(f"no recorded runs in {folder}; run `make demo`, or name a folder with runs")
            built = tables.build(records, store.outcomes)
            tables.show(built)
            tables.write_markdown(folder / "report.md", built)
            print(*[folder / "report.md", *plots.plot(records, folder)], sep="\n")
    except PitomeError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def default() -> str:
    """The local runs if there are any, else the published ones."""
    local = RESULTS / "runs"
    return str(local if any(local.glob("*.json")) else RESULTS / "published")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
