"""experiments/*.yaml: all of them load; a mistake is one line that names it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pitome.config import CONF
from pitome.errors import PitomeError, UsageError
from pitome.paper import costs, experiments, files
from pitome.paper.checks import not_built
from pitome.paper.experiments import choose, load
from pitome.paper.item import PICTURES, RUNS
from pitome.paper.metrics import METRICS
from pitome.paper.points import offline_points, paper_values
from pitome.paper.verdicts import NOT_RUN, judge
from pitome.records.identity import canonical
from pitome.report import offline
from tests.conftest import ITEM

ROOT = CONF.parent
ITEMS = [
    *(f"table{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 10)),
    *(f"figure{n}" for n in (1, 3, 4, 5, 6, 7, 9, 10, 11, 12)),
    "diffrate_readme",
    "schedules",
    "theorem",
    "tome_readme",
]


def test_every_item_of_the_paper_has_a_file() -> None:
    assert files.item_names() == ITEMS


@pytest.mark.parametrize("name", ITEMS)
def test_a_file_opens_with_its_command_its_needs_and_what_to_expect(name: str) -> None:
    lines = (files.FOLDER / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ") and lines[1].startswith("# python run.py ")
    assert f"experiment={name}" in lines[1]
    assert lines[2].startswith("# Needs ") and lines[3].startswith("# Expect ")


@pytest.mark.parametrize("name", ITEMS)
def test_an_item_has_values_with_sources_and_an_offline_part(name: str) -> None:
    experiment = load(name)
    # in a list without quotes `(1,000 images)` would be two entries
    assert all(one.count("(") == one.count(")") for one in experiment.needs.data)
    found = paper_values(experiment)
    assert found or experiment.kind == PICTURES or name == "schedules"
    assert all(v.block.source or v.block.logged_source for v in found)
    if experiment.kind == RUNS:
        points = offline_points(experiment)
        assert points and {p["model"] for p in points} <= {
            "vit_fmnist",
            "minilm",
            "clip_scenes",
            "llava_easyvqa",
        }
        assert experiment.offline and set(experiment.offline.metrics) <= set(METRICS)


def test_every_cost_that_is_printed_is_computed_or_of_a_method_that_is_not_here() -> None:
    for name in ITEMS:
        for value in paper_values(load(name)):
            if METRICS[value.metric].computed and not value.quoted and not_built(value.point) is None:
                assert costs.find(value.point, value.metric) is not None, (name, value.point)


def test_what_one_log_says_of_a_run_is_the_same_in_every_item() -> None:
    seen: dict[str, set[float]] = {}
    for name in ITEMS:
        for value in paper_values(load(name)):
            if value.logged is not None and not value.block.blocked:
                again = value.block.variant.endswith("second run")
                run = [canonical(value.point), value.metric, value.block.logged_source, again]
                seen.setdefault(json.dumps(run, sort_keys=True), set()).add(value.logged)
    assert {key: numbers for key, numbers in seen.items() if len(numbers) > 1} == {}


def test_the_readme_of_the_steps_names_every_file() -> None:
    folder = ROOT / "pitome" / "paper"
    text = (folder / "README.md").read_text()
    files_here = [path.name for path in folder.iterdir() if path.suffix in (".py", ".json")]
    assert [name for name in files_here if f"`{name}`" not in text and name != "__init__.py"] == []


ADDED: dict[str, tuple[str, str, dict[str, Any], float | None, float | None]] = {
    "trained, unmerged": (
        "table5",
        "top1",
        {"model": "deit_s", "merge": "none", "mode": "train"},
        79.8,
        79.81,
    ),
    "unmerged": ("table5", "top1", {"model": "mae_h", "merge": "none"}, 86.9, 86.93),
    "ALBEF": ("table1", "reranked_rsum", {"model": "albef", "data": "flickr30k"}, 575.0, 576.44),
    "BLIP, second row": (
        "table1",
        "gmacs",
        {"model": "blip_base", "data": "coco", "ratio": 0.95},
        38.85,
        None,
    ),
    "BERT, first row": ("table6", "train_x", {"data": "imdb", "merge": "pitome_repo"}, 1.8, None),
    "fixed number": ("figure10", "gmacs", {"model": "mae_h", "r": 5}, None, 112.6),
    "later log": ("figure3", "reranked_rsum", {"merge": "tome_repo", "ratio": 0.875}, None, 511.3),
    "LLaVA, ToMe": ("table3", "accuracy", {"merge": "tome_repo", "data": "gqa", "ratio": 0.9}, 59.5, 59.3),
}


@pytest.mark.parametrize("case", ADDED)
def test_values_as_they_are_printed_and_logged(case: str) -> None:
    name, metric, part, printed, logged = ADDED[case]
    found = [
        (value.printed, value.logged)
        for value in paper_values(load(name))
        if value.metric == metric and not value.quoted and part.items() <= value.point.items()
    ]
    assert (printed, logged) in found


MISTAKES = {
    "an unknown field": (("title:", "titel:"), "unknown key titel; did you mean title"),
    "a value that is not a number": (
        ("77.7", "77.7 %"),
        "values[1].printed.tome_repo='77.7 %' is not a number",
    ),
    "a column too few": (("[79.8, 4.6]", "[79.8]"), "has 1 numbers for 2 columns"),
    "an unknown metric": (("metric: [top1, gmacs]", "metric: [top, gmacs]"), "top is not a metric"),
    "an unknown method": (("tome_repo: 77.7", "tomee_repo: 77.7"), "unknown merge=tomee_repo; did you mean"),
    "an unknown model": (("model: deit_s", "model: deit_ss"), "unknown model=deit_ss"),
    "a key twice": (("title: An item", "title: An item\ntitle: Another"), "the key title stands twice"),
    "a direction": (
        ("better: higher", "better: up"),
        "metrics.top1.better=up is not known; available: higher, lower",
    ),
    "no tolerance": (("tolerance: 0.3", "why: ''"), "no tolerance and no `why`"),
    "a tolerance of nothing": (
        ("tolerance: 0.3", "tolerance: 0"),
        "metrics.top1.tolerance=0 is not a number above 0",
    ),
    "a negative tolerance": (
        ("tolerance: 0.3", "tolerance: -1"),
        "metrics.top1.tolerance=-1 is not a number above 0",
    ),
    "no limit to a tolerance": (
        ("tolerance: 0.3", "tolerance: .inf"),
        "metrics.top1.tolerance=inf is not a number above 0",
    ),
    "a share that is not a number": (
        ("relative: 0.02", "relative: .nan"),
        "metrics.gmacs.relative=nan is not a number above 0",
    ),
    "an unknown metric that is judged": (
        ("gmacs: {better", "gmac: {better"),
        "metrics: gmac is not a metric; did you mean gmacs",
    ),
    "a need below nothing": (("gpu_hours: 1", "gpu_hours: -1"), "needs.gpu_hours=-1 is not a number >= 0"),
    "a misspelt column key": (
        ("at: {ratio: 0.925}\n    metric: top1", "along: {raito: [0.9]}\n    metric: top1"),
        "values[1].along: raito is not a key of a run; did you mean ratio",
    ),
    "a misspelt override": (
        ("at: {ratio:", "at: {raito:"),
        "values[1].at: raito is not a key of a run; did you",
    ),
    "a misspelt nested override": (
        ("at: {ratio:", "at: {model.chekpoint: x, ratio:"),
        "values[1].at: model.chekpoint is not a key of a run",
    ),
    "a misspelt key of the base": (
        ("base: {task", "base: {mdoel: x, task"),
        "base: mdoel is not a key of a run",
    ),
    "a misspelt row key": (
        ("- at: {ratio", "- by: methd\n    at: {ratio"),
        "values[1].by: methd is not a key",
    ),
    "rows and columns of one key": (
        ("at: {ratio: 0.925}\n", "along: {merge: [tome, pitome]}\n"),
        "values[1]: both rows and columns differ in merge",
    ),
    "an amount twice": (
        ("at: {ratio: 0.925}\n", "at: {ratio: 0.925}\n    along: {ratio: [0.9]}\n"),
        "values[1]: both at and along say ratio",
    ),
    "a date": (("at: {ratio", "at: {weights: 2024-01-01, ratio"), "a value that is neither text nor number"),
    "a need beyond all": (("gpu_hours: 1", f"gpu_hours: 1{'0' * 400}"), "is not a number >= 0"),
    "an unknown option": (
        ("at: {ratio:", "at: {merge.options.alpah: 0.5, ratio:"),
        "merge=tome_repo has no option alpah",
    ),
    "a ratio that is a word": (("ratio: 0.925}\n", "ratio: high}\n"), "ratio=high is not a number"),
    "a ratio above 1": (("ratio: 0.925}\n", "ratio: 9}\n"), "ratio=9 is outside (0, 1]"),
    "a list of ratios in one point": (
        ("ratio: 0.925}\n", "ratio: [high, 0.8]}\n"),
        "ratio=['high', 0.8] is not a single number",
    ),
    "no ratio at all": (("ratio: 0.925}\n", "ratio: null}\n"), "ratio=None is not a single number"),
    "two amounts": (
        ("{ratio: 0.925}\n", "{ratio: 0.925, r: 8}\n"),
        "ratio and r exclude each other",
    ),
    "an r that is not a number": (("{ratio: 0.925}\n", "{r: 0.5}\n"), "r=0.5 is not a whole number >= 0"),
    "FLOPs above 1": (("{ratio: 0.925}\n", "{flops: 1.5}\n"), "flops=1.5 is outside (0, 1]"),
    "a limit that is a word": (
        ("{ratio: 0", "{limit: all, ratio: 0"),
        "limit=all is not a whole number >= 1",
    ),
    "layers that are none": (("{ratio: 0", "{layers: some, ratio: 0"), "layers='some' is not known"),
    "an unknown mode": (("{ratio: 0", "{mode: tran, ratio: 0"), "mode=tran is not known; did you mean train"),
    "an empty list of columns": (
        ("at: {ratio: 0.925}\n", "along: {ratio: []}\n"),
        "values[1].along.ratio is an empty list",
    ),
    "an empty list of points": (
        ("offline:", "points: [{merge: tome, ratio: []}]\noffline:"),
        "points[0].ratio is an empty list",
    ),
    "an empty list of offline points": (
        ("stride], ratio: 0.925}", "stride], ratio: []}"),
        "offline.also[0].ratio is an empty list",
    ),
    "a point with a wrong ratio": (
        ("offline:", "points: [{merge: tome, ratio: [high, 0.8]}]\noffline:"),
        "ratio=high is not a number",
    ),
    "a point without a method": (("offline:", "points: [{ratio: 0.9}]\noffline:"), "names no merge"),
    "a base without a model": ((", model: deit_s}", "}"), "data=imagenet merge=none names no model"),
    "two methods in one point": (
        ("{ratio: 0.925}\n", "{ratio: 0.925, model: [a, b]}\n"),
        "unknown model=['a'",
    ),
    "a model of another task": (
        ("model: deit_s", "model: bert_base"),
        "model=bert_base is for task=text, not for task=classification",
    ),
    "data of another task": (("data: imagenet", "data: sst2"), "data=sst2 is for task=text, not for"),
    "an unknown task": (
        ("task: classification", "task: clasification"),
        "unknown task=clasification; did you",
    ),
    "a printed value of no number": (("77.7", ".nan"), "values[1].printed.tome_repo=nan is not a number"),
    "a logged value beyond all": (("78.43", ".inf"), "values[1].logged.tome_repo=inf is not a number"),
    "a logged value without a source": (
        ("    logged_source: a log\n", ""),
        "is logged without a logged_source",
    ),
    "a bound that is not a number": (
        ("    metric: top1\n", "    metric: top1\n    above: .nan\n"),
        "above=nan is not a number",
    ),
    "two printed values of one cell": (
        (
            "offline:",
            "  - {at: {ratio: 0.925}, metric: top1, source: a, printed: {tome_repo: 77.8}}\noffline:",
        ),
        "merge=tome_repo is printed twice, as 77.7 and 77.8",
    ),
    "two logged values of one cell": (
        (
            "offline:",
            "  - {at: {ratio: 0.925}, metric: top1, logged_source: a log, logged: {tome_repo: 1}}\noffline:",
        ),
        "merge=tome_repo is logged twice, as 78.43 and 1",
    ),
    "a block without rows": (
        ("printed: {Other: 79.3}", "note: x"),
        "values[2] has neither printed nor logged",
    ),
    "a row that is a number": (
        ("{Other: 79.3}", "{2024: 79.3}"),
        "values[2]: the row 2024 is not text; put it",
    ),
    "a column that is a list": (("[top1, gmacs]", "[[top1], gmacs]"), "has ['top1'], expected the name of a"),
    "an unknown method beside": (
        ("also: [pitome]", "also: [pitomee]"),
        "also: pitomee has no pitomee_repo to run beside; did you mean pitome",
    ),
    "the authors' code beside itself": (("also: [pitome]", "also: [tome_repo]"), "also: tome_repo has no"),
    "an offline metric that is unknown": (
        ("metrics: {top1: 0.1}", "metrics: {topp1: 1}"),
        "offline.metrics: topp1 is not measured by a run; did you mean top1",
    ),
    "an offline metric that no run has": (
        ("metrics: {top1: 0.1}", "metrics: {gmacs: 1}"),
        "offline.metrics: gmacs is not measured by a run; available: accuracy",
    ),
    "an offline metric of another task": (
        ("metrics: {top1: 0.1}", "metrics: {rsum: 0.1}"),
        "rsum is not a metric of task=classification",
    ),
    "no offline metric": (("  metrics: {top1: 0.1}", "  metrics: {}"), "offline.metrics is empty"),
    "no limit to an offline tolerance": (
        ("{top1: 0.1}", "{top1: .inf}"),
        "offline.metrics.top1=inf is not a number above 0",
    ),
    "an unknown offline override": (
        ("replace: {model", "replace: {mdl: x, model"),
        "offline.replace: mdl is no",
    ),
    "an unknown key that is dropped": (
        ("  also: [{", "  drop: [raito]\n  also: [{"),
        "offline.drop: raito is no",
    ),
    "an unknown offline method": (
        ("[random, stride]", "[randm]"),
        "unknown merge=randm; did you mean random",
    ),
    "a name of its own": (("title: An item", "title: An item\nname: other"), "name: it is that of the file"),
    "a picture of a sweep": (("also: [pitome]", "picture: {ratio: 0.9}"), "kind: pictures and `picture` go"),
    "a printed value without a source": (
        ("    source: Table 99\n    printed: {none", "    printed: {none"),
        "source",
    ),
    "no metric": (("    metric: top1\n", ""), "needs either metric or along"),
    "an unknown kind": (
        ("base:", "kind: dance\nbase:"),
        "kind=dance is not known; available: pictures, runs, theorem",
    ),
    "broken YAML": (("needs: {", "needs: ["), "table99.yaml: "),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(write: Callable[..., Path], case: str) -> None:
    (old, new), said = MISTAKES[case]
    item = ITEM.replace(old, new, 1)
    assert item != ITEM
    write(item)
    with pytest.raises(PitomeError, match=r"experiments/table99\.yaml: ") as caught:
        choose("table99")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "model", "data", "metric"),
    [
        ("classification", "deit_s", "imagenet", "rsum"),
        ("text", "bert_base", "imdb", "top1"),
        ("retrieval", "clip_l", "coco", "accuracy"),
        ("vqa", "llava_7b", "gqa", "reranked_rsum"),
    ],
)
def test_a_metric_of_another_task_is_one_line(
    write: Callable[..., Path], task: str, model: str, data: str, metric: str
) -> None:
    base = f"{{task: {task}, data: {data}, model: {model}}}"
    item = ITEM.replace("top1", metric).replace("{task: classification, data: imagenet, model: deit_s}", base)
    write(item.partition("offline:")[0])
    with pytest.raises(PitomeError, match=f"{metric} is not a metric of task={task}, but of "):
        choose("table99")


@pytest.mark.parametrize("text", ["- a list\n", "plain text\n", "3\n", "", "# a comment alone\n"])
def test_a_file_that_holds_something_else_is_one_line(write: Callable[..., Path], text: str) -> None:
    write(text)
    with pytest.raises(PitomeError) as caught:
        choose("table99")
    assert str(caught.value).endswith("it holds no lines of `key: value`; docs/adding.md has an example")


def test_bytes_that_are_no_text_are_one_line(write: Callable[..., Path]) -> None:
    write().write_bytes(b"item: \xff\n")
    experiments.load_file.cache_clear()
    with pytest.raises(PitomeError, match=r"experiments/table99\.yaml: .*can't decode"):
        choose("table99")


@pytest.mark.parametrize("text", ["- a list", "merge: {}", "merge: {}\nmodel: {}\ndata: x", "merge: ["])
def test_names_that_hold_something_else_are_one_line(write: Callable[..., Path], text: str) -> None:
    (write().parent / "_names.yaml").write_text(text)
    files.labels.cache_clear()
    with pytest.raises(PitomeError, match=r"experiments/_names\.yaml: ") as caught:
        choose("table99")
    files.labels.cache_clear()
    assert "\n" not in str(caught.value)


def test_two_logs_may_differ(write: Callable[..., Path]) -> None:
    more = "  - {at: {ratio: 0.925}, metric: top1, logged_source: another, logged: {tome_repo: 78}}\noffline:"
    write(ITEM.replace("offline:", more, 1))
    assert len(paper_values(load("table99"))) == 7


def test_a_mistake_in_one_file_leaves_the_others(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write(ITEM.replace("ratio: 0.925", "raito: 0.925"), "mine")
    assert choose("table99").points and choose("table99_offline").points
    assert experiments.experiment_names() == [
        "table99",
        "table99_offline",
        "mine",
        "mine_offline",
        "mine_trained",
        "mine_trained_offline",
    ]
    assert experiments.is_experiment("mine_offline") and not experiments.is_experiment("table9")
    for word in ("mine", "mine_offline", "mine_trained"):
        with pytest.raises(PitomeError, match=r"experiments/mine\.yaml: values\[1\]\.at: raito"):
            choose(word)
    with pytest.raises(UsageError, match="unknown experiment=tabel99; did you mean table99"):
        choose("tabel99")
    assert capsys.readouterr().err == ""
    assert offline.offline_sweeps() == ["table99_offline"]
    told = capsys.readouterr().err
    assert told.startswith("left out: experiments/mine.yaml: values[1].at: raito") and told.count("\n") == 1


@pytest.mark.parametrize("word", ["theorem_offline", "theorem_trained", "figure1_trained"])
def test_a_part_that_an_item_has_not_is_no_experiment(word: str) -> None:
    with pytest.raises(UsageError, match=f"has no points for {word}; use experiment="):
        choose(word)


@pytest.mark.parametrize("name", ["table2", "table5", "table6", "table10"])
def test_offline_twins_of_the_trained_rows(name: str) -> None:
    """Three seeds; each trained model is tested unmerged and with every method at its own amount, one that
    was trained unmerged at every amount."""
    points = choose(f"{name}_trained_offline").points
    tested = {(p["trained_with"], p["merge"], p.get("ratio"), p["seed"]) for p in points}
    ratios, methods = (0.8, 0.7) if name == "table10" else (0.9, 0.8), ("pitome", "tome", "random")
    expected = {(t, m, r, s) for t in methods for m in ("none", *methods) for r in ratios for s in range(3)}
    expected |= {("none", m, r, s) for m in methods for r in ratios for s in range(3)}
    assert tested == expected | {("none", "none", None, s) for s in range(3)} and len(points) == len(tested)
    assert [p["seed"] for p in points] == sorted(p["seed"] for p in points)
    assert {(p["mode"], p["weights"], p["trainer"][-5:]) for p in points} == {
        ("train", "pretrained", "_tune")
    }


def test_an_unknown_experiment_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown experiment=tabel5; did you mean .*table5"):
        choose("tabel5")
    with pytest.raises(UsageError, match="has no points for table1_trained"):
        choose("table1_trained")


def test_points_are_a_product_without_what_is_not_built(write: Callable[..., Path]) -> None:
    points = choose("table99").points
    base = {"task": "classification", "data": "imagenet", "model": "deit_s"}
    assert points == [
        base | {"merge": "none"},
        base | {"ratio": 0.925, "merge": "tome_repo"},
        base | {"ratio": 0.925, "merge": "pitome_repo"},
        base | {"ratio": 0.925, "merge": "pitome"},
    ]
    offline = choose("table99_offline").points
    assert {(p["model"], p["data"]) for p in offline} == {("vit_fmnist", "fashion_mnist")}
    assert [p["merge"] for p in offline] == ["none", "tome_repo", "pitome_repo", "pitome", "random", "stride"]


def test_a_blocked_value_is_shown_and_not_run(write: Callable[..., Path]) -> None:
    write(ITEM.replace("    logged_source: a log\n", "    logged_source: a log\n    blocked: no such file\n"))
    assert [point["merge"] for point in choose("table99").points] == ["none"]
    rows = [row for row in judge("table99", []).rows if row.point.get("merge") == "tome_repo"]
    assert [(row.verdict, row.reason) for row in rows] == [(NOT_RUN, "no such file")]


def test_verdicts_import_no_torch() -> None:
    code = "import sys; from pitome.paper.verdicts import judge; judge('table5', [])"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
