"""The page without a browser: its numbers are those of the records, its commands make them again."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pitome.config import portable
from pitome.paper.verdicts import judge
from pitome.records import Record, Store
from pitome.report.page import build, items, speed, sweeps
from pitome.report.page.command import command_of
from pitome.report.page.figures import Trace, figure
from pitome.report.page.view import Column, TableCell, TableLine, View, word
from tests import ROOT
from tests.records.examples import SPEED, example, failed, outcomes, resized
from tests.test_conf import config_of

PUBLISHED = Store(ROOT / "results" / "published")


def runs() -> list[Record]:
    """A sweep with a control, a failure, a speed and an authors' variant."""
    return [
        example("none", None, 0.9),
        example("pitome", 0.9, 0.887, throughput=SPEED, measure="full"),
        example("pitome_repo", 0.9, 0.85),
        example("tome", 0.9, 0.86),
        example("random", 0.9, 0.6),
        resized(24, 24, 0.5, 0.6),
        failed("tofu", 0.9, "out of <memory>"),
    ]


def store(folder: Path) -> Store:
    made = Store(folder)
    for record in runs():
        made.save(record, outcomes(record.score) if record.done and record.score is not None else None)
    return made


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> View:
    folder = store(tmp_path_factory.mktemp("published"))
    (view,) = sweeps.views(folder.all(), folder.outcomes, {})
    return view.compact()


def line_of(view: View, method: str) -> TableLine:
    return next(line for line in view.lines if line.cells[0].value == method)


def value(view: View, method: str, column: str) -> TableCell:
    names = [one.name for one in view.columns]
    return line_of(view, method).cells[names.index(column)]


def test_numbers_are_those_of_the_records(sweep: View) -> None:
    for record in runs():
        if not record.done or record.method.name == "resize":
            continue
        name = record.method.name
        assert record.cost is not None and record.score is not None
        assert value(sweep, name, "Top-1 %").value == 100 * record.score
        assert value(sweep, name, "Cost %").value == 100 * record.cost.share
        assert value(sweep, name, "GMACs").value == record.cost.macs / 1e9
        assert value(sweep, name, "Tokens left").value == record.tokens[-1]
        assert line_of(sweep, name).records == [record.run_id]
        assert line_of(sweep, name).tokens == record.tokens
    assert value(sweep, "pitome", "Speed-up").text == "1.31 [1.28, 1.35]"
    assert value(sweep, "tome", "Speed-up").value is None


def test_verdicts_variants_and_failures(sweep: View) -> None:
    kinds = {line.cells[0].value: (line.variant, line.verdict) for line in sweep.lines}
    assert kinds["none"] == ("unmerged", "none")
    assert kinds["random"] == ("control", "worse")
    assert kinds["pitome_repo"][0] == "authors' code" and kinds["pitome"][0] == "as published"
    assert kinds["tofu"] == ("as published", "failed")
    assert line_of(sweep, "tofu").note == "failed: out of <memory>"
    assert line_of(sweep, "pitome_repo").method == "pitome"  # filtered by method, told apart by variant
    assert sum(sweep.tally.values()) == len(sweep.lines) - 1
    assert set(sweep.filters()) == {"method", "variant", "setting", "verdict"}
    assert {line.setting for line in sweep.lines} == {"-", "0.9"}  # equal for what is compared


def test_a_row_says_whom_it_beats(sweep: View) -> None:
    against = line_of(sweep, "pitome").against
    (random,) = [text for text in against if text.startswith("random: ")]
    assert random.startswith("random: +28.70 [") and random.endswith("p < 0.001, significantly better")
    assert line_of(sweep, "none").against == []


def test_plots_hold_the_same_numbers(sweep: View) -> None:
    titles = [plot.title for plot in sweep.plots]
    assert titles == ["Top-1 against FLOPs", "Top-1 against measured throughput", "Tokens layer by layer"]
    drawn = {trace["name"]: trace for trace in json.loads(sweep.plots[0].panels["all"])["data"]}
    tome = next(record for record in runs() if record.method.name == "tome")
    assert tome.cost is not None and tome.score is not None
    assert (drawn["tome"]["x"], drawn["tome"]["y"]) == ([100 * tome.cost.share], [100 * tome.score])
    (fast,) = json.loads(sweep.plots[1].panels["all"])["data"]
    assert fast["x"] == [SPEED.speedup]
    assert fast["error_x"]["array"] == [pytest.approx(SPEED.speedup_high - SPEED.speedup)]
    layers = {trace["name"]: trace for trace in json.loads(sweep.plots[2].panels["0.9"])["data"]}
    assert layers["tome"]["y"] == tome.tokens and layers["unmerged"]["y"] == [197.0] * 13


