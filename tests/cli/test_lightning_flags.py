"""Lightning's flags on the command line: passed on, renamed, or refused with the key to give."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from pitome.cli.lightning_flags import REFUSED, RENAMED, TRANSLATED, translated
from pitome.config import Config, TrainerConfig
from pitome.errors import UsageError
from pitome.records.store import Store
from pitome.tasks.recipe import recipes
from tests.test_conf import config_of

PASSED = {"accumulate_grad_batches", "detect_anomaly", "deterministic", "profiler"}


def test_every_flag_of_lightning_has_an_answer() -> None:
    import lightning

    flags = set(inspect.signature(lightning.Trainer.__init__).parameters) - {"self"}
    assert flags == {*RENAMED, *TRANSLATED, *REFUSED, *PASSED}
    assert {*RENAMED.values()} <= {f.name for f in fields(Config)} | {
        f"trainer.{f.name}" for f in fields(TrainerConfig)
    }


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("trainer.devices=2", ["devices=2"]),
        ("+trainer.accelerator=gpu", ["device=cuda"]),
        ("trainer.strategy=ddp", []),
        ("trainer.fast_dev_run=false", []),
        ("trainer.parts=2", ["trainer.parts=2"]),
        ("trainer=imagenet", ["trainer=imagenet"]),
        ("data.root=trainer.devices=2", ["data.root=trainer.devices=2"]),
    ],
)
def test_a_flag_is_this_project_s_key(word: str, words: list[str]) -> None:
    assert translated([word]) == words


def test_a_dry_run_leaves_what_is_given() -> None:
    assert translated(["limit=20", "trainer.fast_dev_run=true"]) == [
        "limit=20",
        *("limit_train=512", "trainer.epochs=1", "logger=none", "overwrite=all"),
    ]


@pytest.mark.parametrize(
    "word",
    [*(f"trainer.{flag}=1" for flag in REFUSED), "trainer.strategy=fsdp", "trainer.fast_dev_run=7"],
)
def test_what_would_break_the_count_is_one_line(word: str) -> None:
    with pytest.raises(UsageError, match=rf"^{word.partition('=')[0]}\b.*: .*\S$"):
        translated([word])


def test_several_batches_are_one_step_of_as_many_parts() -> None:
    trainer = config_of("mode=train", "trainer.accumulate_grad_batches=3", "trainer.parts=2").trainer
    assert [(recipe.batch_size, recipe.parts) for recipe in recipes(trainer)] == [
        (3 * stage.batch_size, 6) for stage in trainer.stages
    ]


def test_a_profile_is_written_beside_the_runs(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("merge=tome", "ratio=0.9", "trainer.profiler=simple", "measure=none") == 0
    (path,) = (tmp_path / "results" / "profiles").iterdir()
    assert "test_step" in path.read_text()
    (record,) = Store(tmp_path / "results" / "runs").all()
    assert record.config["trainer"]["profiler"] == "simple"
