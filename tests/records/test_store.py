import dataclasses
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pitome.records import RecordError, Store
from pitome.records import files as files_module
from pitome.records.files import STALE_SECONDS, write_atomically
from tests.records import examples
from tests.records.examples import failed

OUTCOMES = {"id": [3, 1, 2], "correct": [1.0, 0.0, 1.0], "label": [5, 6, 7]}
WRONG = {"id": [3, 1, 2], "correct": [0.0, 0.0, 0.0]}


def example(method="pitome", accuracy=2 / 3, limit=3, **changes):
    """The run of OUTCOMES."""
    return examples.example(method, accuracy=accuracy, limit=limit, **changes)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def make_old(path):
    old = time.time() - STALE_SECONDS - 60
    os.utime(path, (old, old))


def test_save_then_load(tmp_path):
    store = Store(tmp_path / "deep" / "runs")
    saved = store.save(example(), OUTCOMES)
    assert store.load(saved.run_id) == saved
    assert store.finished(saved.run_id) == saved
    assert saved.outcomes.rows == 3 and saved.outcomes.columns == ["id", "correct", "label"]
    back = store.outcomes(saved.run_id)
    assert {name: list(column) for name, column in back.items()} == OUTCOMES
    assert len(names(store.folder)) == 2  # the record and its outcomes; no temporary file


def test_text_ids_come_back(tmp_path):
    store = Store(tmp_path)
    saved = store.save(example(), {"id": ["b.png", "a.png", "c.png"], "correct": np.array([1, 0, 1])})
    assert list(store.outcomes(saved.run_id)["id"]) == ["b.png", "a.png", "c.png"]


def test_what_is_not_there(tmp_path):
    store = Store(tmp_path / "nowhere")
    run_id = example().run_id
    assert store.load(run_id) is store.finished(run_id) is store.outcomes(run_id) is None
    assert store.all() == []
    assert not store.folder.exists()  # reading creates nothing


def test_a_failed_run_is_loaded_but_not_finished(tmp_path):
    store = Store(tmp_path)
    record = store.save(failed())
    assert store.load(record.run_id) == record
    assert store.finished(record.run_id) is None
    assert store.outcomes(record.run_id) is None


def test_all_is_sorted_by_time_and_ignores_other_files(tmp_path):
    store = Store(tmp_path)
    new = store.save(example("tome", started="2026-03-01T00:00:00+00:00"))
    old = store.save(example("tofu", started="2026-01-01T00:00:00+00:00"), OUTCOMES)
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / f".{old.run_id}.json.12-ab.tmp").write_text("{")
    assert store.all() == [old, new]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"seed": 0', '"seed": "zero"', 1),
        lambda text: text.replace('"schema_version": ', '"schema_version": -'),
    ],
)
def test_an_unreadable_record_is_reported_and_absent(tmp_path, caplog, damage):
    store = Store(tmp_path)
    good, bad = store.save(example("tome")), store.save(example("tofu"))
    path = tmp_path / f"{bad.run_id}.json"
    path.write_text(damage(path.read_text()))
    with caplog.at_level(logging.WARNING):
        assert store.load(bad.run_id) is None
    assert path.name in caplog.text
    assert store.all() == [good]
    assert store.save(bad) == store.load(bad.run_id)  # and can be replaced


def test_a_copied_record_is_not_taken_for_another_run(tmp_path, caplog):
    store = Store(tmp_path)
    record = store.save(example())
    other = "0123456789abcdef"
    (tmp_path / f"{other}.json").write_bytes((tmp_path / f"{record.run_id}.json").read_bytes())
    assert store.load(other) is None
    assert f"holds run {record.run_id}" in caplog.text


@pytest.mark.parametrize("run_id", ["../secret", "", "XYZ", "0" * 17])
def test_a_run_id_cannot_leave_the_folder(tmp_path, run_id):
    with pytest.raises(RecordError, match="not a run id"):
        Store(tmp_path).load(run_id)


def test_a_run_without_its_outcomes_is_unfinished(tmp_path, caplog):
    store = Store(tmp_path)
    record = store.save(example(), OUTCOMES)
    (tmp_path / record.outcomes.file).unlink()
    assert store.outcomes(record.run_id) is store.finished(record.run_id) is None
    assert store.load(record.run_id) == record  # its numbers still stand


