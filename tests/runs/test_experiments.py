"""`experiment=` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from pitome.cli import main
from pitome.cli.help import help_text
from pitome.config import CONF
from pitome.errors import UsageError
from pitome.paper.experiments import choose
from pitome.paper.files import item_names
from pitome.records.store import Store
from pitome.runs import experiments
from pitome.runs.compose import check_command_line, register_schema
from tests.conftest import ITEM
from tests.conftest import write as write

CASES = ITEM.replace(
    "values:", "cases: {half: {merge: pitome_repo, merge.options.alpha: 0.5}}\nvalues:"
).replace(
    "  - {by: quoted",
    "  - {by: case, at: {ratio: 0.9}, metric: top1, source: Table 99, printed: {half: 70}}\n  - {by: quoted",
)


SWEEPS = [
    word + suffix
    for word, suffixes in {
        "table1": ("", "_offline"),
        "table2": ("_trained", "_offline", "_trained_offline"),
        "table5": ("", "_offline", "_trained", "_trained_offline"),
        "table6": ("_trained", "_offline", "_trained_offline"),
        "table7": ("", "_offline"),
        "table8": ("",),
        "table10": ("_trained", "_trained_offline"),
        "figure3": ("",),
        "figure7": ("_offline",),
        "figure10": ("", "_offline"),
        "figure11": ("",),
    }.items()
    for suffix in suffixes
]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    register_schema()
    monkeypatch.setitem(ConfigStore.instance().repo, "experiment", {})


def composed(*words: str, multirun: bool = True) -> list[tuple[str, str, str, object, object, object]]:
    found = check_command_line(experiments.expand(list(words), multirun), multirun)
    return [
        (c.model.name, c.data.name, c.merge.name, c.merge.options["alpha"], amount.ratio, c.limit)
        if "alpha" in c.merge.options
        else (c.model.name, c.data.name, c.merge.name, None, amount.ratio, c.limit)
        for c, amount in found
    ]


def test_a_sweep_over_the_points_and_nothing_else(write: Callable[..., Path]) -> None:
    write(CASES)
    data = ("deit_s", "imagenet")
    assert composed("experiment=table99", "limit=7") == [
        (*data, "none", None, 0.925, 7),
        (*data, "tome_repo", None, 0.925, 7),
        (*data, "pitome_repo", None, 0.925, 7),
        (*data, "pitome_repo", 0.5, 0.9, 7),
        (*data, "pitome", 1.0, 0.925, 7),
    ]
    offline = composed("experiment=table99_offline")
    assert {row[:2] for row in offline} == {("vit_fmnist", "fashion_mnist")}


def test_methods_and_amounts_of_the_command_line_replace_those_of_the_experiment(
    write: Callable[..., Path],
) -> None:
    write(CASES)
    found = composed("experiment=table99", "merge=pitome,tofu", "ratio=0.9")
    assert [(row[2], row[4]) for row in found] == [("pitome", 0.9), ("tofu", 0.9)]
    found = composed("experiment=table99", "model=deit_t")
    assert {row[0] for row in found} == {"deit_t"} and len(found) == 5


def test_one_point_by_its_number_needs_no_sweep(write: Callable[..., Path]) -> None:
    assert [row[2] for row in composed("experiment=table99-002", multirun=False)] == ["tome_repo"]
    with pytest.raises(UsageError, match="has 4 points; add -m to run all of them"):
        experiments.expand(["experiment=table99"], multirun=False)
    with pytest.raises(UsageError, match="has points 001 to 004, not 099"):
        experiments.expand(["experiment=table99-099"], multirun=True)


def test_a_model_or_data_of_points_choose_those_points() -> None:
    """And others do not get their amounts: MAE's FLOPs say nothing about DeiT."""
    words = ["experiment=table5", "model=deit_s", "merge=pitome,pitome_repo"]
    expanded = experiments.expand(words, multirun=True)
    assert len(expanded) == 2 and "model=deit_s" not in expanded
    found = check_command_line(expanded, True)
    assert [(c.model.name, c.merge.name, amount.ratio) for c, amount in found] == [
        ("deit_s", "pitome", 0.925),
        ("deit_s", "pitome_repo", 0.925),
    ]
    whole = choose("table1").points
    for data in ("coco", "flickr30k"):
        (chosen,) = (w for w in experiments.expand(["experiment=table1", f"data={data}"], True))
        assert chosen.count("table1-") == sum(point["data"] == data for point in whole) > 0
    both = experiments.expand(["experiment=table1", "data=coco,flickr30k"], multirun=True)
    assert both == experiments.expand(["experiment=table1"], multirun=True)


MISTAKEN = {
    "experiment=table5 model=deit_s,deit_x": "no point with model=deit_x; it has deit_s, deit_t, mae_h",
    "experiment=table6": "experiment=table6 has only points that train; use experiment=table6_trained",
    "experiment=schedules": "is of this project's own models alone; use experiment=schedules_offline",
    "experiment=table5-099": "experiment=table5 has points 001 to",
    "experiment=table5_offline --cfg job": "-m and --cfg do not go together",
}


@pytest.mark.parametrize("words", MISTAKEN)
def test_what_cannot_be_run_is_one_line(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["-m", *words.split()]) == 2
    shown = capsys.readouterr().err
    assert MISTAKEN[words] in shown and shown.count("\n") == 1


def test_without_an_experiment_a_command_line_stays_as_it_is() -> None:
    words = ["-m", "merge=tome,pitome", "ratio=0.9"]
    assert experiments.expand(words, multirun=True) == words
    assert experiments.chosen_in(words) == []


