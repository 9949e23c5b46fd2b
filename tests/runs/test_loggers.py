"""W&B: what is logged there. Equal runs are one run there, a sweep is one group, its table a table."""

from __future__ import annotations

import dataclasses
import io
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pitome.cli.main import group_of
from pitome.config import LoggerConfig
from pitome.report.rendering import Table
from pitome.runs import sweep_log
from pitome.tasks import loggers

CONFIG = LoggerConfig(name="wandb", project="p", group="merge=tome,tofu")


class Wandb(types.ModuleType):
    """In place of the package: keeps what is logged."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.ended: list[int] = []

    def init(self, **arguments: Any) -> Wandb:
        self.started.append(arguments)
        return self

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self, exit_code: int = 0) -> None:
        self.ended.append(exit_code)

    def teardown(self) -> None: ...

    def Settings(self, **arguments: Any) -> dict[str, Any]:
        return arguments

    def Table(self, **arguments: Any) -> dict[str, Any]:
        return arguments

    def Image(self, path: str) -> str:
        return f"image {Path(path).name}"


class Logger(loggers.Logger):
    """In place of Lightning's: it would look into the package."""

    def __init__(self, experiment: Wandb) -> None:
        self.wandb = experiment

    name = version = "fake"

    def log_hyperparams(self, *arguments: Any, **more: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.wandb.log(metrics)

    def log_image(self, key: str, images: list[Any]) -> None:
        self.wandb.log({key: images[0].size})


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    fake = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(loggers, "WandbLogger", Logger)
    return fake


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4)).save(buffer, format="png")
    return buffer.getvalue()


def test_a_run_is_resumed_under_its_id_in_the_group_of_its_sweep(wandb: Wandb, tmp_path: Path) -> None:
    for _ in range(2):
        logger = loggers.open_logger(CONFIG, "tome 0.9", {"ratio": 0.9}, tmp_path, "0123456789abcdef")
        loggers.close_logger(logger, {"top1": 0.5, "top5": None}, png())
    first, second = wandb.started
    assert first == second
    assert (first["id"], first["resume"], first["group"]) == ("0123456789abcdef", "allow", CONFIG.group)
    assert first["config"] == {"ratio": 0.9} and first["project"] == "p"
    assert wandb.logged[:2] == [{"top1": 0.5}, {"tokens": (6, 4)}] and wandb.ended == [0, 0]


def test_a_training_that_goes_on_is_the_run_it_was(wandb: Wandb, tmp_path: Path) -> None:
    """Its id comes from what it is, wherever it runs and whatever logs it."""
    settings = {"seed": 0, "device": "cpu", "logger": {"group": None}, "overwrite": None}
    elsewhere = settings | {"device": "cuda", "logger": {"group": "x"}}
    for given in (settings, elsewhere, settings | {"seed": 1}):
        loggers.open_logger(CONFIG, "train vit", given, tmp_path)
    ids = [started["id"] for started in wandb.started]
    assert ids[0] == ids[1] != ids[2]


def test_a_failed_run_is_marked_as_one(wandb: Wandb, tmp_path: Path) -> None:
    loggers.close_logger(loggers.open_logger(CONFIG, "tome", {}, tmp_path), {}, failed=True)
    assert wandb.ended == [1]
    loggers.close_logger(None, {}, failed=True)  # it had not begun


def test_the_tables_of_a_sweep_are_tables(wandb: Wandb, tmp_path: Path) -> None:
    table = Table(
        "quality", [], ["Method", "Top-1 %", "Plan %"], [["none", "88.52", "-"], ["tome", "88.4", "1"]]
    )
    for _ in range(2):
        sweep_log.log_sweep(CONFIG, [table], tmp_path / "tokens.png", tmp_path)
    first, second = wandb.started
    assert first == second and (first["group"], first["job_type"]) == (CONFIG.group, "comparison")
    logged = wandb.logged[0]
    assert logged["tokens"] == "image tokens.png"
    assert logged["quality"]["columns"] == table.header
    assert logged["quality"]["data"] == [["none", 88.52, None], ["tome", 88.4, 1.0]]


def test_a_single_run_has_no_comparison(wandb: Wandb, tmp_path: Path) -> None:
    sweep_log.log_sweep(dataclasses.replace(CONFIG, group=None), [], None, tmp_path)
    sweep_log.log_sweep(LoggerConfig(name="csv", group="g"), [], None, tmp_path)
    assert wandb.started == []


def test_the_group_of_a_sweep_stays_when_it_goes_on() -> None:
    words = ["merge=tome,tofu", "ratio=0.9"]
    assert group_of(words, []) == "merge=tome,tofu ratio=0.9"
    assert group_of(["ratio=0.9", "merge=tome,tofu", "results=/x", "overwrite=all"], []) == group_of(
        words, []
    )
    assert group_of(["experiment=table5-001,table5-002"], ["table5"]) == "table5"
    long = group_of(["ratio=" + ",".join(f"0.{n}" for n in range(100))], [])
    assert len(long) == 100 and long.startswith("ratio=0.0,0.1")


@pytest.mark.parametrize("name", ["wandb", "csv"])
def test_a_logger_that_cannot_be_opened_costs_a_line(
    name: str,
    wandb: Wandb,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A full disk, say."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space\nleft on device")

    monkeypatch.setattr(wandb, "init", fail)
    monkeypatch.setattr(loggers, "CSVLogger", fail)
    assert loggers.open_logger(LoggerConfig(name=name, group="g"), "tome", {}, tmp_path) is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "(no space left on device); results are recorded all the same" in lines[0]


def test_a_service_that_is_down_is_logged_offline(
    wandb: Wandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    init = wandb.init

    def down(**arguments: Any) -> Wandb:
        if arguments["mode"] == "online":
            raise RuntimeError("the service did not answer")
        return init(**arguments)

    monkeypatch.setattr(wandb, "init", down)
    monkeypatch.setenv("WANDB_MODE", "online")
    for _ in range(2):  # the second run does not ask again
        assert loggers.open_logger(CONFIG, "tome", {}, tmp_path) is not None
    assert [started["mode"] for started in wandb.started] == ["offline", "offline"]
    assert capsys.readouterr().err.count("(the service did not answer); logging offline") == 1


def test_a_mode_that_does_not_exist_is_offline(
    wandb: Wandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offlin")
    loggers.open_logger(CONFIG, "tome", {}, tmp_path)
    assert [started["mode"] for started in wandb.started] == ["offline"]
    assert "WANDB_MODE=offlin is not known, logging offline; did you mean offline" in capsys.readouterr().err


def test_a_logger_that_breaks_at_the_end_costs_a_line(
    wandb: Wandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = loggers.open_logger(CONFIG, "tome", {}, tmp_path)

    def fail(*_: object) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(wandb, "log", fail)
    loggers.close_logger(logger, {"top1": 0.5})
    sweep_log.log_sweep(CONFIG, [], None, tmp_path)
    assert capsys.readouterr().err.count("(gone); results are recorded all the same") == 2
    assert wandb.ended == [0]
