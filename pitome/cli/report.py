"""Reports from the records: python scripts/report.py [WHAT ...] [results=FOLDER]

WHAT is one of:
  FOLDER             tables and plots of the runs in a folder
  NAME               an experiment beside the paper's values (table5, table5_offline, ...)
  status [NAME ...]  how far sweeps and experiments are
  plan NAME ...      what experiments will take: runs, hours, disk, downloads; device=KIND[:COUNT] (default
                     cpu; h100:4, ...), precision=16-mixed
  offline            what the published offline experiments gave
  page               the page of all results, results/index.html
  --push             send the local runs and the page to Weights & Biases, without running anything again
  seal FOLDER        add a digest to records of before records had one
Default: tables and plots of the local runs (of the published ones if there are none) as files, and the page.
results=FOLDER: where the runs are, as for run.py; default: results/runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from pitome.config import CONF
from pitome.errors import INSTALLED, DataError, PitomeError, UsageError, as_typed, nearest, print_error
from pitome.paper.experiments import experiment_names, is_experiment
from pitome.records.code import other_code
from pitome.records.store import Store
from pitome.report import items, offline, plan, plots, status, tables
from pitome.report.page import build
from pitome.sources.hub import say

RESULTS = Path("results") if INSTALLED else CONF.parent / "results"
REPORTS = ("offline", "page")
COMMANDS = ("status", "plan", "seal")  # first words; what follows is theirs


def main(words: list[str], results: Path = RESULTS) -> int:
    """Report what `words` ask for. Returns the exit code."""
    if {"-h", "--help"} & set(words):
        print(as_typed(__doc__ or ""))
        return 0
    given = [word.partition("=")[2] for word in words if word.startswith("results=")]
    words = [word for word in words if not word.startswith("results=")]
    local = Store(Path(given[-1]) if given else results / "runs")
    published = Store(items.PUBLISHED if results == RESULTS else results / "published")
    try:
        if given and not os.path.isdir(local.folder):
            raise UsageError(f"results={given[-1]}: no such folder; give the one that run.py wrote to")
        if words[:1] == ["status"]:
            under_way = [] if words[1:] else status.of_sweeps(local)
            tables.show([*under_way, status.to_table(words[1:] or status.sweeps(), local)])
            return 0
        if words[:1] == ["plan"]:
            tables.show([plan.from_words(words[1:], local, items.published_records())])
            return 0
        if words[:1] == ["seal"]:
            if len(words) != 2 or not os.path.isdir(words[1]):
                raise UsageError("seal takes one folder with records: python scripts/report.py seal FOLDER")
            print(f"{Store(words[1]).seal()} records in {words[1]} were given a digest")
            return 0
        for word in words:  # a misspelt one is reported before anything is made
            check_word(word)
        newest = local if any(local.folder.glob("*.json")) else published
        if not words:
            return _everything(newest, local, published)
        if words == ["--push"]:
            from pitome.runs.push import push

            push(local, build.write(local.folder.parent / "index.html", local, published))
            return 0
        for word in words:
            if word == "offline":
                tables.show([offline.to_table(items.published_records())])
            elif word == "page":
                print(build.write(local.folder.parent / "index.html", local, published))
            elif names_experiment(word):
                items.show_item(word, local)
            else:
                report(Store(word))
    except (PitomeError, OSError) as problem:
        return print_error(problem)
    except KeyboardInterrupt:
        return 130
    return 0


def _everything(newest: Store, local: Store, published: Store) -> int:
    """Reports of the newest runs and the page: says what is made, ends with the page's place."""
    if newest.all():  # which is remembered
        say(f"tables and plots of the runs in {newest.folder} ...")
    made, note, paths = write_report(newest)
    plotted = f"{len(paths) - 1} plots" if len(paths) > 2 else "a plot" if len(paths) > 1 else "no plot"
    say(f"{len(made)} tables and {plotted}: {paths[0]}")
    say(f"the page of all results, those in {published.folder} among them ...")
    if note is not None:
        say(note)
    print(build.write(local.folder.parent / "index.html", local, published))
    return 0


def report(store: Store) -> None:
    """Print the tables of a folder and write report.md and the plots beside its runs."""
    made, note, paths = write_report(store)
    tables.show(made)
    if note is not None:
        print(note)
    print("", *paths, sep="\n")


def write_report(store: Store) -> tuple[list[tables.Table], str | None, list[Path]]:
    """Write report.md and the plots beside the runs of a folder: tables, the note below them, and the files.
    Raises DataError for a folder without runs."""
    records = store.all()
    if not records:
        raise DataError(
            f"no recorded runs in {store.folder}; run `make demo`, name an experiment or a folder with runs"
        )
    made = tables.build(records, store.outcomes)
    note = other_code(records)
    tables.write_markdown(store.folder / "report.md", made, note)
    return made, note, [store.folder / "report.md", *plots.plot(records, store.folder)]


def names_experiment(word: str) -> bool:
    """Whether `word` names an experiment; a folder of the same name is meant by ./name."""
    return "/" not in word and is_experiment(word)


def check_word(word: str) -> None:
    """Raises UsageError for what is neither a report, an experiment nor a folder."""
    if "/" in word or word in REPORTS or names_experiment(word) or os.path.isdir(word):
        return
    known = [*COMMANDS, *REPORTS, "--push", *experiment_names(skip_broken=True)]
    raise UsageError(f"{word} is neither an experiment nor a folder; {nearest(word, known)}")
