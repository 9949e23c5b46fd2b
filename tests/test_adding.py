"""docs/adding.md is followed to the letter: its file, its commands, its tests."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pitome.experiments import loading
from pitome.experiments.outcome import WITHIN, outcome
from pitome.merge.plan import Plan, Tokens
from pitome.merge.registry import Guarantees
from pitome.records.store import Store
from tests.tasks.conftest import write_idx

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "adding.md").read_text()
FILE, IN_PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SWEEP, OPTION, SUITE = (match.strip() for match in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with my_method.py and a small data set."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "data").mkdir()
    (folder / "my_method.py").write_text(FILE)
    random = np.random.default_rng(0)
    for part in ("t10k", "train"):
        write_idx(folder / "data" / f"{part}-images-idx3-ubyte.gz", random.integers(0, 255, (12, 28, 28)))
        write_idx(folder / "data" / f"{part}-labels-idx1-ubyte.gz", random.integers(0, 10, 12))
    return folder


def test_the_example_is_short() -> None:
    assert len(FILE.splitlines()) < 30
    assert max(map(len, FILE.splitlines())) <= 110


def test_its_commands_end_in_a_table(place: Path) -> None:
    """Both commands of the page, in a process that only knows the directory it runs in."""
    small = ["model.args.depth=4", "model.args.embed_dim=16", "weights=random", "logger=none"]
    small += [f"data.root={place}/data", "measure=flops"]
    lines = [command.removeprefix("python run.py").split() for command in (SWEEP, OPTION)]
    code = "import sys\nfrom pitome.cli.main import main\n"
    code += "".join(f"code = main({words + small})\nif code: sys.exit(code)\n" for words in lines)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    records = Store(place / "results" / "runs").all()
    assert all(record.done for record in records)
    found = sorted((record.method.name, str(record.method.asked)) for record in records)
    shares = ["{'flops': 0.6}", "{'flops': 0.8}"]
    assert [asked for name, asked in found if name == "mine"] == [*shares, "{'ratio': 0.9}"]
    assert [asked for name, asked in found if name == "pitome"] == shares
    for record in records:
        assert record.cost is not None
        if "flops" in record.method.asked:  # at equal cost, and the ratio that gives it is on record
            assert record.method.ratio is not None and 0.5 < record.method.ratio < 1
            assert record.cost.share <= record.method.asked["flops"] + 1e-3
        # Counted and closed form agree, so the example states the cost of its plan rightly.
        assert record.cost.macs == pytest.approx(record.cost.macs_closed_form, rel=1e-3)
    (power,) = (record for record in records if record.method.asked == {"ratio": 0.9})
    assert power.method.options["power"] == 0
    assert re.search(r"\bmine\b", done.stdout) and re.search(r"\bpitome\b", done.stdout)


def test_the_shared_tests_run_on_it(place: Path) -> None:
    """The command of the page, for the quick half of the tests."""
    variable, *words = SUITE.split()
    quick = "mine and (conserves or prunes or keeps or identity or needs or declare or autocast or removes)"
    done = subprocess.run(
        [sys.executable, *words[1:-1], quick, "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(place), **dict([variable.split("=")])),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert words[:3] == ["python", "-m", "pytest"] and words[-2:] == ["-k", "mine"]
    assert done.returncode == 0, done.stdout
    assert 8 <= done.stdout.splitlines()[0].count(".") <= 40, done.stdout


def test_the_lines_in_python(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pitome.merge import registry
    from tests.adapters.tiny import images, vit

    registry.names()
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.syspath_prepend(place)
    sys.modules.pop("my_method", None)  # of another test
    model = vit()
    seen: list[list[int]] = []
    body = IN_PYTHON.replace("...", "model(x), seen.append(patched.tokens)")
    try:
        exec(body, {"model": model, "x": images(model), "seen": seen})
    finally:
        sys.modules.pop("my_method", None)
    assert seen == [[16, 15, 14, 13, 12]]


def test_the_page_lists_all_that_is_promised_given_and_returned() -> None:
    for cls in (Guarantees, Plan, Tokens):
        names = {field.name for field in dataclasses.fields(cls)} - {"padding", "rows"}  # not for own methods
        assert [name for name in names if f"`{name}`" not in TEXT] == []


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **more}


def test_the_experiment_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert len(text.splitlines()) < 30
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "_names.yaml").write_text((loading.FOLDER / "_names.yaml").read_text())
    monkeypatch.setattr(loading, "FOLDER", tmp_path)
    assert len(loading.choose("mine").points) == 8
    rows = outcome("mine", Store(ROOT / "results" / "published").all()).rows
    assert [(row.method, row.ratio, row.verdict) for row in rows] == [
        ("ToMe", "0.9", WITHIN),
        ("ToMe", "0.8", WITHIN),
        ("PiToMe", "0.9", WITHIN),
        ("PiToMe", "0.8", WITHIN),
    ]
