"""What the records say: python scripts/report.py [WHAT ...] [results=FOLDER]

Without a word: tables and plots of the local runs (results/runs; the published ones where there are
none), and the page. FOLDER: tables and plots of the runs in a folder. NAME: an experiment
beside the paper (table5, table5_offline, ...). status [NAME ...]: how far experiments are. offline: what
the published offline experiments gave. page: results/index.html. results: where the runs are, as for
run.py; default: results/runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pitome.errors import DataError, PitomeError, UsageError, nearest
from pitome.records.store import Store
from pitome.report import plots, tables

RESULTS = Path(__file__).parent.parent / "results"


def main(words: list[str], results: Path = RESULTS) -> int:
    """Report what `words` ask for. Returns the exit code."""
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return 0
    given = [word.partition("=")[2] for word in words if word.startswith("results=")]
    words = [word for word in words if not word.startswith("results=")]
    local, published = Store(Path(given[-1]) if given else results / "runs"), Store(results / "published")
    try:
        if given and not local.folder.is_dir():
            raise UsageError(f"results={given[-1]}: no such folder; give the one that run.py wrote to")
        if words[:1] == ["status"]:
            status(words[1:], local)
            return 0
        for word in words:  # a misspelt one is reported before anything is made
            check_word(word)
        for word in words or [str(default(local, published).folder), "page"]:
            if word == "offline":
                offline()
            elif word == "page":
                page(local, published, local.folder.parent / "index.html")
            elif is_experiment(word):
                from pitome.report.items import show_item

                show_item(word, local)
            else:
                report(Store(word))
    except PitomeError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def report(store: Store) -> None:
    """Print the tables of a folder and write report.md and the plots beside its runs."""
    records = store.all()
    if not records:
        raise DataError(
            f"no recorded runs in {store.folder}; run `make demo`, name an experiment or a folder with runs"
        )
    built = tables.build(records, store.outcomes)
    tables.show(built)
    tables.write_markdown(store.folder / "report.md", built)
    print(*[store.folder / "report.md", *plots.plot(records, store.folder)], sep="\n")


def status(names: list[str], local: Store) -> None:
    """Print how far these experiments are among the local runs, or all of them."""
    from pitome.report.status import sweeps, to_table

    tables.show([to_table(names or sweeps(), local)])


def offline() -> None:
    """Print what the published offline experiments gave; docs/reproducing.md has the same table."""
    from pitome.report.items import published_records
    from pitome.report.offline import to_table

    tables.show([to_table(published_records())])


def page(local: Store, published: Store, path: Path) -> None:
    """Write the page of all results."""
    from pitome.report.page.build import write

    print(write(path, local, published))


def is_experiment(word: str) -> bool:
    """Whether `word` names an experiment; a folder of the same name is meant by ./name."""
    from pitome.paper import experiments

    return "/" not in word and experiments.is_experiment(word)


def check_word(word: str) -> None:
    """Raises UsageError for what is neither a report, an experiment nor a folder."""
    from pitome.paper.experiments import experiment_names

    reports = ("offline", "page")
    if "/" not in word and word not in reports and not is_experiment(word) and not Path(word).is_dir():
        known = [*experiment_names(skip_broken=True), *reports]
        raise UsageError(f"{word} is neither an experiment nor a folder; {nearest(word, known)}")


def default(local: Store, published: Store) -> Store:
    """The local runs if there are any, else the published ones."""
    return local if any(local.folder.glob("*.json")) else published


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