@pytest.mark.parametrize("words", [["experiment=tabel5"], ["-m", "experiment=table5x"]])
def test_an_unknown_one_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: unknown experiment=") and shown.count("\n") == 1 and "table5" in shown


def test_a_picture_is_drawn_by_show_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    from pitome.runs import show_tokens

    seen: list[list[str]] = []
    monkeypatch.setattr(show_tokens, "main", lambda argv: seen.append(argv) or 0)
    for word in ("figure12", "figure12_offline"):
        chosen = choose(word)
        assert experiments.without_sweep(chosen, [f"experiment={word}", "ratio=0.8", "image=a.jpg"]) == 0
    given = ["ratio=0.8", "image=a.jpg"]
    assert seen == [
        ["model=vit_b_augreg", "merge=pitome,tome,diffrate", *given],
        ["model=vit_fmnist", "merge=pitome,tome,diffrate", *given],
    ]


@pytest.mark.parametrize("word", SWEEPS)
def test_a_point_of_every_experiment_is_a_configuration(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each sweep the first points of a method each: composing all of them would take a minute."""
    monkeypatch.setattr(
        "pitome.tasks.checks.find_weights", lambda *_: None
    )  # whether there are any is not at issue
    points = choose(word).points
    first = {p["merge"]: i for i, p in reversed(list(enumerate(points, 1)))}
    some = sorted(first.values())[:3]
    choices = ",".join(f"{word}-{i:03d}" for i in some)
    found = check_command_line(experiments.expand([f"experiment={choices}"], True), True)
    for (config, amount), i in zip(found, some, strict=True):
        point = points[i - 1]
        assert config.model.name == point["model"] and config.merge.name == point["merge"]
        assert config.data.name == point["data"] and config.mode == point.get("mode", "test")
        assert point["merge"] == "none" or amount.ratio == point.get("ratio")


def test_help_lists_every_experiment() -> None:
    text = help_text(CONF)
    assert all(f"  {name} " in text for name in item_names()) and "  _names" not in text


def test_a_sweep_composes_no_point_more_often_than_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Points that share their choices once, to be checked and to run."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    from pitome.runs import points

    monkeypatch.setattr(points, "_composed", {})
    composed, compose = [], ConfigLoaderImpl.load_configuration

    def counting(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> Any:
        composed.append(args)
        return compose(self, *args, **kwargs)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counting)
    monkeypatch.chdir(tmp_path)
    done = SimpleNamespace(runs=[])
    monkeypatch.setattr("pitome.runs.job.run", lambda *args, **kwargs: done)
    monkeypatch.setattr("pitome.runs.sweep._read", lambda left, config: done)  # a job without runs
    assert main.main(["-m", "weights=random", "ratio=0.9,0.8,0.7"]) == 0
    assert len(composed) == 1 + 1  # one combination of choices, and the sweep itself


def test_the_outcome_of_an_experiment_goes_to_wandb_in_the_group_of_its_runs(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Printed, logged and measured values as one more table of the sweep's own run there."""
    write(ITEM)
    name = item_names()[0]
    logged: list[tuple[Any, ...]] = []
    done = SimpleNamespace(store=Store(tmp_path / "results" / "runs"), runs=[])
    monkeypatch.setattr("pitome.runs.job.run", lambda *args, **kwargs: done)
    monkeypatch.setattr("pitome.runs.sweep._read", lambda left, config: done)  # a job without runs
    monkeypatch.setattr("pitome.runs.sweep_log.log_sweep", lambda *given: logged.append(given))
    words = [
        "-m",
        f"experiment={name}",
        "weights=random",
        f"results={tmp_path}",
        f"hydra.sweep.dir={tmp_path}",
    ]
    assert main.main(words) == 0
    ((config, (table,), picture, folder),) = logged
    assert (config.name, config.group, picture, folder) == ("wandb", name, None, tmp_path / "results")
    assert {"Printed", "Verdict"} <= set(table.header) and len(table.rows) > 1


HYDRA = "# @package _global_\ndefaults:\n  - override /merge: tome\nflops: 0.6\n"
OWN = ITEM.replace(", absent_repo: 74.8", "")


@pytest.mark.parametrize(
    ("text", "words", "points"),
    [
        (HYDRA, ["experiment=own"], [("tome", None, 0.6)]),
        (HYDRA, ["-m", "experiment=own", "flops=0.8,0.7"], [("tome", None, 0.8), ("tome", None, 0.7)]),
        (OWN, ["-m", "experiment=own_offline", "merge=tome"], [("tome", 0.925, None)]),
    ],
)
def test_an_experiment_may_stand_in_the_users_conf(
    text: str, words: list[str], points: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As overrides of a run, which Hydra composes, or with values, as those of this project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/own.yaml").write_text(text)
    multirun, words = words[0] == "-m", [word for word in words if word != "-m"]
    register_schema()
    assert [experiment.name for experiment in experiments.chosen_in(words)] == ["own_offline"] * (text == OWN)
    configs = [config for config, _ in check_command_line(experiments.expand(words, multirun), multirun)]
    assert [(config.merge.name, config.ratio, config.flops) for config in configs] == points


def test_a_sweep_leaves_its_files_where_it_is_told_to(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("-m", "merge=none", "measure=none", f"hydra.sweep.dir={tmp_path}/here") == 0
    assert (tmp_path / "here" / "multirun.yaml").is_file() and not (tmp_path / "multirun").exists()
