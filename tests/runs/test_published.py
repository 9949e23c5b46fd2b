"""A sample of the published records, repeated: the code of today gives what they say."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pitome.cli.main import main
from pitome.records import Store
from pitome.records.schema import SEALED
from pitome.report.items import PUBLISHED, published_records
from pitome.report.page.command import command_of
from pitome.sources.folders import cache_folder

DATA = ("fashion_mnist", "rotten_tomatoes", "easy_vqa")  # whose first samples do not depend on the others
STORE = Store(PUBLISHED)


def test_every_published_record_has_a_digest() -> None:
    """Else each report says so in a line; `report.py seal FOLDER` adds them."""
    records = published_records()
    assert records and min(record.schema_version for record in records) >= SEALED


def repeat(run_id: str, limit: int, folder: Path) -> None:
    """Run a part of a published run, and compare it with the record sample by sample."""
    record = STORE.load(run_id)
    assert record is not None
    if not (cache_folder() / record.data.name).is_dir():
        pytest.skip(f"{record.data.name} is not in {cache_folder()}")
    words: Sequence[str] = shlex.split(command_of(record))[2:]
    words = [word for word in words if not word.startswith("limit=")]
    assert main([*words, f"limit={limit}", "logger=none", f"results={folder}/runs"]) == 0
    runs = Store(folder / "runs").all()  # of a control, also of the method that it stands beside
    (again,) = (run for run in runs if run.method.name == record.method.name)
    published, repeated = STORE.outcomes(record), Store(folder / "runs").outcomes(again)
    assert published is not None and repeated is not None and len(repeated["id"]) == limit
    places = {name: i for i, name in enumerate(published["id"].tolist())}
    rows = [places[name] for name in repeated["id"].tolist()]
    for column in set(published) & set(repeated):
        assert np.array_equal(published[column][rows], repeated[column]), column
    assert again.method.schedule == record.method.schedule and again.weights == record.weights
    assert again.environment is not None and again.code


@pytest.mark.parametrize("run_id", ["032f2bc164c44a46", "d297da40124e84ab", "79d59671f9561372"])
def test_published_records_are_repeated(run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ToMe on texts, PiToMe on images and on questions about images."""
    monkeypatch.chdir(tmp_path)
    repeat(run_id, 24, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("number", range(18))
def test_more_published_records_are_repeated(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ids = [r.run_id for r in STORE.all() if r.data.name in DATA and r.measure == "flops"]
    repeat(sorted(ids)[number * len(ids) // 18], 24, tmp_path)
