"""The page in headless Chromium: no error, no request, sorting, filters, details, both colour schemes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pitome.records import Store
from pitome.report.page import build, items
from tests.report.page.test_page import runs, store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium: apt-get install chromium, or google-chrome on the PATH"
)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(items, "experiment_names", lambda **_: ["table8"])
        return build.write(folder / "index.html", Store(folder / "runs"), store(folder / "published"))


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def page(browser: sync_api.Browser, path: Path) -> Iterator[sync_api.Page]:
    """The page, opened once; whatever it says or asks for besides itself fails the tests."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(180_000)  # a machine under load is not an error
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("request", lambda request: said.append(f"request: {request.url[:100]}"))
    page.goto(path.as_uri())
    yield page
    context.close()
    said = [one for one in said if not one.startswith(("request: data:", "request: blob:"))]
    assert said == [f"request: {path.as_uri()}"]


def open_view(page: sync_api.Page, start: str) -> str:
    """Show the first view whose key begins with `start`; its selector."""
    key = page.evaluate(
        "start => [...document.querySelectorAll('.view')].map(v => v.id).find(id => id.startsWith(start))",
        f"view-{start}",
    ).removeprefix("view-")
    page.evaluate("key => { location.hash = key }", key)
    page.wait_for_selector(f"#view-{key}:not([hidden])")
    for form in page.query_selector_all(f"#view-{key} form"):
        form.evaluate("form => { form.reset(); form.dispatchEvent(new Event('input')) }")
    return f"#view-{key}"


def until(page: sync_api.Page, condition: str) -> None:
    """Wait for a condition of the page; its policy forbids the driver's own way of waiting."""
    for _ in range(3000):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {condition}")


def column(page: sync_api.Page, view: str, name: str) -> list[str]:
    """What stands in a column, from top to bottom, hidden rows left out."""
    return page.evaluate(
        """([view, name]) => {
          const heads = [...document.querySelectorAll(`${view} thead th`)];
          const at = heads.findIndex(head => head.textContent.trim() === name);
          const rows = [...document.querySelectorAll(`${view} tbody tr`)];
          return rows.filter(row => !row.hidden).map(row => row.cells[at].dataset.value);
        }""",
        [view, name],
    )


def test_the_overview_leads_to_every_view(page: sync_api.Page) -> None:
    view = open_view(page, "overview")
    assert page.inner_text(f"{view} h1") == "Token merging: which method, how much cheaper, at what loss"
    links = page.eval_on_selector_all(".card", "cards => cards.map(card => card.getAttribute('href'))")
    assert len(links) == 2 and all(page.query_selector(link.replace("#", "#view-")) for link in links)
    page.click(f"{view} .card >> nth=0")
    assert page.inner_text(".view:not([hidden]) h1") == "The weight alpha below the margin"
    assert page.evaluate("document.querySelectorAll('.view:not([hidden])').length") == 1
    page.select_option("#jump", index=0)
    page.wait_for_selector("#view-overview:not([hidden])")


def test_numbers_on_the_page_equal_the_records(page: sync_api.Page) -> None:
    view = open_view(page, "classification")
    methods = column(page, view, "Method")
    for name, read in {
        "Top-1 %": lambda record: 100 * record.score,
        "Cost %": lambda record: 100 * record.cost.share,
        "GMACs": lambda record: record.cost.macs / 1e9,
        "Tokens left": lambda record: record.tokens[-1],
    }.items():
        shown = dict(zip(methods, column(page, view, name), strict=True))
        for record in runs():
            if record.done and record.method.name != "resize":
                assert float(shown[record.method.name]) == read(record)
    assert "88.70" in page.inner_text(f"{view} tbody")


def test_sorting_by_the_keyboard(page: sync_api.Page) -> None:
    view = open_view(page, "classification")
    before = column(page, view, "Method")
    button = page.locator(f"{view} thead button", has_text="Top-1 %")
    head = button.locator("xpath=..")
    button.focus()
    orders = {}
    for _ in range(3):
        page.keyboard.press("Enter")
        orders[head.get_attribute("aria-sort")] = column(page, view, "Top-1 %")
    numbers = [float(one) for one in orders["descending"] if one]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) == 6
    assert [float(one) for one in orders["ascending"] if one] == sorted(numbers)
    assert orders["descending"][-1] == orders["ascending"][-1] == ""  # the failed run has no number
    assert head.get_attribute("aria-sort") == "none" and column(page, view, "Method") == before
    page.click(f"{view} thead button >> nth=0")
    assert column(page, view, "Method") == sorted(before)
    assert page.locator(f"{view} thead [aria-sort=ascending]").count() == 1
    for _ in range(2):
        page.click(f"{view} thead button >> nth=0")


