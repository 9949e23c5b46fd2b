"""From records to the page: views, records, pictures and the plotting library in one HTML file."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import importlib.resources
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from pitome.records.code import other_code
from pitome.records.files import write_atomically
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.report.page import items, speed, sweeps
from pitome.report.page.figures import palette
from pitome.report.page.view import PagePicture, View


def write(path: Path, local: Store, published: Store) -> Path:
    """Write the page of the runs in these two folders. Raises RecordError if it cannot be written,
    ExperimentError for a file of experiments/ with a mistake."""
    runs, committed = (os.path.relpath(store.folder, path.parent) for store in (local, published))
    bench = published.folder.parent / "bench"
    write_atomically(path, html(local, published, runs, committed, bench).encode())
    return path


def html(
    local: Store,
    published: Store,
    runs: str = "runs",
    committed_to: str = "published",
    bench: Path | None = None,
) -> str:
    """The page. Equal records give an equal page. runs, committed_to: where it finds the two folders; bench:
    the folder of speed records."""
    import jinja2
    from plotly.offline import get_plotlyjs

    local_records, committed = local.all(), published.all()
    # of single options, of the theorem, of trainings and of schedules, which have no tables of their own here
    aside = {
        f"{committed_to}/{name}": Store(published.folder / name).all()
        for name in ("variants", "theorem", "trained", "schedules")
    }
    folders = {runs: local_records, committed_to: committed} | aside
    views = items.views(local_records, [*committed, *itertools.chain.from_iterable(aside.values())])
    drawn = pictures(published.folder / "pictures")
    views += sweeps.views(committed, published.outcomes, drawn)
    views += sweeps.views(local_records, local.outcomes, drawn, prefix="Local: ")
    views += speed.views(bench) if bench is not None else []
    views = linked([view.compact() for view in unique(views)])
    folder = importlib.resources.files("pitome.report.page") / "templates"
    style = (folder / "page.css").read_text()
    for ground, name in enumerate(("SERIES_ON_WHITE", "SERIES_ON_BLACK")):
        style = style.replace(name, palette(ground))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pitome.report.page", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        views=views,
        style=style,
        script=(folder / "page.js").read_text(),
        answers=answers(views),
        total=total(views),
        causes=causes(views),
        tones={word: items.tone(word) for view in views for word in view.tally} | sweeps.TONES,
        runs=len({record.run_id for record in [*local_records, *committed] if record.done}),
        sweeps=sum(view.kind == "sweep" for view in views),
        note=other_code([*local_records, *committed]),
        packed={
            "records": packed(json.dumps(records_of(views, folders))),
            "figures": packed(json.dumps({view.key: [plot.panels for plot in view.plots] for view in views})),
            "plotly": packed(get_plotlyjs()),
        },
    )


def packed(text: str) -> str:
    """Gzip in base64, a third of the size and more; equal for equal texts. The page unpacks it."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def answers(views: Sequence[View]) -> list[View]:
    """What a reader asks first, one for each task: the sweep with the most rows that says who is best."""
    best: dict[str, View] = {}
    for view in views:
        if view.kind == "sweep" and view.findings and view.plots:
            known = best.get(view.item)
            best[view.item] = view if known is None or len(view.lines) > len(known.lines) else known
    return sorted(best.values(), key=lambda view: -len(view.lines))


def total(views: Sequence[View]) -> dict[str, int]:
    """Verdict -> values of the paper that have it."""
    counts: dict[str, int] = {}
    for view in views:
        if view.kind == "paper":
            for judgement, count in view.tally.items():
                verdict = judgement.partition(": ")[0]
                counts[verdict] = counts.get(verdict, 0) + count
    return counts


def causes(views: Sequence[View]) -> str:
    """Why values of the paper are outside: `40 other FLOPs convention, 8 unexplained`."""
    counts: Counter[str] = Counter()
    for view in views:
        for judgement, count in view.tally.items() if view.kind == "paper" else ():
            if cause := judgement.partition(": ")[2]:
                counts[cause] += count
    return ", ".join(f"{count} {cause}" for cause, count in counts.most_common())


def records_of(views: Sequence[View], folders: Mapping[str, Sequence[Record]]) -> dict[str, object]:
    """Run id -> the record as it stands in its file, and the file's place beside the page."""
    shown = {run_id for view in views for line in view.lines for run_id in line.records}
    contents: dict[str, object] = {}
    for folder, records in folders.items():
        for record in records:
            if record.run_id in shown:
                values = dataclasses.asdict(record)
                contents[record.run_id] = {"file": f"{folder}/{record.run_id}.json", "record": values}
    return contents


def unique(views: Sequence[View]) -> list[View]:
    """Views with different keys: the same runs may be published and repeated."""
    seen: dict[str, int] = {}
    out = []
    for view in views:
        seen[view.key] = seen.get(view.key, 0) + 1
        key = view.key if seen[view.key] == 1 else f"{view.key}-{seen[view.key]}"
        out.append(dataclasses.replace(view, key=key))
    return out


def linked(views: Sequence[View]) -> list[View]:
    """Without links to views that are not on the page."""
    keys = {view.key for view in views}
    return [
        dataclasses.replace(view, links={key: text for key, text in view.links.items() if key in keys})
        for view in views
    ]


def pictures(folder: Path) -> dict[str, list[PagePicture]]:
    """Token pictures by model, of a folder with PNG files of scripts/show_tokens.py, which say in their
    text chunks what they show."""
    by_model: dict[str, list[PagePicture]] = {}
    for path in sorted(folder.glob("*.png")):
        content = io.BytesIO()
        with Image.open(path) as image:
            facts, (width, height) = dict(image.text), image.size  # type: ignore[attr-defined]
            # 256 colours: less than half as large, and no eye sees it
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(content, "png", optimize=True)
        if "Model" in facts:
            made = PagePicture(
                title=facts.get("Title", path.stem),
                data="data:image/png;base64," + base64.b64encode(content.getvalue()).decode(),
                alt=facts.get("Description", ""),
                command=facts.get("Command", ""),
                width=width,
                height=height,
            )
            by_model.setdefault(facts["Model"], []).append(made)
    return by_model
