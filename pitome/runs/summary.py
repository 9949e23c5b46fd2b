"""The end of a sweep: tables in the terminal and as Markdown, the plot as PNG."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pitome.config import Config
from pitome.errors import PitomeError, as_typed
from pitome.records.code import other_code
from pitome.records.groups import group
from pitome.records.identity import UNMERGED
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.records.sweeps import new_folder
from pitome.report import plots, tables
from pitome.runs.job import Finished
from pitome.runs.paths import shown
from pitome.runs.sweep_log import log_sweep
from pitome.runs.token_pictures import picture


def show(finished: Sequence[Finished], configs: Sequence[Config], folder: Path | None) -> None:
    """Print the tables of these runs and write them, with the plot and a picture of what merged, to
    `folder`; None: a new one, results/sweeps/<time>/. configs: one for each run."""
    store = finished[0].store
    runs = [run for job in finished for run in job.runs]
    records = with_baselines([run.record for run in runs], store)
    built = tables.build(records, store.outcomes)
    tables.show(built)
    print()
    every = {run.record.run_id for run in runs}
    if (note := other_code(records)) is not None:
        print(note)
    known = every - {run.record.run_id for run in runs if run.repeated}
    if known:
        print(f"{len(known)} of {len(every)} runs were recorded before (overwrite=all repeats them)")
    try:
        folder = folder or new_folder(store.folder.parent / "sweeps")
        tables.write_markdown(folder / "table.md", built, note)
        compared = sum(len(table.rows) for table in built if table.title.endswith(": comparisons"))
        print(
            f"table: {shown(folder / 'table.md')}" + (f" (with {compared} comparisons)" if compared else "")
        )
        for path in plots.plot(records, folder):
            print(f"plot:  {shown(path)}")
        tokens = picture(
            [config for config, job in zip(configs, finished, strict=True) if job.record.done], folder
        )
        if tokens is not None:
            print(f"tokens: {shown(tokens)}")
        print(as_typed("page of all results: python scripts/report.py page"))
        log_sweep(configs[0].logger, built, tokens, folder.parent.parent)
    except PitomeError as problem:
        print(f"error: {problem}", file=sys.stderr)


def with_baselines(records: Sequence[Record], store: Store) -> list[Record]:
    """These runs, each once, and the recorded unmerged runs that they can be compared with."""
    wanted = {record.run_id: record for record in records}
    unmerged = [record for record in store.all() if record.method.name == UNMERGED and record.done]
    for members in group([*records, *(record for record in unmerged if record.run_id not in wanted)]):
        if any(member.run_id in wanted for member in members):
            wanted |= {member.run_id: member for member in members}
    return list(wanted.values())
