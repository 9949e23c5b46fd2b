"""Each task's checks: its own settings, and nobody else's."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from pitome.config import DataConfig, LoraConfig, StageConfig, TaskConfig, TrainerConfig, choices
from pitome.errors import UsageError
from pitome.fields import fits, parts, types_of
from pitome.runs.validate import validate
from pitome.tasks.checks import checks_of
from tests.test_conf import config_of

CONFIGS = {
    "classification": (),
    "text": ("task=text",),
    "retrieval": ("task=retrieval",),
    "vqa": ("task=vqa",),
}
CHANGED: dict[str, Any] = {
    "head": "knn",
    "k": 5,
    "temperature": 1.0,
    "bank": 5,
    "rerank": 5,
    "positions": "keep",
    "device_map": "auto",
    "tower": "tome",
    "tower_ratio": 0.5,
}


def test_every_setting_is_of_one_task() -> None:
    named = [key for task in choices("task") for key in checks_of(task).options]
    assert sorted(named) == sorted(CHANGED)
    assert {field.name for field in dataclasses.fields(TaskConfig)} == {*named, "name", "layers"}


@pytest.mark.parametrize("key", CHANGED)
@pytest.mark.parametrize("task", choices("task"))
def test_a_setting_of_another_task_is_refused(task: str, key: str) -> None:
    config = TaskConfig(name=task, **{key: CHANGED[key]})
    if key in checks_of(task).options:
        checks_of(task).check_options(config)
        return
    with pytest.raises(UsageError, match=rf"^task\.{key}=\S+ is for task=\w+, not for task={task}$"):
        checks_of(task).check_options(config)


TRAINED: dict[str, Any] = {
    "mixup": 0.5,
    "cutmix": 0.5,
    "smoothing": 0.2,
    "drop_path": 0.1,
    "workers": 2,
    "layer_decay": 0.5,
    "distill": 0.5,
    "lora": LoraConfig(rank=4),
    "questions": 2,
    "flip": True,
}
EVERY_TASK = {
    "stages",
    "weight_decay",
    "clip",
    "schedule",
    "parts",
    "save_every",
    "epochs",
    "ema",
    "curriculum",
    "accumulate_grad_batches",
    "profiler",
    "detect_anomaly",
    "deterministic",
}


def test_settings_of_training_are_of_some_tasks_or_of_all() -> None:
    named = {key for task in choices("task") for key in checks_of(task).training}
    assert named == {*TRAINED}
    assert {field.name for field in dataclasses.fields(TrainerConfig)} == named | EVERY_TASK


@pytest.mark.parametrize("key", TRAINED)
@pytest.mark.parametrize(("task", "words"), CONFIGS.items(), ids=[*CONFIGS])
def test_a_setting_of_another_task_s_training_is_refused(task: str, words: tuple[str, ...], key: str) -> None:
    config = dataclasses.replace(config_of(*words), trainer=TrainerConfig(**{key: TRAINED[key]}))
    if key in checks_of(task).training:
        checks_of(task).check_trainer(config)
        return
    with pytest.raises(UsageError, match=rf"^trainer\.{key}=\S+ is for task=[a-z ]+, not for task={task}$"):
        checks_of(task).check_trainer(config)


NUMBERS = [
    (kind, name)
    for kind in (TrainerConfig, StageConfig, LoraConfig)
    for name, hint in types_of(kind).items()
    if {int, float} & set(parts(hint))
]


@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=[name for _, name in NUMBERS])
def test_every_number_of_a_training_has_a_range(kind: type, name: str) -> None:
    for value in (-1, float("nan"), float("inf"), "much"):
        with pytest.raises(UsageError, match=f"^{name}="):
            fits(kind, name, value)


@pytest.mark.parametrize(
    ("words", "reason"),
    {
        "{epochs: 1, batch_size: 4, lr: 0}": r"^trainer.stages\[0\].lr=0 is not a number above 0",
        "{epochs: 0, batch_size: 4, lr: 1}": r"^trainer.stages\[0\].epochs=0 is not a whole number >= 1",
        "{epochs: 1, batch_size: 4, lr: 1, min_lr: 2}": r"min_lr=2 is above lr=1$",
        "{epochs: 1, batch_size: 4, lr: 1, warmup: 2}": r"warmup=2 is longer than epochs=1$",
    }.items(),
)
def test_stages_that_cannot_be_are_one_line(words: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        validate(config_of("mode=train", "weights=random", f"trainer.stages=[{words}]"))


def test_a_plateau_warms_nothing_up() -> None:
    stages = "trainer.stages=[{epochs: 4, batch_size: 4, lr: 1, warmup: 2}]"
    with pytest.raises(UsageError, match="warmup and min_lr go with"):
        validate(config_of("mode=train", "weights=random", "trainer.schedule=plateau", stages))


DATA: dict[str, Any] = {"split": "val", "max_pixels": 5, "exif": False, "ocr": True, "instruction": "Say."}


def test_every_setting_of_data_is_of_some_task() -> None:
    named = {key for task in choices("task") for key in checks_of(task).data_options}
    assert named == set(DATA)
    always = {"name", "task", "root", "repository", "revision", "sources", "classes"}
    assert {field.name for field in dataclasses.fields(DataConfig)} == named | always


@pytest.mark.parametrize("key", DATA)
@pytest.mark.parametrize("task", choices("task"))
def test_a_setting_of_data_of_another_task_is_refused(task: str, key: str) -> None:
    config = DataConfig(name="mine", task=task, **{key: DATA[key]})
    if key in checks_of(task).data_options:
        checks_of(task).check_data_options(config)
        return
    with pytest.raises(UsageError, match=rf"^data\.{key}=\S+ is for task=[a-z ]+, not for task={task}$"):
        checks_of(task).check_data_options(config)


def test_they_import_no_torch() -> None:
    code = "import sys\nfrom pitome.config import choices\nfrom pitome.tasks.checks import checks_of\n"
    code += "[checks_of(task) for task in choices('task')]\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
