"""experiments/*.yaml: all of them load; a mistake is one line that names it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pitome.config import CONF
from pitome.errors import PitomeError, UsageError
from pitome.experiments import costs, loading, values
from pitome.experiments.metrics import METRICS
from pitome.experiments.schema import PICTURES, RUNS
from tests.experiments.conftest import ITEM

ROOT = CONF.parent
ITEMS = [
    *(f"table{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 10)),
    *(f"figure{n}" for n in (1, 3, 4, 5, 6, 7, 9, 10, 11, 12)),
    "theorem",
]


def test_every_item_of_the_paper_has_a_file() -> None:
    assert loading.names() == ITEMS


@pytest.mark.parametrize("name", ITEMS)
def test_a_file_opens_with_its_command_its_needs_and_what_to_expect(name: str) -> None:
    lines = (loading.FOLDER / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ") and lines[1].startswith("# python run.py ")
    assert f"experiment={name}" in lines[1]
    assert lines[2].startswith("# Needs ") and lines[3].startswith("# Expect ")


@pytest.mark.parametrize("name", ITEMS)
def test_an_item_has_values_with_sources_and_an_offline_twin(name: str) -> None:
    experiment = loading.load(name)
    found = values.values(experiment)
    assert found or experiment.kind == PICTURES
    assert all(v.source or v.logged_source for v in found)
    if experiment.kind == RUNS:
        offline = values.offline_points(experiment)
        assert offline and {p["model"] for p in offline} <= {
            "vit_fmnist",
            "minilm",
            "clip_scenes",
            "llava_easyvqa",
        }
        assert experiment.offline and set(experiment.offline.metrics) <= set(METRICS)


def test_every_cost_that_is_printed_is_computed_or_of_a_method_that_is_not_here() -> None:
    for name in ITEMS:
        for value in values.values(loading.load(name)):
            if METRICS[value.metric].computed and not value.quoted and loading.missing(value.point) is None:
                assert costs.find(value.point, value.metric) is not None, (name, value.point)


MISTAKES = {
    "an unknown field": (("title:", "titel:"), "unknown field titel"),
    "a value that is no number": (("77.7", "77.7 %"), "'77.7 %', expected a number"),
    "a column too few": (("[79.8, 4.6]", "[79.8]"), "has 1 numbers for 2 columns"),
    "an unknown metric": (("metric: [top1, gmacs]", "metric: [top, gmacs]"), "top is no metric"),
    "an unknown method": (("tome_repo: 77.7", "tomee_repo: 77.7"), "unknown merge=tomee_repo; did you mean"),
    "an unknown model": (("model: deit_s", "model: deit_ss"), "unknown model=deit_ss"),
    "a key twice": (("title: An item", "title: An item\ntitle: Another"), "the key title stands twice"),
    "a direction": (("better: higher", "better: up"), "better is up, expected higher or lower"),
    "no tolerance": (("tolerance: 0.3", "why: ''"), "no tolerance and no `why`"),
    "a tolerance of nothing": (("tolerance: 0.3", "tolerance: 0"), "not above 0"),
    "a printed value without a source": (
        ("    source: Table 99\n    printed: {none", "    printed: {none"),
        "source",
    ),
    "no metric": (("    metric: top1\n", ""), "needs either metric or along"),
    "an unknown kind": (("base:", "kind: dance\nbase:"), "kind is dance"),
    "broken YAML": (("needs: {", "needs: ["), "table99.yaml: "),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(write: Callable[..., Path], case: str) -> None:
    (old, new), said = MISTAKES[case]
    assert old in ITEM
    write(ITEM.replace(old, new, 1))
    with pytest.raises(PitomeError, match=r"experiments/table99\.yaml: ") as caught:
        loading.choose("table99")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_experiment_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown experiment=tabel5; did you mean .*table5"):
        loading.choose("tabel5")
    with pytest.raises(UsageError, match="has no points for table1_trained"):
        loading.choose("table1_trained")


def test_points_are_a_product_without_what_is_not_built(write: Callable[..., Path]) -> None:
    points = loading.choose("table99").points
    base = {"task": "classification", "data": "imagenet", "model": "deit_s"}
    assert points == [
        base | {"merge": "none"},
        base | {"ratio": 0.925, "merge": "tome_repo"},
        base | {"ratio": 0.925, "merge": "pitome_repo"},
        base | {"ratio": 0.925, "merge": "pitome"},
    ]
    offline = loading.choose("table99_offline").points
    assert {(p["model"], p["data"]) for p in offline} == {("vit_fmnist", "fashion_mnist")}
    assert [p["merge"] for p in offline] == ["none", "tome_repo", "pitome_repo", "pitome", "random", "stride"]


def test_loading_imports_no_torch() -> None:
    code = "import sys; from pitome.experiments.outcome import outcome; outcome('table5', [])"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