def test_filters_narrow_the_rows_and_say_so(page: sync_api.Page) -> None:
    view = open_view(page, "classification")
    every = len(column(page, view, "Method"))
    page.select_option(f"{view} [data-filter=method]", "pitome")
    assert column(page, view, "Method") == ["pitome", "pitome_repo"]
    page.select_option(f"{view} [data-filter=variant]", "authors' code")
    assert column(page, view, "Method") == ["pitome_repo"]
    assert page.inner_text(f"{view} output") == f"1 of {every} rows"
    page.click(f"{view} button[type=reset]")
    until(page, f"document.querySelector('{view} output').textContent.startsWith('{every} of')")
    page.select_option(f"{view} [data-filter=verdict]", "failed")
    assert column(page, view, "Method") == ["tofu"]
    page.click(f"{view} button[type=reset]")
    page.fill(f"{view} [data-filter=text]", "OUT OF <mem")
    assert column(page, view, "Method") == ["tofu"]
    page.click(f"{view} button[type=reset]")


def test_details_show_the_command_and_the_record(page: sync_api.Page) -> None:
    view = open_view(page, "classification")
    wanted = next(record for record in runs() if record.method.name == "tome")
    button = page.locator(f"{view} tr[data-records='{wanted.run_id}'] .more")
    button.click()
    detail = page.locator(f"{view} tr.detail")
    assert detail.locator("code").inner_text().startswith("python run.py ")
    assert "Tokens layer by layer: 197.0, 177.0" in detail.inner_text()
    assert "random: +26.00 [" in detail.locator("ul").inner_text()
    detail.locator("summary").click()
    shown = json.loads(detail.locator("pre").inner_text())
    assert (shown["run_id"], shown["metrics"]) == (wanted.run_id, wanted.metrics)
    assert button.get_attribute("aria-expanded") == "true"
    button.click()
    assert detail.count() == 0 and button.get_attribute("aria-expanded") == "false"


def test_the_command_is_copied(page: sync_api.Page) -> None:
    """By the keyboard, out of a file and into a field."""
    view = open_view(page, "classification")
    page.locator(f"{view} .more >> nth=1").press("Enter")
    command = page.inner_text(f"{view} tr.detail code")
    copy = page.locator(f"{view} tr.detail .line button")
    copy.press("Enter")
    assert copy.inner_text() == "Copied" and page.locator(f"{view} tr.detail").count() == 1
    search = page.locator(f"{view} [data-filter=text]")
    search.press("Control+V")
    assert search.input_value() == command and command.startswith("python run.py ")
    page.click(f"{view} button[type=reset]")


def test_the_names_of_columns_and_methods_stay_in_sight(page: sync_api.Page) -> None:
    view = open_view(page, "classification")
    page.set_viewport_size({"width": 390, "height": 300})
    seen = page.evaluate(
        """view => {
          const table = document.querySelector(`${view} table`), box = table.parentElement;
          box.scrollTo(200, 100);
          const place = (one) => table.querySelector(one).getBoundingClientRect();
          const own = box.getBoundingClientRect();
          return [box.scrollTop, box.scrollLeft, place("thead th").top - own.top,
                  place("tbody tr:last-child th").left - own.left];
        }""",
        view,
    )
    page.set_viewport_size({"width": 1280, "height": 900})
    down, right, head, name = seen
    assert down > 50 and right > 50 and 0 <= head <= 2 and 0 <= name <= 2


def test_plots_are_drawn_and_their_legend_filters(page: sync_api.Page) -> None:
    view = open_view(page, "classification")
    page.wait_for_selector(f"{view} .chart >> nth=2 >> .legend")
    assert page.locator(f"{view} .chart .main-svg").count() >= 3
    hidden = f"document.querySelector('{view} .chart').data.some(one => one.visible === 'legendonly')"
    assert not page.evaluate(hidden)
    page.locator(f"{view} .chart >> nth=0 >> .legendtoggle >> nth=0").click()
    until(page, hidden)


