"""Records that are damaged or were changed by hand: none is believed (docs/reliability.md). Claims:
`UNOWNED` in test_claims.py."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from pitome.records import Record, RecordError, Store
from pitome.records.identity import fingerprint, run_id
from tests.records.examples import SPEED, example
from tests.records.test_claims import UNOWNED

OUTCOMES = {"id": [3, 1, 2], "correct": [1.0, 0.0, 1.0]}
GOOD = example(accuracy=2 / 3, limit=3, throughput=SPEED, measure="full", peak_memory_bytes=123)
Damage = Callable[[Path, Record], None]


def edited(path: str, value: Any) -> Damage:
    """An editor's work: another value, the digest as it was."""
    return lambda folder, record: rewrite(folder, record, path, value, lambda values: values)


def forged(path: str, value: Any) -> Damage:
    """Another value, and a digest, run id and place that go with it."""

    def seal(values: dict[str, Any]) -> dict[str, Any]:
        values["run_id"] = run_id(values["identity"])
        return values | {"digest": fingerprint({k: v for k, v in values.items() if k != "digest"})}

    return lambda folder, record: rewrite(folder, record, path, value, seal)


def backdated(path: str, value: Any) -> Damage:
    """Another value, and the schema of before records had a digest."""

    def age(values: dict[str, Any]) -> dict[str, Any]:
        del values["digest"]
        return values | {"schema_version": 3}

    return lambda folder, record: rewrite(folder, record, path, value, age)


def rewrite(
    folder: Path, record: Record, path: str, value: Any, finish: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    file = folder / f"{record.run_id}.json"
    values = json.loads(file.read_text())
    *places, last = path.split(".")
    place = values
    for name in places:
        place = place[name]
    place[last] = value
    file.write_text(json.dumps(finish(values)))


def content(change: Callable[[bytes], bytes]) -> Damage:
    """Other bytes in the record's file."""

    def damage(folder: Path, record: Record) -> None:
        file = folder / f"{record.run_id}.json"
        file.write_bytes(change(file.read_bytes()))

    return damage


def outcomes(change: Callable[[bytes], bytes]) -> Damage:
    """Other bytes in the file of the outcomes."""

    def damage(folder: Path, record: Record) -> None:
        assert record.outcomes is not None
        file = folder / record.outcomes.file
        file.write_bytes(change(file.read_bytes()))

    return damage


def other_outcomes(columns: dict[str, Any], rows: int = 3) -> Damage:
    """Outcomes of another run, with a record whose checksums go with them."""

    def damage(folder: Path, record: Record) -> None:
        import hashlib

        file = folder / "other.parquet"
        pyarrow.parquet.write_table(pyarrow.table(columns), file)
        named = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "rows": rows}
        forged("outcomes", named | {"columns": list(columns)})(folder, record)

    return damage


def both(*damages: Damage) -> Damage:
    def damage(folder: Path, record: Record) -> None:
        for each in damages:
            each(folder, record)

    return damage


def replaced(make: Callable[[Path], object]) -> Damage:
    """Something else in the record's place."""

    def damage(folder: Path, record: Record) -> None:
        (folder / f"{record.run_id}.json").unlink()
        make(folder / f"{record.run_id}.json")

    return damage


