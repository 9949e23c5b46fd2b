"""What a metric is called and where text merges: facts that stand once."""

from __future__ import annotations

import pytest

from pitome.paper.files import conf_file
from pitome.paper.metrics import METRICS
from pitome.records.schema import Record
from pitome.report.items import published_records
from pitome.tasks.text.costs import PAPER_LAYERS


@pytest.fixture(scope="module")
def published() -> list[Record]:
    return [record for record in published_records() if record.done and record.task != "theorem"]


def test_every_headline_has_a_label_and_is_a_metric_of_its_task(published: list[Record]) -> None:
    headlines = {(record.headline.name, record.task) for record in published}
    assert len(headlines) >= 4
    for name, task in headlines:
        assert name in METRICS and task in METRICS[name].tasks


def test_a_headline_is_read_in_percent(published: list[Record]) -> None:
    for record in published:
        read = METRICS[record.headline.name].read
        assert read is not None and record.score is not None
        assert read(record) == pytest.approx(100 * record.score)


def test_costs_of_text_are_counted_where_the_task_merges() -> None:
    assert conf_file("task", "text")["layers"] == PAPER_LAYERS