def test_columns_in_which_nothing_stands_are_left_out() -> None:
    line = TableLine(
        [TableCell("a", "a"), TableCell("-"), TableCell("worse", None, tone="bad")], "m", "a", "", "", ""
    )
    view = View("k", "sweep", "i", "t", {}, [Column("A"), Column("B"), Column("C")], [line])
    assert [column.name for column in view.compact().columns] == ["A", "C"]


def test_an_item_of_the_paper_shows_what_is_printed() -> None:
    table = items.view(judge("table5", [], []))
    names = [column.name for column in table.columns]
    printed = [line.cells[names.index("Printed")] for line in table.lines]
    assert any(cell.text == "72.30" and cell.value == 72.3 for cell in printed)
    assert sum(table.tally.values()) == len(table.lines)
    assert all(line.command.startswith("python run.py") for line in table.lines if line.command)


@pytest.mark.parametrize("which", ["vit_fmnist pitome", "minilm pitome_repo", "vit_fmnist resize"])
def test_a_command_makes_its_record_again(which: str) -> None:
    """It composes to the configuration in the record, as far as that determines the result."""
    model, method = which.split()
    record = next(
        record
        for record in PUBLISHED.all()
        if (record.model.name, record.method.name) == (model, method) and record.throughput is None
    )
    words = [word.strip("'") for word in command_of(record).split(" ")[2:]]
    made, kept = portable(config_of(*words)), record.config
    if method == "resize":
        assert made["control"] == "resize" and made["flops"] == record.method.asked["shares"][0]
        return
    for key in (
        "ratio",
        "r",
        "flops",
        "limit",
        "seed",
        "mode",
        "measure",
        "layers",
        "batch_size",
        "precision",
    ):
        assert made[key] == kept[key], key
    for group in ("task", "model", "data"):
        for key, told in kept[group].items():
            assert made[group][key] == told, (group, key)
    new = {"rank_by", "split_seed"}  # options that came later
    options = {key: value for key, value in made["merge"]["options"].items() if key not in new}
    merge = {key: value for key, value in made["merge"].items() if key in kept["merge"] or key != "places"}
    assert merge | {"options": options} == kept["merge"]