def test_the_tools_of_a_plot_hide_nothing_and_send_nothing(page: sync_api.Page) -> None:
    view = open_view(page, "classification")
    chart = page.locator(f"{view} .chart >> nth=0")
    chart.hover()
    buttons = chart.locator(".modebar-btn")
    titles = [one.get_attribute("data-title") for one in buttons.all()]
    assert titles == ["Download plot as a PNG", "Zoom", "Pan", "Reset axes"]
    tools, legend = chart.locator(".modebar").bounding_box(), chart.locator(".legend").bounding_box()
    points, whole = chart.locator(".nsewdrag").bounding_box(), chart.bounding_box()
    assert tools is not None and legend is not None and points is not None and whole is not None
    assert tools["y"] >= max(box["y"] + box["height"] for box in (legend, points))
    assert tools["y"] + tools["height"] <= whole["y"] + whole["height"]


def test_the_legend_answers_to_the_keyboard(page: sync_api.Page) -> None:
    view = open_view(page, "classification")
    entries = page.locator(f"{view} .chart >> nth=2 >> .legendtoggle")
    entries.nth(1).wait_for(state="attached")
    chart = f"document.querySelectorAll('{view} .chart')[2]"
    name = entries.nth(1).get_attribute("aria-label")
    for key, visible in (("Enter", "legendonly"), (" ", True)):
        entries.nth(1).focus()
        page.keyboard.press(key)
        until(
            page,
            f"{chart}.data.find(one => one.name === {json.dumps(name)}).visible === {json.dumps(visible)}",
        )
        assert entries.nth(1).get_attribute("aria-pressed") == str(visible is True).lower()
        focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert focused == name  # the next key goes to the same entry
    assert entries.nth(1).get_attribute("role") == "button"


def test_dark_and_light_by_the_system_and_by_the_switch(page: sync_api.Page) -> None:
    open_view(page, "classification")
    colour = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(colour)
    assert light != dark
    page.wait_for_function(  # plots are drawn again once the browser has said so
        """() => document.querySelector('.view:not([hidden]) .chart').layout.font.color
            === getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()"""
    )
    for name, expected in (("Light", light), ("Dark", dark), ("Auto", dark)):
        page.click("#theme")
        assert (page.inner_text("#theme"), page.evaluate(colour)) == (name, expected)
    page.emulate_media(color_scheme="light")


def test_a_narrow_screen_scrolls_in_the_table_alone(page: sync_api.Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for start in ("overview", "classification", "table8"):
        view = open_view(page, start)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
    page.set_viewport_size({"width": 1280, "height": 900})


def test_everything_that_is_operated_has_a_name(page: sync_api.Page) -> None:
    """And can be reached by the keyboard, with a visible focus."""
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, select, input, a')].filter(one =>
          !(one.textContent.trim() || one.getAttribute('aria-label') || one.labels?.[0]?.textContent.trim())
          || one.tabIndex < 0).map(one => one.outerHTML.slice(0, 80))
          .filter(html => !html.includes('modebar') && !html.includes('js-link'))"""
    )
    assert unnamed == []
    view = open_view(page, "classification")
    page.focus(f"{view} [data-filter=method]")
    page.keyboard.press("Tab")
    outline = "() => getComputedStyle(document.activeElement).outlineWidth"
    assert page.evaluate(outline) == "3px"
    assert page.evaluate("[...document.querySelectorAll('table')].every(one => one.caption)")


def test_a_row_has_a_link(page: sync_api.Page) -> None:
    view = open_view(page, "classification")
    page.evaluate("location.hash += '/3'")
    page.wait_for_selector(f"{view} tr.linked")
    assert page.get_attribute(f"{view} tr.linked", "data-row") == "3"
    link = page.query_selector(f"{view} tr.linked + tr.detail a")
    assert link is not None and link.get_attribute("href") == page.evaluate("location.hash")


def test_columns_and_csv(page: sync_api.Page) -> None:
    view = open_view(page, "classification")
    page.click(f"{view} .columns summary")
    page.uncheck(f"{view} .columns label:has-text('GMACs') input")
    page.click(f"{view} .columns summary")
    page.fill(f"{view} input[type=search]", "tome")
    with page.expect_download() as waiting:
        page.click(f"{view} .csv")
    head, *rows = Path(waiting.value.path()).read_text().splitlines()
    assert (
        '"Method"' in head and "GMACs" not in head and len(rows) >= 1 and all("tome" in row for row in rows)
    )
    assert waiting.value.suggested_filename.startswith("classification-")
    page.click(f"{view} form button[type=reset]")
    page.wait_for_selector(f"{view} thead th:has-text('GMACs')")
