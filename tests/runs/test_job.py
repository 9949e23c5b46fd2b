"""Runs from the command line to the record, on small data."""

from __future__ import annotations

import errno
import gzip
import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from PIL import Image
from safetensors.torch import save_file

from pitome.cli.main import with_new_names
from pitome.config import model_label
from pitome.errors import Interrupted, UsageError
from pitome.merge import registry
from pitome.records import code
from pitome.records.groups import group
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.tasks.classification.task import TASK
from pitome.tasks.training import EpochLog

Run = Callable[..., int]
Records = Callable[[], dict[str, Record]]


def test_a_record_says_what_it_measured(run: Run, records: Records, tmp_path: Path) -> None:
    assert run("merge=pitome", "ratio=0.9", "limit=30") == 0
    record = records()["pitome 0.9"]
    assert (record.data.name, record.data.split, record.data.n_samples) == ("fashion_mnist", "test", 30)
    assert (record.data.source, record.data.n_skipped) == ("local", 0)
    assert record.weights.random and record.metrics == {"top1": None, "top5": None}
    assert record.tokens == [197, 178, 161, 145, 131]  # floor(T - T q) of 196, 177, 160, 144
    assert record.method.schedule == [19, 17, 16, 14]
    assert record.cost is not None and 0 < record.cost.share < 1
    assert record.cost.macs == pytest.approx(record.cost.macs_closed_form, rel=1e-3)
    assert record.environment is not None and record.environment.device == "cpu"
    outcomes = Store(tmp_path / "results" / "runs").outcomes(record)
    assert outcomes is not None and list(outcomes["id"]) == list(range(30))