@pytest.mark.parametrize("known", [True, False])
def test_a_command_names_the_folder_of_data_of_ones_own(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the page is made far from the user's conf/."""
    monkeypatch.chdir(tmp_path)
    if known:
        (tmp_path / "conf" / "data").mkdir(parents=True)
        (tmp_path / "conf/data/flowers.yaml").write_text("name: flowers\nroot: null\n")
    record = next(record for record in PUBLISHED.all() if record.model.name == "vit_fmnist")
    own = {**record.config, "data": {**record.config["data"], "name": "flowers", "root": "my flowers"}}
    command = command_of(dataclasses.replace(record, config=own))
    assert " data=flowers " in command and command.count("data.root='my flowers'") == 1


def unpacked(html: str, name: str) -> str:
    (block,) = re.findall(rf'<script type="application/octet-stream" id="{name}">(.*?)</script>', html, re.S)
    return gzip.decompress(base64.b64decode(block)).decode()


class Ids(HTMLParser):
    """Ids, labels and requests of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, text in attrs:
            if name == "id" and text:
                self.ids.append(text)
            if name in ("src", "srcset") or (name == "href" and tag == "link"):
                self.outside += [text or ""] if not (text or "").startswith("data:") else []


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One item of the paper: there are many."""
    monkeypatch.setattr(items, "experiment_names", lambda **_: ["table8"])


def test_the_page_is_one_file_and_equal_for_equal_records(tmp_path: Path, few: None) -> None:
    published = store(tmp_path / "published")
    html = build.html(Store(tmp_path / "runs"), published)
    assert html == build.html(Store(tmp_path / "runs"), published)
    page = html[: html.index('<script type="application/octet-stream"')]
    parser = Ids()
    parser.feed(page)
    assert len(set(parser.ids)) == len(parser.ids) and parser.outside == []
    assert "out of &lt;memory&gt;" in page
    records = json.loads(unpacked(html, "records"))
    saved = json.loads((tmp_path / "published" / f"{runs()[1].run_id}.json").read_text())
    del saved["digest"]  # of the file
    assert records[runs()[1].run_id] == {"file": f"published/{runs()[1].run_id}.json", "record": saved}
    assert str(tmp_path) not in html and str(tmp_path) not in unpacked(html, "records")
    assert "Plotly" in unpacked(html, "plotly")


def test_runs_that_are_published_and_repeated_have_views_of_their_own(tmp_path: Path, few: None) -> None:
    html = build.html(store(tmp_path / "runs"), store(tmp_path / "published"))
    keys = re.findall(r'<section class="view" id="view-(classification[^"]*)"', html)
    assert len(keys) == len(set(keys)) == 2 and "Local: vit_fmnist" in html


def test_figures_are_what_plotly_knows(sweep: View) -> None:
    drawn = [panel for plot in sweep.plots for panel in plot.panels.values()]
    for panel in drawn:
        go.Figure(json.loads(panel))  # raises for a word it does not have
    assert len(drawn) >= 3


@pytest.fixture(scope="module")
def offline() -> View:
    committed = PUBLISHED.all()
    return items.view(judge("figure5_offline", [], committed), committed)


def test_an_offline_experiment_has_the_plots_of_its_runs(offline: View) -> None:
    own, *plots = offline.plots
    assert [plot.title for plot in plots] == ["Top-1 against FLOPs", "Tokens layer by layer"]
    (key,) = offline.links
    assert key.startswith("classification-")
    # 0.9 is a ratio here and a share of FLOPs there
    first, second = own.panels.items()
    assert not first[0].endswith("equal FLOPs") and second[0].endswith("at equal FLOPs")
    titles = [json.loads(panel)["layout"]["xaxis"]["title"]["text"] for _, panel in (first, second)]
    assert titles == ["Ratio", "Share of FLOPs"]
    shares = {x for trace in json.loads(second[1])["data"] for x in trace["x"]}
    assert shares == {0.9, 0.8, 0.7, 0.6, 0.5}


def test_an_experiment_s_plot_holds_the_interval_of_the_unmerged_model(offline: View) -> None:
    """As a whole, so that a difference inside it looks small."""
    assert len(offline.plots[0].panels) == 2
    for panel in offline.plots[0].panels.values():
        layout = json.loads(panel)["layout"]
        (band,) = (shape for shape in layout["shapes"] if shape["type"] == "rect")
        low, high = layout["yaxis"]["range"]
        assert low < band["y0"] < 88.52 < band["y1"] < high and band["y1"] - band["y0"] < 1.4
        assert layout["annotations"][0]["text"] == "unmerged 88.52"


def test_what_is_published_and_not_repeated_says_so(offline: View) -> None:
    names = [column.name for column in offline.columns]
    for line in offline.lines:
        value = line.cells[names.index("Published by us")].value
        assert line.verdict == ("not run" if value is None else "published")
    assert sum(offline.tally.values()) == len(offline.lines) and offline.tally["published"] > 50


def test_links_lead_to_views_on_the_page(offline: View) -> None:
    assert build.linked([offline])[0].links == {}
    (item,) = [items.view(judge("table8", []))]
    counterpart = items.view(judge("table8_offline", [], PUBLISHED.all()))
    keys = {item.key, counterpart.key}
    assert "table8_offline" in items._linked(item, keys).links
    assert "table8" in items._linked(counterpart, keys).links


def test_pictures_stand_with_their_model(tmp_path: Path) -> None:
    told = PngInfo()
    for key, text in {"Model": "vit_fmnist", "Description": "groups", "Command": "python x"}.items():
        told.add_text(key, text)
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png", pnginfo=told)
    Image.new("RGB", (6, 4)).save(tmp_path / "b.png")  # says nothing
    found = build.pictures(tmp_path)
    ((model, (picture,)),) = found.items()
    assert (model, picture.alt, picture.command, picture.width) == ("vit_fmnist", "groups", "python x", 6)
    made = store(tmp_path / "published")
    (view,) = sweeps.views(made.all(), made.outcomes, found)
    assert view.pictures == [picture]


def test_every_published_model_has_a_picture_of_the_weights_that_are_shipped() -> None:
    found = build.pictures(PUBLISHED.folder / "pictures")
    for record in PUBLISHED.all():
        for picture in found[record.model.name]:
            assert record.model.name in picture.alt and picture.command.startswith(
                "python scripts/show_tokens.py "
            )
    assert {"vit_fmnist", "clip_scenes", "llava_easyvqa", "minilm"} <= set(found)


def test_a_method_has_one_colour_in_every_figure() -> None:
    def colours(order: list[str]) -> dict[str, int]:
        points = [Trace(name, [0.0], [1.0], [""], name) for name in order]
        drawn = json.loads(figure(points, "x", "y", order))["data"]
        return {trace["name"]: trace["meta"]["series"] for trace in drawn}

    few, many = colours(["pitome", "tome"]), colours(["diffrate", "pitome", "pitome_repo", "tome", "random"])
    assert few["pitome"] == many["pitome"] == many["pitome_repo"] and few["tome"] == many["tome"]
    assert colours(["PiToMe (as published)", "ToMe", "of one's own"]) == {
        "PiToMe (as published)": few["pitome"],
        "ToMe": few["tome"],
        "of one's own": 11,
    }
    assert len(set(many.values())) == 4
    assert list(colours(["PiToMe (alpha 0)", "PiToMe (alpha 1)"]).values()) == [0, 1]


def test_what_is_the_same_in_every_row_stands_above_the_table() -> None:
    def line(model: str, data: str) -> TableLine:
        cells = [word(model), word(data), word("tome")]
        return TableLine(cells, model=model, method="tome", variant="", verdict="", command="")

    columns = [Column(name) for name in ("Model", "Data", "Method")]
    lines = [line("a", "mine"), line("b", "mine")]
    shown = View("k", "paper", "Table", "title", {"Command": "c"}, columns, lines).compact()
    assert [column.name for column in shown.columns] == ["Model", "Method"]
    assert shown.facts == {"Data": "mine", "Command": "c"}
    assert [cell.text for cell in shown.lines[1].cells] == ["b", "tome"]


def test_no_line_joins_points_of_different_settings(tmp_path: Path) -> None:
    """Merging in the first three layers and in all are two lines of one colour, one entry in the legend."""
    settings = [(0.9, {"ratio": 0.9}), (0.8, {"ratio": 0.8}), (0.7, {"ratio": 0.7, "layers": "every1"})]
    settings += [(0.6, {"ratio": 0.6, "layers": "every1"}), (0.5, {"r": 8})]
    folder = Store(tmp_path)
    for ratio, asked in settings:
        folder.save(example("tome", ratio, 0.8, asked=asked))
    folder.save(example("none", None, 0.9))
    (view,) = sweeps.views(folder.all(), folder.outcomes, {})
    drawn = json.loads(view.plots[0].panels["all"])
    assert sorted(len(trace["x"]) for trace in drawn["data"]) == [1, 2, 2]
    assert sum(trace["showlegend"] for trace in drawn["data"]) == 1
    (band,) = (shape for shape in drawn["layout"]["shapes"] if shape["type"] == "rect")
    low, high = drawn["layout"]["yaxis"]["range"]
    assert low < 80 and band["y0"] < 90 < band["y1"] < high


def test_the_page_opens_with_what_is_best(tmp_path: Path, few: None) -> None:
    html = build.html(
        Store(tmp_path / "runs"), store(tmp_path / "published"), bench=ROOT / "results" / "bench"
    )
    opening = html[html.index('id="view-overview"') :].partition("What is reproduced of the paper")[0]
    assert "Where most is merged (ratio 0.9), pitome is best: 88.70 % top-1 against 90.00 %" in opening
    assert opening.count('class="chart"') == 2 and "times as fast: vit_small_patch16_224" in opening
    (key,) = re.findall(r'id="view-(speed-[^"]+)"', html)
    assert f'data-view="{key}" data-plot="0"' in opening


def test_speed_records_are_a_table_of_numbers() -> None:
    (view,) = speed.views(ROOT / "results" / "bench")
    (column,) = (i for i, column in enumerate(view.columns) if column.name == "Speed-up")
    values = [line.cells[column].value for line in view.lines]
    assert len(values) > 10 and all(isinstance(value, float) and 0.3 < value < 9 for value in values)
