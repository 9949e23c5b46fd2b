"""Each task's checks: its own settings, and nobody else's."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from pitome.config import TaskConfig, choices
from pitome.errors import UsageError
from pitome.tasks.checks import checks_of

CHANGED: dict[str, Any] = {
    "head": "knn",
    "k": 5,
    "temperature": 1.0,
    "bank": 5,
    "rerank": 5,
    "positions": "keep",
    "device_map": "auto",
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


def test_they_import_no_torch() -> None:
    code = "import sys\nfrom pitome.config import choices\nfrom pitome.tasks.checks import checks_of\n"
    code += "[checks_of(task) for task in choices('task')]\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