DAMAGED: dict[str, Damage] = {
    "empty": content(lambda data: b""),
    "cut off": content(lambda data: data[: len(data) // 2]),
    "no JSON": content(lambda data: b"\x00" * 4096),
    "no text": content(lambda data: b"\xff\xfe" + data),
    "endless nesting": content(lambda data: b"[" * 100_000),
    "deep nesting in a value": content(
        lambda data: data.replace(b'"config": {', b'"config": {"x": %s,' % (b"[" * 900 + b"]" * 900))
    ),
    "a list": content(lambda data: b"[]"),
    "a bit flipped": content(lambda data: data.replace(b'"seconds": 12.5', b'"seconds": 12.4')),
    "another run's content": edited("run_id", "0123456789abcdef"),
    "score": edited("metrics.top1", 0.999),
    "score in percent": edited("metrics.top1", 66.67),
    "score of 5": forged("metrics.top1", 5.0),
    "negative score": forged("metrics.top1", -0.1),
    "score as text": edited("metrics.top1", "0.9"),
    "score true": edited("metrics.top1", True),
    "infinite score": content(lambda data: data.replace(b'"top1": 0.6666666666666666', b'"top1": 1e999')),
    "score with a new digest": forged("metrics.top1", 0.999),
    "score of an old schema": backdated("metrics.top1", 0.999),
    "score of an old schema without outcomes": both(
        edited("metrics.top1", 0.999), backdated("outcomes", None)
    ),
    "score of an old schema with lost outcomes": both(
        backdated("metrics.top1", 0.999), lambda folder, record: next(folder.glob("*.parquet")).unlink()
    ),
    "digest": edited("digest", "0" * 64),
    "no digest": edited("digest", None),
    "cost": edited("cost.macs", 1),
    "cost with a new digest": forged("cost.flops", 1),
    "share of the cost": forged("cost.share", 0.5),
    "negative cost": forged("cost.plan_macs", -1),
    "speed-up": forged("throughput.speedup", 9.0),
    "negative memory": forged("peak_memory_bytes", -5),
    "negative tokens": forged("tokens", [197, -3]),
    "more samples": forged("data.n_samples", 50_000),
    "negative samples": forged("data.n_skipped", -2),
    "another method": forged("method.name", "tome"),
    "another model": forged("model.name", "vit_large"),
    "another limit": forged("data.limit", 1000),
    "date": forged("started", "yesterday"),
    "date without zone": forged("started", "2026-01-01T00:00:00"),
    "date that does not exist": forged("started", "2026-02-30T00:00:00+00:00"),
    "date as a number": forged("started", 20260101),
    "finished with an error": forged("error", "out of memory"),
    "unknown key": forged("note", "believe me"),
    "schema of text": edited("schema_version", "4"),
    "outcomes cut off": outcomes(lambda data: data[:-1]),
    "outcomes changed": outcomes(lambda data: data[:-1] + b"x"),
    "outcomes empty": outcomes(lambda data: b""),
    "worse outcomes": other_outcomes({"id": [1, 2, 3], "correct": [0.0, 0.0, 0.0]}),
    "outcomes of more samples": other_outcomes({"id": list(range(6)), "correct": [1, 0, 1] * 2}, rows=6),
    "outcomes of other rows": other_outcomes({"id": list(range(6)), "correct": [1, 0, 1] * 2}),
    "outcomes without the column": other_outcomes({"id": [1, 2, 3], "right": [1, 0, 1]}),
    "outcomes with gaps": other_outcomes({"id": [1, 2, 3], "correct": [2 / 3, None, None]}),
    "outcomes of text": other_outcomes({"id": [1, 2, 3], "correct": ["1", "0", "1!"]}),
    "a folder": replaced(Path.mkdir),
    "a pipe": replaced(lambda path: os.mkfifo(path)),
    "a link to nothing": replaced(lambda path: path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_record_is_not_believed(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts as absent wherever records are read, one line says so, and the run that is made in its place
    keeps it under another name."""
    store = Store(tmp_path)
    good = store.save(GOOD, OUTCOMES)
    assert store.all() == [good] and store.finished(good.run_id) == good
    DAMAGED[name](tmp_path, good)
    path = tmp_path / f"{good.run_id}.json"
    before = path.read_bytes() if path.is_file() else None
    assert store.load(good.run_id) is store.finished(good.run_id) is store.outcomes(good.run_id) is None
    assert store.all() == []
    lines = [record.getMessage() for record in caplog.records]
    assert [good.run_id in line and "\n" not in line for line in lines] == ([True] if path.exists() else [])
    if before is None and path.exists():
        return  # a folder is no record's, and nothing is written over it
    assert store.save(GOOD, OUTCOMES) == store.load(good.run_id) == good
    kept = [file.read_bytes() for file in tmp_path.glob("*.damaged")]
    assert kept == ([before] if before is not None else [])


def test_a_good_record_is_believed_however_it_is_laid_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    good = store.save(GOOD, OUTCOMES)
    path = tmp_path / f"{good.run_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert store.all() == [good]


def test_records_of_before_there_were_digests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Their headline stands on their outcomes, one line says so, and `seal` adds the digest."""
    store = Store(tmp_path)
    backdated("seconds", 99.0)(tmp_path, good := store.save(GOOD, OUTCOMES))
    assert [record.seconds for record in store.all()] == [99.0]
    assert "1 records in" in caplog.text and "report.py seal" in caplog.text
    assert (store.seal(), store.seal()) == (1, 0)
    caplog.clear()
    assert [record.seconds for record in store.all()] == [99.0] and not caplog.records
    edited("seconds", 1.0)(tmp_path, good)
    assert store.all() == []


def test_a_record_of_a_newer_version_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    good = store.save(GOOD, OUTCOMES)
    path = tmp_path / f"{good.run_id}.json"
    path.write_text('{"schema_version": 99, "all": "different"}')
    assert store.all() == [] and store.finished(good.run_id) is None
    assert [record.getMessage().count("newer version") for record in caplog.records] == [1]
    for use in (lambda: store.save(GOOD, OUTCOMES), lambda: store.check_replaceable(good.run_id)):
        with pytest.raises(RecordError, match=r"newer version .* update pitome, or .* results=FOLDER"):
            use()
    assert "different" in path.read_text() and len(list(tmp_path.iterdir())) == 2


def test_thirty_and_more_are_tried() -> None:
    assert len(DAMAGED) + len(UNOWNED) >= 50