def test_a_recorded_run_is_skipped_and_rerun_repeats_it(
    run: Run, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("merge=tome", "ratio=0.9") == 0
    first = records()["tome 0.9"]
    capsys.readouterr()
    assert run("merge=tome", "ratio=0.9", "logger=csv") == 0  # the logger is not part of the identity
    assert "1 of 1 runs were recorded before" in capsys.readouterr().out
    assert records()["tome 0.9"] == first
    assert run("merge=tome", "ratio=0.9", "overwrite=all") == 0
    again = records()["tome 0.9"]
    assert (again.run_id, again.tokens) == (first.run_id, first.tokens)
    assert again.started > first.started  # to the microsecond


def test_runs_of_other_code_are_named_and_repeated_when_asked(
    run: Run, records: Records, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("-m", "merge=none,tome", "ratio=0.9", "limit=8")
    assert run(*words) == 0 and "other code" not in capsys.readouterr().out
    known = code._digest
    monkeypatch.setattr(code, "_whole", lambda: "changed")
    monkeypatch.setattr(code, "_digest", lambda module: "new" if module.endswith("tome") else known(module))
    before = records()
    assert run(*words) == 0
    shown = capsys.readouterr().out
    assert shown.count("1 of 2 runs were made by other code than this: 1 by ") == 1
    assert "2 of 2 runs were recorded before" in shown
    assert run(*words, "overwrite=changed") == 0
    shown = capsys.readouterr().out
    assert "other code" not in shown and "1 of 2 runs were recorded before" in shown
    after = records()
    assert after["none"] == before["none"] and after["tome 0.9"].started > before["tome 0.9"].started


PROBLEMS = [
    (UsageError("no"), 2),
    (RuntimeError("bug"), 1),
    (MemoryError(), 2),
    (OSError(errno.ENOSPC, "disk full"), 1),
    (Interrupted(), 143),
    (KeyboardInterrupt(), 130),
]


@pytest.mark.parametrize(("problem", "exit_code"), PROBLEMS, ids=lambda value: type(value).__name__)
def test_a_run_that_fails_leaves_the_good_record(
    problem: BaseException, exit_code: int, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise problem

    assert run("merge=tome", "limit=8") == 0
    folder = tmp_path / "results" / "runs"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(TASK, "evaluate", fail)
    assert run("merge=tome", "limit=8", "overwrite=all") == exit_code
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_damaged_record_is_moved_aside_and_a_newer_one_left_alone(
    run: Run, records: Records, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-m", "merge=none,tome,tofu", "ratio=0.9", "limit=8")
    assert run(*words) == 0
    folder = tmp_path / "results" / "runs"
    edited, newer = (folder / f"{records()[name].run_id}.json" for name in ("tome 0.9", "tofu 0.9"))
    edited.write_text(edited.read_text().replace('"n_samples": 8', '"n_samples": 80'))
    newer.write_text('{"schema_version": 99}')
    capsys.readouterr()
    assert run(*words) == 2  # for the newer one
    shown = capsys.readouterr()
    assert shown.err.count("newer version") == 1 and "| 80" not in shown.out
    assert newer.read_text() == '{"schema_version": 99}'
    assert records()["tome 0.9"].data.n_samples == 8 and len(list(folder.glob("*.damaged"))) == 1


def test_passwords_are_neither_printed_nor_recorded(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    address = "'https://me:hunter22@host/x?token=hunter22'"
    assert run("-m", "merge=tome", f"logger.project={address}", "limit=8") == 0
    assert run("merge=tome", f"logger.project={address}", "limit=8", "--cfg=job") == 0
    assert run("merge=tome", f"weights={address}") == run("merge=tome", f"model={address}") == 2
    shown = capfd.readouterr()
    assert "hunter22" not in shown.out + shown.err and "https://***@host" in shown.out
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    assert any(path.name == "overrides.yaml" for path in files)
    assert not [path for path in files if b"hunter22" in path.read_bytes()]


@pytest.mark.parametrize(("old", "new"), [("rerun=true", "overwrite=all"), ("rerun=false", "overwrite=null")])
def test_an_option_that_was_called_otherwise(
    old: str, new: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("merge=tome", "limit=none", old) == 2  # not run at all
    assert capsys.readouterr().err.splitlines()[0] == f"{old} is now called {new}"
    assert with_new_names(["a=1", old, "-m"]) == ["a=1", new, "-m"]


def test_a_sweep_runs_the_unmerged_model_once_and_ends_in_table_and_plot(
    run: Run, records: Records, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-m", "merge=none,tome", "ratio=0.95,0.9") == 0
    assert sorted(records()) == ["none", "tome 0.9", "tome 0.95"]
    shown = capsys.readouterr().out
    assert "Method" in shown and "tome" in shown
    (sweep,) = (tmp_path / "results" / "sweeps").iterdir()
    text = (sweep / "table.md").read_text()
    assert "| tome |" in text and "random" in text
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in sweep.glob("*.png"))


def test_a_failing_run_does_not_stop_the_others(
    run: Run, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    """diffrate needs a class token; the model here has none."""
    words = ("+model.args.class_token=false", "+model.args.global_pool=avg")
    assert run("-m", "merge=tome,diffrate,tofu", "ratio=0.9", *words) == 2
    assert {name for name, record in records().items() if record.done} == {"tome 0.9", "tofu 0.9"}
    assert "class token" in capsys.readouterr().out


def test_trained_weights_give_an_accuracy(run: Run, records: Records, tmp_path: Path) -> None:
    """Weights that always answer class 3: accuracy is the share of that class."""
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=28, patch_size=2, in_chans=1, num_classes=10, embed_dim=16, depth=4, num_heads=2
    )
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.eye(10)[3]
    save_file(model.state_dict(), tmp_path / "constant.safetensors")
    assert run(f"weights={tmp_path}/constant.safetensors", "merge=none") == 0
    record = records()["none"]
    outcomes = Store(tmp_path / "results" / "runs").outcomes(record)
    assert outcomes is not None
    share = sum(label == 3 for label in outcomes["label"]) / 40
    assert share > 0 and record.metrics["top1"] == pytest.approx(share)
    assert record.metrics["top5"] is not None and record.metrics["top5"] >= share
    assert set(outcomes["prediction"]) == {3}
    assert record.weights.name == "constant.safetensors" and len(record.weights.sha256 or "") == 64


def test_weights_of_another_shape_are_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"cls_token": torch.zeros(1, 1, 3)}, tmp_path / "other.safetensors")
    assert run(f"weights={tmp_path}/other.safetensors") == 2
    shown = capsys.readouterr()
    assert shown.err.count("error: ") == 1 and "does not fit this model" in shown.err
    assert "Method" not in shown.out


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("model.preprocess.size=12", "preprocess.size=12) cannot be used"),
        ("model.args.patch_size=0", "ZeroDivisionError"),
        ("model.args.num_heads=5", "dim should be divisible by num_heads"),
    ],
)
def test_settings_that_a_library_refuses_are_one_line(
    word: str, reason: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(word, "merge=tome", "ratio=0.9") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error", "Trace"))]
    assert reason in line


def test_a_device_that_does_not_exist_leaves_no_record(
    run: Run, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-m", "device=cuda:7,cpu", "merge=none") == 2
    assert capsys.readouterr().err.count("error: device=cuda:7 does not exist here") == 1
    assert [record.done for record in records().values()] == [True]


def test_results_that_cannot_be_written(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(f"results={tmp_path}/file/runs") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_a_full_disk_leaves_nothing_half_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    real, folder = os.fsync, tmp_path / "results" / "runs"
    assert run("merge=none") == 0

    def full(descriptor: int) -> None:
        if b"probe" not in os.readlink(f"/proc/self/fd/{descriptor}").encode():
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert run("merge=tome", "ratio=0.9") == 2
    monkeypatch.undo()
    assert [record.method.name for record in Store(folder).all()] == ["none"]


def test_the_sum_of_the_data_is_in_the_identity(run: Run, records: Records) -> None:
    assert run("merge=none", "limit=10") == 0
    record = records()["none"]
    assert record.identity["data"]["revision"] == record.data.revision
    assert record.identity["data"]["limit"] == 10
    text = json.dumps(record.identity)
    assert "results" not in text and "logger" not in text


def test_another_architecture_is_another_run(run: Run, tmp_path: Path) -> None:
    """Random weights have no checksum and heads leave no trace in one: the settings tell them apart."""
    assert run("merge=none") == 0
    assert run("merge=none", "model.args.num_heads=4") == 0
    names = sorted(record.model.name for record in Store(tmp_path / "results" / "runs").all())
    assert names == [
        "vit_fmnist (args.depth=4, args.embed_dim=16)",
        "vit_fmnist (args.depth=4, args.embed_dim=16, args.num_heads=4)",
    ]


def test_the_default_model_keeps_its_name() -> None:
    from tests.test_conf import config_of

    assert model_label(config_of().model) == "vit_fmnist"
    assert model_label(config_of("model=mae_l").model) == "mae_l"


def test_several_ways_to_say_how_much(run: Run, records: Records) -> None:
    assert run("merge=tome", "r=8") == 0
    assert run("merge=pitome", "flops=0.8", "layers=first3") == 0
    assert run("merge=tofu", "ratio=[1.0,0.9,0.8,0.7]") == 0
    assert run("merge=diffrate", "merge.options.merge_kept=[150,120,90,60]") == 0
    found = {record.method.name: record for record in records().values()}
    assert found["tome"].method.schedule == [8, 8, 8, 8]
    assert found["pitome"].cost is not None and found["pitome"].cost.share <= 0.8
    assert found["pitome"].method.schedule is not None and found["pitome"].method.schedule[-1] == 0
    assert found["tofu"].method.schedule == [0, math.floor(196 - 196 * 0.9), 35, 42]
    assert found["diffrate"].tokens == [197, 150, 120, 90, 60]


def test_throughput_is_measured_against_the_unmerged_model(run: Run, records: Records) -> None:
    assert run("merge=tome", "ratio=0.7", "measure=full", "batch_size=4") == 0
    timing = records()["tome 0.7"].throughput
    assert timing is not None and timing.pairs >= 20 and timing.batch == 4
    assert timing.speedup_low <= timing.speedup <= timing.speedup_high


def test_the_authors_convention_of_deit_s(run: Run, records: Records) -> None:
    """3.06 and 4.54 GMACs: what the authors' code prints for DeiT-S with and without ToMe at 0.925."""
    assert run("model=deit_s", "limit=1", "merge=tome_repo", "ratio=0.925", small=()) == 0
    cost = records()["tome_repo 0.925"].cost
    assert cost is not None and cost.authors_macs is not None and cost.unmerged_authors_macs is not None
    assert f"{cost.authors_macs / 1e9:.2f}" == "3.06"
    assert f"{cost.unmerged_authors_macs / 1e9:.2f}" == "4.54"
    assert records()["tome_repo 0.925"].metrics["top1"] is None


def test_training_ends_in_weights_a_card_and_a_record_and_resumes(
    run: Run, records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = "trainer.stages=[{epochs:1,patch_size:7,batch_size:60,lr:1e-3},{epochs:1,batch_size:60,lr:1e-3}]"
    words = ("mode=train", "model.args.depth=1", "model.args.patch_size=4", stages)
    assert run(*words) == 0
    (folder,) = (tmp_path / "results" / "train").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "stage0.safetensors",
        "vit_fmnist.safetensors",
        "vit_fmnist.md",
        "epochs.jsonl",
    }
    card = (folder / "vit_fmnist.md").read_text()
    assert "test top1" in card and "seed" in card and "stage 1" in card
    (record,) = records().values()
    assert record.metrics["top1"] is not None and record.cost is not None and record.cost.share == 1
    before = {path: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert run(*words, "overwrite=all") == 0  # both stages are done: nothing is trained again
    assert {path: path.read_bytes() for path in folder.glob("*.safetensors")} == before
    assert len((folder / "epochs.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "method", "says"),
    [
        ((), "none", True),
        (("ratio=0.7",), "none", True),
        (("merge=pitome",), "pitome", False),
        (("merge=pitome", "ratio=1.0"), "none", False),
        (("merge=tome", "r=4"), "tome", False),
        (("merge=none",), "none", False),
    ],
    ids=["nothing", "ratio", "method", "ratio 1", "both", "none"],
)
def test_training_merges_where_the_command_says_how(
    run: Run,
    records: Records,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    method: str,
    says: bool,
) -> None:
    """A method is trained with at its default ratio, as it is tested."""
    small = ("model.args.depth=2", "model.args.patch_size=7")
    stages = "trainer.stages=[{epochs:1,batch_size:60,lr:1e-3}]"
    assert run("mode=train", "measure=none", "limit=10", *small, stages, *words) == 0
    (record,) = records().values()
    assert record.method.name == method
    shown = capsys.readouterr().out
    assert shown.count("training without merging, since merge= is not given") == says


def test_modes_cannot_be_swept_without_a_method(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "mode=train,test") == 2
    assert "error: mode=train,test needs merge=" in capsys.readouterr().err


def test_training_goes_on_where_it_was_cut_off(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = "trainer.stages=[{epochs:2,batch_size:60,lr:1e-3}]"
    words = ("mode=train", "model.args.depth=1", "model.args.patch_size=7", stages)
    whole = EpochLog.on_train_epoch_start

    def cut(self: EpochLog, trainer: Trainer, module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("power failure")
        whole(self, trainer, module)

    monkeypatch.setattr(EpochLog, "on_train_epoch_start", cut)
    assert run(*words) == 1
    (folder,) = (tmp_path / "results" / "train").iterdir()
    assert (folder / "stage0.ckpt").exists() and not list(folder.glob("*.safetensors"))
    monkeypatch.setattr(EpochLog, "on_train_epoch_start", whole)
    assert run(*words) == 0
    epochs = [json.loads(line)["epoch"] for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert epochs == [0, 1]
    assert not (folder / "stage0.ckpt").exists()


def test_a_truncated_image_is_counted_and_the_run_completes(
    run: Run, records: Records, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "imagenet" / "val" / "n01440764"
    folder.mkdir(parents=True)
    for index in range(4):
        Image.new("RGB", (300, 260), (index * 60, 90, 30)).save(folder / f"{index}.JPEG")
    content = (folder / "2.JPEG").read_bytes()
    (folder / "2.JPEG").write_bytes(content[: len(content) // 2])
    words = ("model=deit_t", "data=imagenet", f"data.root={tmp_path}/imagenet", "merge=tome", "ratio=0.9")
    assert run(*words, "+model.args.depth=2", small=()) == 0
    data = records()["tome 0.9"].data
    assert (data.n_samples, data.n_skipped) == (3, 1)
    assert "2.JPEG" in data.skipped[0].id + data.skipped[0].reason
    assert "1 skipped" in capsys.readouterr().out


def test_a_method_of_ones_own(
    run: Run, records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_method.py").write_text(
        """
from dataclasses import dataclass

import torch

import pitome

@dataclass(frozen=True)
class Options(pitome.MethodOptions):
    offset: int = 0

@pitome.register("last_into_first", options=Options)
def last_into_first(tokens, remove, options):
    n = tokens.x.shape[1]
    position = torch.arange(n, device=tokens.x.device).expand(tokens.x.shape[0], -1)
    return pitome.Plan(
        kept=position[:, : n - remove],
        source=position[:, n - remove :],
        target=torch.full_like(position[:, :remove], tokens.protected + options.offset),
        weight=tokens.size,
    )
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    words = ("imports=[own_method]", "merge=last_into_first", "merge.options.offset=3", "ratio=0.9")
    assert run(*words) == 0
    method = records()["last_into_first 0.9"].method
    assert method.options["offset"] == 3 and method.schedule == [19, 17, 16, 14]


def test_a_ratio_below_one_half_is_clamped_with_one_warning(
    run: Run, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("merge=tome", "ratio=0.3") == 0
    assert records()["tome 0.3"].tokens == [197, 99, 50, 26, 14]
    assert capsys.readouterr().out.count("WARNING: ratio below 0.5") == 1


def test_wandb_offline_run_can_be_read_back(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("merge=tome", "ratio=0.9", "logger=wandb") == 0
    (log,) = (tmp_path / "results" / "wandb").glob("offline-run-*/*.wandb")
    from wandb.proto import wandb_internal_pb2

    config, summary, runs = {}, {}, []
    for data in leveldb_records(log.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        runs += [(record.run.run_id, record.run.run_group)] if record.run.run_id else []
        for item in [*record.run.config.update, *record.config.update]:
            config[item.key] = json.loads(item.value_json)
        for item in record.history.item:
            summary[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    assert config["merge"]["name"] == "tome" and config["ratio"] == 0.9
    assert summary["cost/macs"] > 0 and summary["n_samples"] == 40
    (kept,) = (tmp_path / "results" / "runs").glob("*.json")
    assert set(runs) == {(kept.stem, "")}  # named as the record, in no group: it is not a sweep


def leveldb_records(content: bytes) -> Iterator[bytes]:
    """Records of a W&B log: LevelDB's log format (blocks of 32 KiB, records cut at their ends)."""
    position, parts = 7, b""  # behind the file's own header
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:  # too little for a header: padding
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


@pytest.fixture
def broken(images: Path, tmp_path: Path) -> Path:
    """A folder of data whose files end in the middle."""
    folder = tmp_path / "broken"
    folder.mkdir()
    for path in images.iterdir():
        content = gzip.decompress(path.read_bytes())
        (folder / path.name).write_bytes(gzip.compress(content[: len(content) // 2]))
    return folder


def test_damaged_data_is_one_line(run: Run, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"data.root={broken}") == 2
    shown = capsys.readouterr().err
    assert "is truncated" in shown and shown.splitlines()[-1].endswith("fetch it again")


def test_a_run_that_fails_before_its_data_are_known_leaves_the_reason(
    run: Run, broken: Path, records: Records
) -> None:
    words = ("merge=tome", "limit=20", "measure=none")
    assert run("-m", f"data.root={broken}", "ratio=0.9,0.8", *words) == 2
    kept = records()
    assert sorted(kept) == ["tome 0.8", "tome 0.9"]
    assert {record.headline.name for record in kept.values()} == {"top1"}
    assert all(not one.done and "is truncated" in str(one.error) for one in kept.values())
    failed = kept["tome 0.9"]
    assert run("ratio=0.9", *words) == 0
    done = records()["tome 0.9"]
    assert done.done and done.run_id != failed.run_id
    assert group([failed, done]) == [[done]]  # it was made good