def test_a_rerun_replaces_the_record_and_its_outcomes(tmp_path):
    store = Store(tmp_path)
    store.save(example(), OUTCOMES)
    saved = store.save(example(accuracy=0.0), WRONG)
    assert store.load(saved.run_id).score == 0.0
    assert list(store.outcomes(saved.run_id)["correct"]) == [0, 0, 0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"correct": [1]}, "lack the column id"),
        ({"id": [1]}, "lack the column correct"),
        ({"id": [1, 2], "correct": [1]}, "different lengths"),
        ({"id": [1, 1], "correct": [1, 0]}, "an id twice"),
        ({"id": [1, 2], "correct": [1, object()]}, "cannot be stored"),
        ({"id": [1, 2, 3], "correct": ["a", "b", "c"]}, "cannot be stored"),
        ({"id": [1, 2, 3], "correct": [None, None, None]}, "its top1 is 0.666667, but its outcomes give nan"),
        (WRONG, "its top1 is 0.666667, but its outcomes give 0"),
        (
            {"id": [1, 2, 3, 4, 5, 6], "correct": [1, 0, 1] * 2},
            "it names 3 samples, but its outcomes are of 6",
        ),
    ],
)
def test_outcomes_that_do_not_fit_are_refused(tmp_path, columns, message):
    with pytest.raises(RecordError, match=message):
        Store(tmp_path).save(example(), columns)
    assert names(tmp_path) == []


def test_an_invalid_record_leaves_no_outcomes_behind(tmp_path):
    with pytest.raises(RecordError):
        Store(tmp_path).save(example(metrics={"top1": float("inf")}), OUTCOMES)
    assert names(tmp_path) == []


class FullDisk:
    """A file on a disk that fills up in the middle of a write."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *details):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("which", [".parquet", ".json"])
def test_full_disk(tmp_path, monkeypatch, which):
    """In the middle of the outcomes or of the record: the old run stands, nothing is half-written."""
    store = Store(tmp_path)
    old = store.save(example(), OUTCOMES)

    def open_on_a_full_disk(path, mode):
        file = open(path, mode)  # noqa: SIM115
        return FullDisk(file) if which in path.name else file

    monkeypatch.setattr(files_module, "open", open_on_a_full_disk, raising=False)
    with pytest.raises(RecordError, match=r"disk is full.*free some space") as caught:
        store.save(example(accuracy=0.0), WRONG)
    assert "\n" not in str(caught.value)
    assert store.finished(old.run_id) == old
    assert list(store.outcomes(old.run_id)["id"]) == [3, 1, 2]
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(files_module, "open", refuse, raising=False)
    for action in (Store(tmp_path).prepare, lambda: Store(tmp_path).save(example(), OUTCOMES)):
        with pytest.raises(RecordError, match=r"Permission denied.*choose another") as caught:
            action()
        assert "\n" not in str(caught.value)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "runs").write_text("a file")
    for folder in (tmp_path / "runs", tmp_path / "runs" / "deeper"):
        with pytest.raises(RecordError, match="choose another"):
            Store(folder).prepare()
        assert Store(folder).all() == []


def test_prepare_removes_old_leftovers_only(tmp_path):
    store = Store(tmp_path)
    kept = store.save(example(), OUTCOMES)
    orphan_id = example("tome").run_id
    broken_id = example("tofu").run_id
    (tmp_path / f"{broken_id}.json").write_text("{")
    leftovers = {
        ".a.json.1-x.tmp": True,  # killed while writing, long ago
        ".b.json.1-x.tmp": False,  # perhaps still being written
        f"{orphan_id}.00000000.parquet": True,  # killed before the record was written
        f"{example('random').run_id}.00000000.parquet": False,
        f"{kept.run_id}.00000000.parquet": True,  # of an earlier run with this id
        f"{broken_id}.00000000.parquet": True,  # its record is unreadable: it may be needed
        "data.parquet": True,  # not ours
    }
    for name, old in leftovers.items():
        (tmp_path / name).write_bytes(b"x")
        if old:
            make_old(tmp_path / name)
    make_old(tmp_path / kept.outcomes.file)
    store.prepare()
    assert names(tmp_path) == sorted(
        [
            ".b.json.1-x.tmp",
            f"{example('random').run_id}.00000000.parquet",
            f"{broken_id}.00000000.parquet",
            f"{broken_id}.json",
            "data.parquet",
            f"{kept.run_id}.json",
            kept.outcomes.file,
        ]
    )


def test_the_file_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    """Otherwise a power cut may leave an empty file under the final name."""
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b))[1])
    write_atomically(tmp_path / "a", b"x")
    assert calls == ["fsync", "replace", "fsync"]  # content, name, folder


def test_outcomes_are_written_before_the_record(tmp_path, monkeypatch):
    written = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (written.append(b.suffix), replace(a, b))[1])
    Store(tmp_path).save(example(), OUTCOMES)
    assert written == [".parquet", ".json"]


# A process that saves the same run over and over, its score and its outcomes telling the round.
WRITER = """
import sys
from pitome.records import Store
from tests.records.examples import example
store, start = Store(sys.argv[1]), int(sys.argv[2])
for step in range(start, start + int(sys.argv[3])):
    outcomes = {"id": list(range(2000)), "correct": [step / 1e6] * 2000}
    store.save(example(accuracy=step / 1e6, limit=2000), outcomes)
    if step == start:
        print("saved once", flush=True)
