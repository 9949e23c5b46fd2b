"""scripts/report.py: from a folder of records to report.md and plots."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from pitome.records import Store
from tests import ROOT
from tests.records.examples import example, outcomes


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report", ROOT / "scripts" / "report.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_and_plot_stand_beside_the_records(
    report: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    for record in (example("none", None, 0.9), example("tome", 0.9, 0.85), example("random", 0.9, 0.6)):
        store.save(record, {k: v.tolist() for k, v in outcomes(record.score or 0.0).items()})
    assert report.main([str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text()
    assert "| tome | 0.9 |" in text and "| 0.9 | tome | random | +25.00 [" in text
    assert "| 1 of 1 |" in text and "significantly better |" in text
    (plot,) = tmp_path.glob("*.png")
    shown = capsys.readouterr().out
    assert "Verdict" not in shown and shown.splitlines()[-2:] == [str(tmp_path / "report.md"), str(plot)]
    first = text, plot.read_bytes()
    assert report.main([str(tmp_path)]) == 0  # the same records, the same report
    assert ((tmp_path / "report.md").read_text(), plot.read_bytes()) == first


def test_a_folder_without_runs_is_one_line(
    report: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: no recorded runs in") and shown.count("\n") == 1


def test_a_misspelt_experiment_names_the_nearest(
    report: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["page", "tabel5"], tmp_path) == 2
    assert list(tmp_path.iterdir()) == []  # told before the page is made
    shown = capsys.readouterr().err
    assert "tabel5 is neither an experiment nor a folder" in shown and "table5" in shown
    assert shown.count("\n") == 1


def test_runs_in_another_folder(
    report: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `run.py results=FOLDER` wrote them: status, and reports beside them."""
    store = Store(tmp_path / "mine" / "runs")
    store.prepare()
    place = f"results={store.folder}"
    assert report.main(["status", "table8_offline", place], tmp_path) == 0
    assert "table8_offline" in capsys.readouterr().out
    assert report.main(["table8_offline", place], tmp_path) == 0
    assert (tmp_path / "mine" / "reports" / "table8_offline.md").is_file()
    capsys.readouterr()
    assert report.main(["table8_offline", "results=/no/such/folder"], tmp_path) == 2
    shown = capsys.readouterr().err
    assert "results=/no/such/folder: no such folder" in shown and shown.count("\n") == 1


def test_one_broken_file_leaves_the_other_experiments(
    report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pitome.paper import files

    shutil.copytree(files.FOLDER, tmp_path / "experiments")
    (tmp_path / "experiments" / "mine.yaml").write_text("item: [")
    monkeypatch.setattr(files, "FOLDER", tmp_path / "experiments")
    assert report.main(["status"], tmp_path) == 0
    shown = capsys.readouterr()
    assert "table5_offline" in shown.out and "left out: experiments/mine.yaml" in shown.err
    assert report.main(["status", "table5_offline"], tmp_path) == 0
    assert capsys.readouterr().err == ""
    assert report.main(["mine"], tmp_path) == 2
    assert "experiments/mine.yaml" in capsys.readouterr().err


def test_help_says_what_there_is(report: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["status", "--help"]) == 0
    assert "status [NAME ...]  how far sweeps and experiments are" in capsys.readouterr().out


def test_an_item_of_pictures_has_no_table(report: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["figure1_offline"]) == 2
    shown = capsys.readouterr().err
    assert "python run.py experiment=figure1_offline draws them" in shown and shown.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["statu"], "did you mean status?"),
        (["seal"], "seal takes one folder with records"),
        (["seal", "nofolder"], "seal takes one folder with records"),
    ],
)
def test_a_misspelt_or_incomplete_command_is_one_line(
    report: ModuleType, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(words) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
