"""W&B: what is logged there. Equal runs are one run there, a sweep is one group, its table a table."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from pitome.cli.main import group_of
from pitome.config import LoggerConfig
from pitome.errors import UsageError
from pitome.records.store import Store
from pitome.report.rendering import Table
from pitome.runs import push, sweep_log
from pitome.runs.compose import check_command_line, register_schema
from pitome.tasks import loggers
from tests import ROOT
from tests.records.examples import example, outcomes

CONFIG = LoggerConfig(name="wandb", project="p", group="merge=tome,tofu")


class Wandb(types.ModuleType):
    """In place of the package: keeps what is logged."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.ended: list[int] = []
        self.artifacts: list[str] = []
        self.files: list[str] = []
        self.id = ""

    def init(self, **arguments: Any) -> Wandb:
        self.started.append(arguments)
        self.id = arguments["id"]
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

    def Artifact(self, name: str, type: str) -> types.SimpleNamespace:
        self.artifacts.append(name)
        return types.SimpleNamespace(add=lambda *_: None, add_file=self.files.append)

    def log_artifact(self, artifact: object) -> None: ...

    def define_metric(self, key: str, summary: str) -> None: ...

    def Image(self, path: str) -> str:
        return f"image {Path(path).name}"


class Logger(loggers.Logger):
    """In place of Lightning's: it would look into the package."""

    def __init__(self, experiment: Wandb) -> None:
        self.wandb = experiment

    name = version = "fake"

    @property
    def experiment(self) -> Wandb:
        return self.wandb

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


def entries(content: bytes) -> Iterator[bytes]:
    """The entries of a file in LevelDB's log format, after W&B's own seven bytes: in blocks of 32 KiB, parts
    with a checksum, a length and a kind (1: whole, 2: first, 3: middle, 4: last)."""
    place, held = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        held += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield held
            held = b""


def read_back(folder: Path) -> dict[str, Any]:
    """What an offline run of the real package holds: its metrics with their summaries, values, artifacts."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    out: dict[str, Any] = {"summaries": {}, "values": {}, "artifacts": []}
    for data in entries(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                run = record.run
                out |= {
                    "entity": run.entity,
                    "tags": list(run.tags),
                    "id": run.run_id,
                    "group": run.run_group,
                }
            case "metric":
                rule = record.metric.summary
                out["summaries"][record.metric.name] = "min" if rule.min else "max" if rule.max else ""
            case "history":
                for item in record.history.item:
                    out["values"][item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            case "artifact":
                out["artifacts"].append((record.artifact.type, record.artifact.name))
    return out


def test_an_offline_run_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package itself: whose it is, which way is better, what each sample gave."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = dataclasses.replace(CONFIG, entity="team", tags=["a", "b"])
    logger = loggers.open_logger(config, "tome", {"ratio": 0.9}, tmp_path, "0123456789abcdef")
    samples = {"id": ["x", "y"], "correct": [True, False]}
    loggers.close_logger(logger, {"top1": 0.5, "cost/macs": 2.0}, outcomes=samples, lower={"cost/macs"})
    end = time.monotonic() + 30
    while not (run := read_back(tmp_path))["artifacts"] or "entity" not in run:
        assert time.monotonic() < end, run  # W&B's own process may write a little after `finish`
        time.sleep(0.2)
    assert (run["entity"], run["tags"], run["id"]) == ("team", ["a", "b"], "0123456789abcdef")
    assert run["summaries"] == {"top1": "max", "cost/macs": "min"} and run["group"] == CONFIG.group
    assert run["values"]["top1"] == 0.5 and run["values"]["cost/macs"] == 2.0
    assert ("samples", "samples-0123456789abcdef") in run["artifacts"]
    assert "wandb login" in (loggers.offline_hint() or "")


def test_an_agent_of_a_sweep_names_the_run(
    wandb: Wandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    loggers.open_logger(CONFIG, "tome", {}, tmp_path, "key")
    assert wandb.started[0]["id"] == "given"
    sweep = yaml.safe_load((ROOT / "docs" / "wandb_sweep.yaml").read_text())
    words = [
        f"{key}={values.get('value', values.get('values'))}" for key, values in sweep["parameters"].items()
    ]
    register_schema()
    words = [word.translate(str.maketrans("", "", "[]' ")) for word in words]
    assert len(check_command_line(words, multirun=True)) == 9 and sweep["program"] == "run.py"


def test_records_are_pushed_without_running_again(
    wandb: Wandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    store, page = Store(tmp_path / "runs"), tmp_path / "index.html"
    page.write_text("")
    record = store.save(example("tome", 0.9, 0.5), outcomes(0.5, 1000))
    with pytest.raises(UsageError, match="run `wandb login`"):
        push.push(store, page)
    monkeypatch.setenv("WANDB_MODE", "online")
    assert push.push(store, page) == 1
    run, made = wandb.started
    assert (
        run["id"] == record.run_id and run["mode"] == "online" and run["name"] == "vit_fmnist tome ratio=0.9"
    )
    assert made["job_type"] == "page" and wandb.files == [str(page)]
    assert wandb.artifacts == [f"samples-{record.run_id}", "page"]