"""


def start_writer(folder, start, steps):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(start), str(steps)], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    return process


def assert_whole(store, run_id):
    """The record can be read, and its outcomes are those of the same round."""
    record = store.finished(run_id)
    if record is None:
        assert not (store.folder / f"{run_id}.json").exists()
        return None
    assert set(store.outcomes(record)["correct"]) == {record.score}
    return record


def test_kill_in_the_middle_of_a_save(tmp_path, caplog):
    """Killed at random moments, the reader sees the old run or the new one, never half of one."""
    store, run_id = Store(tmp_path), example(limit=2000).run_id
    generator = np.random.default_rng(0)
    seen = set()
    for attempt in range(3):
        process = start_writer(tmp_path, attempt * 100_000, 100_000)
        end = time.monotonic() + generator.uniform(0.05, 0.3)
        while time.monotonic() < end:
            assert_whole(store, run_id)  # while it is being written
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        record = assert_whole(store, run_id)
        assert record is not None
        seen.add(record.score)
    assert len(seen) == 3  # each process has written
    assert not caplog.records  # nothing damaged was met
    for path in tmp_path.iterdir():
        make_old(path)
    store.prepare()
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize("which", [".parquet", ".json"])
def test_killed_before_the_new_name(tmp_path, which):
    """The two worst moments: everything is written, nothing has its name yet."""
    store = Store(tmp_path)
    old = store.save(example(), OUTCOMES)
    code = f"""
import os, signal, sys
from pitome.records import Store
from tests.records.examples import example
replace = os.replace
def kill(source, target):
    if target.suffix == {which!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = kill
Store(sys.argv[1]).save(example(accuracy=1.0, limit=3), {{"id": [1, 2, 3], "correct": [1, 1, 1]}})
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert done.returncode == -signal.SIGKILL
    assert any(name.endswith(".tmp") for name in names(tmp_path))
    assert store.finished(old.run_id) == old
    assert store.all() == [old]
    assert list(store.outcomes(old.run_id)["id"]) == [3, 1, 2]


def test_two_processes_save_the_same_run(tmp_path, caplog):
    store, run_id = Store(tmp_path), example(limit=2000).run_id
    processes = [start_writer(tmp_path, 1, 20), start_writer(tmp_path, 500_001, 20)]
    while any(process.poll() is None for process in processes):
        assert_whole(store, run_id)
        time.sleep(0.002)  # leave the cores to the writers
    for process in processes:
        assert process.wait() == 0
        process.stdout.close()
    assert assert_whole(store, run_id).score in (20 / 1e6, 500_020 / 1e6)
    assert not caplog.records


def test_the_file_is_readable_json_with_the_promised_content(tmp_path):
    record = Store(tmp_path).save(example(), OUTCOMES)
    values = json.loads((tmp_path / f"{record.run_id}.json").read_text())
    assert values["status"] == "done" and values["metrics"]["top1"] == 2 / 3
    assert values["cost"]["flops"] == 2 * values["cost"]["macs"]
    assert values["outcomes"]["rows"] == 3
    assert dataclasses.asdict(record) | {"digest": values["digest"]} == values


def test_only_a_good_record_replaces_a_good_one(tmp_path):
    """`rerun=true` that fails leaves what is there; whatever has not ended is replaced by anything."""
    store = Store(tmp_path)
    good = store.save(example(), OUTCOMES)
    worse = dataclasses.replace(good, status="failed", error="out of memory", metrics={}, outcomes=None)
    for status in ("failed", "interrupted"):
        assert store.save(dataclasses.replace(worse, status=status)).status == status
        assert store.finished(good.run_id) == good
    other = Store(tmp_path / "other")
    other.save(worse)
    assert other.load(good.run_id) == worse
    assert other.save(good, OUTCOMES).done and other.finished(good.run_id) is not None


def test_a_good_record_whose_outcomes_are_lost_is_replaced(tmp_path):
    store = Store(tmp_path)
    good = store.save(example(), OUTCOMES)
    (tmp_path / good.outcomes.file).unlink()
    worse = dataclasses.replace(good, status="failed", error="out of memory", metrics={}, outcomes=None)
    store.save(worse)
    assert store.load(good.run_id) == worse


def test_a_record_of_a_newer_version_is_left_alone(tmp_path):
    store = Store(tmp_path)
    good = store.save(example())
    path = tmp_path / f"{good.run_id}.json"
    path.write_text('{"schema_version": 99, "all": "different"}')
    for use in (lambda: store.save(good), lambda: store.check_replaceable(good.run_id)):
        with pytest.raises(RecordError, match=r"newer version .* update pitome, or .* results=FOLDER"):
            use()
    assert "different" in path.read_text()
