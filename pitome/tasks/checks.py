"""What text and paths decide about a run, before torch is imported: what tasks share."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence

from pitome.config import Config, DataConfig, TaskConfig, TrainerConfig, choices
from pitome.errors import UsageError
from pitome.sources.weights import Weights, find_weights


class Checks:
    """Checks of one task. Its file `pitome/tasks/<task>/checks.py` imports no torch and defines `CHECKS`."""

    options: tuple[str, ...] = ()  # settings of TaskConfig that this task reads and others do not
    training: tuple[str, ...] = ()  # settings of TrainerConfig that this task reads and some others do not
    data_options: tuple[str, ...] = ()  # likewise of DataConfig, but for those that every task reads
    data_sets: Collection[str] = ()  # with readers of their own
    classified = True  # whether a user's own set names `classes`, and may be on the hub
    half_weights = False  # whether the weights may be of half precision, precision=16-true
    resizable = False  # whether there is a control=resize
    after_tower = False  # whether tokens may be removed after an image tower, by keep=

    def check(self, config: Config) -> None:
        """Check what needs several fields. Raises UsageError."""

    def weights(self, config: Config, name: str) -> Weights:
        """What `name` (pretrained, random or a path) means, as far as text and paths tell. Raises
        CheckpointError."""
        return find_weights(config.model.name, config.model.checkpoint, name, config.task.name)

    def check_files(self, data: DataConfig, *, train: bool) -> None:
        """Look for the files of a user's own set; their contents are not read. train: for training
        samples as well. Raises DataError."""

    def check_options(self, task: TaskConfig) -> None:
        """Raise UsageError for a setting of other tasks."""
        of = {name: checks_of(name).options for name in choices("task")}
        _check_settings("task", task, TaskConfig(name=task.name), of, task.name)

    def check_trainer(self, config: Config) -> None:
        """Raise UsageError for a setting of the training of other tasks."""
        of = {name: checks_of(name).training for name in choices("task")}
        _check_settings("trainer", config.trainer, TrainerConfig(), of, config.task.name)

    def check_data_options(self, data: DataConfig) -> None:
        """Raise UsageError for a setting of data of other tasks."""
        of = {name: checks_of(name).data_options for name in choices("task")}
        _check_settings("data", data, DataConfig(name=data.name, task=data.task), of, data.task)

    def is_custom(self, data: DataConfig) -> bool:
        """Whether it is a user's own set, which no reader of this task knows by name."""
        return data.name not in self.data_sets

    def check_classes(self, data: DataConfig) -> None:
        """What a user's own set must say. Raises UsageError."""
        if not self.is_custom(data):
            if data.classes:
                raise UsageError(
                    f"data.classes goes with images or texts of your own, not with data={data.name}"
                )
            return
        if not self.classified:
            if data.classes:
                raise UsageError(f"data.classes goes with labels, not with data={data.name}")
            if data.root is None:
                raise UsageError(f"data={data.name} is read from a folder; say where it is, data.root=FOLDER")
            return
        if len(data.classes) < 2 or len(set(data.classes)) < len(data.classes):
            raise UsageError(
                f"data={data.name} needs `classes`, the names of two or more classes in the order of their "
                "labels, e.g. classes: [cat, dog]"
            )
        if data.root is None and not data.repository:
            raise UsageError(
                f"data={data.name} has neither root nor repository; say where it is, data.root=FOLDER"
            )


def checks_of(task: str) -> Checks:
    """The checks of a task of conf/task."""
    checks: Checks = importlib.import_module(f"pitome.tasks.{task}.checks").CHECKS
    return checks


def _check_settings(
    part: str, given: object, usual: object, of: Mapping[str, Sequence[str]], task: str
) -> None:
    """Settings that some tasks read (`of`: task -> their names) are as usual where `task` does not."""
    for key in {key: None for keys in of.values() for key in keys if key not in of[task]}:
        if (value := getattr(given, key)) != getattr(usual, key):
            value = value if isinstance(value, str | int | float) else "..."
            fitting = " or ".join(name for name, keys in of.items() if key in keys)
            raise UsageError(f"{part}.{key}={value} is for task={fitting}, not for task={task}")
