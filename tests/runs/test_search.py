"""mode=search on the command line: what it writes, that a schedule is compared with the uniform one, and that
no test sample is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pitome.config import Config
from pitome.records.store import Store
from pitome.tasks.base import task_class
from pitome.tasks.classification.fashion_mnist import FashionMNIST
from pitome.tasks.retrieval.data import RetrievalData
from pitome.tasks.text.data import TextData
from pitome.tasks.vqa import probe as vqa_probe
from tests.test_conf import config_of

SEARCH = ("mode=search", "limit=6", "search.trials=3", "flops=0.7")


def schedule_in(folder: Path) -> Path:
    (path,) = folder.glob("results/search/*/*.yaml")
    return path


def test_a_search_and_the_comparison(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*SEARCH, "merge=pitome", "search.options=[prop_attn]", "search.trials=2") == 0
    path = schedule_in(tmp_path)
    assert path.name == "pitome_flops0.7.yaml"
    content = yaml.safe_load(path.read_text())
    assert content["made_for"]["flops"] == 0.7 and set(content["made_for"]["options"]) == {"prop_attn"}
    said = path.with_suffix(".md").read_text()
    for fact in (
        "| samples | 6 |",
        "kept for validation",
        "| trials | 2 |",
        "| seed | 0 |",
        "optuna",
        "uniform",
    ):
        assert fact in said, fact
    assert f"schedule=uniform,{path.relative_to(tmp_path)} flops=0.7" in said
    content |= {"merge_kept": [170, 140, 120, 70]}  # a better one, if it had been found
    content["made_for"]["options"]["prop_attn"] = False
    path.write_text(yaml.safe_dump(content))
    capsys.readouterr()
    assert run("-m", "merge=pitome", f"schedule=uniform,{path}", "flops=0.7", "limit=4") == 0
    records = {str(record.method.asked): record for record in Store(tmp_path / "results" / "runs").all()}
    assert set(records) == {"{'flops': 0.7}", f"{{'schedule': '{path.name}'}}"}
    found = records[f"{{'schedule': '{path.name}'}}"]
    removed = [a - b for a, b in zip([197, *content["merge_kept"]], content["merge_kept"], strict=False)]
    assert found.method.schedule == removed
    assert found.method.options["prop_attn"] is False
    assert path.name in capsys.readouterr().out
    for words, says in (
        (("merge=pitome", "flops=0.6"), "was made for flops=0.7, not for flops=0.6"),
        (("merge=tome", "model.args.patch_size=4"), "begins with 197 tokens, this model with 50"),
    ):
        assert run(*words, f"schedule={path}", "limit=4") == 2
        assert says in capsys.readouterr().err


def test_a_sweep_ends_with_a_table_and_continues(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-m", *SEARCH, "merge=tome,diffrate", "search.sampler=cmaes") == 0
    out = capsys.readouterr().out
    assert "| tome | 0.7 |" in out and "| diffrate | 0.7 |" in out
    assert run(*SEARCH, "merge=tome", "search.sampler=cmaes") == 0
    assert "| tome | 0.7 |" in capsys.readouterr().out
    assert len(list(tmp_path.glob("results/search/*"))) == 2


def test_learned_rates_are_a_schedule(run: Callable[..., int], tmp_path: Path) -> None:
    words = ("mode=search", "merge=diffrate", "flops=0.7", "limit=6", "search.trials=2", "batch_size=4")
    assert run(*words) == 0
    path = schedule_in(tmp_path)
    assert {"prune_kept", "merge_kept"} < yaml.safe_load(path.read_text()).keys()
    assert "2 steps of 4 training images" in path.with_suffix(".md").read_text()
    assert run("merge=diffrate", f"schedule={path}", "flops=0.7", "limit=4") == 0
    (record,) = Store(tmp_path / "results" / "runs").all()
    assert 0.6 < record.cost.share <= 0.7  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("merge=tome", "flops=0.05"), "give at least that, or merge in more layers"),
        (("merge=pitome", "flops=0.7", "search.options=[split_seed]"), "has no limits"),
        (("merge=mctf_repo", "flops=0.7"), "is not defined for family=deit"),
    ],
)
def test_what_cannot_be_searched(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    assert run("mode=search", "limit=6", *words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert says in line


def test_a_folder_holds_one_search(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("mode=search", "merge=tome", "flops=0.7", f"search.folder={tmp_path}/mine", "search.trials=1")
    assert run(*words, "limit=6") == 0
    assert run(*words, "limit=5") == 2
    assert "mine holds a search of something else (samples was 6, is 5)" in capsys.readouterr().err
    assert run(*words, "limit=5", "overwrite=all") == 0


@pytest.mark.parametrize("task", ["classification", "text", "retrieval", "vqa"])
def test_no_test_sample_is_read(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reads a split is asked for another one than `test`; and is asked."""
    asked: list[str] = []

    def watch(owner: Any, name: str, split: Callable[..., str]) -> None:
        read = getattr(owner, name)

        def watching(*args: Any, **kwargs: Any) -> Any:
            asked.append(split(*args, **kwargs))
            return read(*args, **kwargs)

        monkeypatch.setattr(owner, name, watching)

    watch(FashionMNIST, "_read", lambda self, split: split)
    watch(TextData, "_encode", lambda self, split: split)
    watch(RetrievalData, "_split", lambda self, split, limit: split)
    watch(vqa_probe, "build_vqa", lambda *_, split, **__: split)
    probe = task_class(task).probe(small(task), torch.device("cpu"))
    assert probe.facts["samples"] == 4 and asked and "test" not in asked
    assert all(output.isfinite().all() for output in probe.reference)
    assert probe.reference[0].shape[0] == 4


def small(task: str) -> Config:
    return config_of(f"task={task}", "mode=search", "merge=tome", "flops=0.9", "limit=4", "weights=random")
