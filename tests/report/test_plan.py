"""Plans: what an experiment will take, from FLOPs and speeds."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pitome.errors import UsageError
from pitome.paper.experiments import choose
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.report import plan
from pitome.report.items import published_records
from pitome.report.plan import CPU, PEAKS, REACHED, Device, Speeds, errors, estimate, from_words
from tests import ROOT
from tests.records.examples import example

NOWHERE = Store("no-such-folder")


def timed(macs: float, seconds: float, samples: int = 100, device: str = "cpu", **changes: Any) -> Record:
    """A run of so many multiply-accumulates per sample."""
    record = example("tome", 0.9, **changes)
    assert record.cost is not None and record.environment is not None
    return dataclasses.replace(
        record,
        seconds=seconds,
        measure="flops",
        cost=dataclasses.replace(record.cost, macs=int(macs)),
        data=dataclasses.replace(record.data, n_samples=samples),
        environment=dataclasses.replace(record.environment, device=device),
    )


@pytest.mark.parametrize(
    ("text", "kind", "count"), [("cpu", "cpu", 1), ("h100:4", "h100", 4), ("t4", "t4", 1)]
)
def test_device(text: str, kind: str, count: int) -> None:
    assert Device.parse(text) == Device(kind, count)


@pytest.mark.parametrize(
    "text", ["", "cuda", "h100:", "h100:0", "h100:-1", "h100:x", "h100:1:2", "h1000", ":4"]
)
def test_what_is_no_device_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="device="):
        Device.parse(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["device=cpu"], "plan needs an experiment"),
        (["table99"], "unknown experiment"),
        (["figure1"], "figure1 is not a sweep"),
        (["table6"], "use experiment=table6_trained"),
        (["table5", "devices=cpu"], "did you mean device?"),
        (["table5", "precision=8"], "give 32, 16-mixed or bf16-mixed"),
        (["table5", "precision=16-mixed"], "device=cpu is planned with precision=32 alone"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_words(words, NOWHERE, published_records())


def test_a_run_takes_its_flops_over_the_measured_speed() -> None:
    """The median of the runs of its task; runs on other devices, or with timings, say nothing."""
    records = [timed(2e6, seconds) for seconds in (1.0, 2.0, 100.0)]
    records += [timed(2e6, 1e-6, device="NVIDIA H100 80GB HBM3")]
    assert Speeds.of(records, CPU).macs == {"classification": 1e8}
    assert Speeds.of(records, "h100").macs == {"classification": 2e14}
    assert Speeds.of([dataclasses.replace(r, measure="full") for r in records], CPU).overall is None


def test_without_a_measured_speed_it_is_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """And never faster than images are decoded; training costs three passes per epoch."""
    experiment, none = choose("table5"), Speeds({}, None)
    point = next(p for p in experiment.points if p["model"] == "deit_s")
    slow = dict(next(p for p in experiment.points if p["model"] == "mae_h"))
    monkeypatch.setattr(plan.costs, "find", lambda *_: SimpleNamespace(value=100.0))
    found = estimate(slow, experiment, Device("a100"), [], none, half=False)
    assert found.seconds == pytest.approx(plan.START + 50_000 * 200e9 / (PEAKS["a100"][0] * 1e12 * REACHED))
    assert found.assumed
    monkeypatch.setattr(plan.costs, "find", lambda *_: SimpleNamespace(value=0.001))
    found = estimate(point, experiment, Device("a100"), [], none, half=True)
    assert found.seconds == pytest.approx(plan.START + 50_000 / plan.DECODED)
    monkeypatch.setattr(plan.costs, "find", lambda *_: SimpleNamespace(value=100.0))
    trained = choose("table5_trained")
    found = estimate(trained.points[0], trained, Device("h100"), [], none, half=True)
    work = 3 * 30 * 1_281_167 * 200e9
    assert found.seconds == pytest.approx(plan.START + work / (PEAKS["h100"][1] * 1e12 * REACHED))


def test_what_is_not_known_is_the_experiments_own_figure() -> None:
    experiment = choose("table3")
    found = estimate(experiment.points[0], experiment, Device("h100"), [], Speeds({}, None), half=False)
    assert found.seconds == pytest.approx(150 * 3600 / len(experiment.points)) and found.assumed
    table = from_words(["table3", "device=cpu"], NOWHERE, published_records())
    assert table.rows[0][3:] == ["unknown", "unknown"]


def test_the_error_compares_each_run_with_a_plan_that_does_not_know_it() -> None:
    records = [timed(1e6, 1.0), timed(1e6, 1.0), timed(1e6, 4.0)]
    assert errors(records) == pytest.approx([1.6, 1.6, 4.0])
    assert "within a factor of 1.60" in plan.error_note(errors(records))


def test_table5_is_planned_without_torch_and_within_ten_seconds() -> None:
    """With what must be downloaded, what is assumed, and the measured error of the plan."""
    check = "import sys, scripts.report as r; r.main(sys.argv[1:]); assert 'torch' not in sys.modules"
    words = ["plan", "table5", "table5_offline", "device=h100:4"]
    done = subprocess.run(
        [sys.executable, "-c", check, *words], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    for text in ("GPU", "mae_finetuned_vit_huge.pth, by hand", "(assumed)", "half are within a factor of"):
        assert text in done.stdout


def test_what_is_done_is_not_planned(tmp_path: Path) -> None:
    points = choose("table5_offline").points
    records = published_records()
    ((_, runs, none, _, _),) = from_words(["table5_offline"], NOWHERE, records).rows
    ((_, _, every, hours, wall),) = from_words(
        ["table5_offline"], Store(ROOT / "results/published"), records
    ).rows
    assert (runs, none) == (str(len(points)), "0")
    assert (every, hours, wall) == (runs, "0.00", "-")
