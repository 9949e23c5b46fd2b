import dataclasses
import json
import subprocess
import sys

import pytest

from pitome.records import Record, RecordError, Skipped
from pitome.records.schema import SCHEMA_VERSION, from_json, to_json
from tests.records.examples import SPEED, example, failed


def changed(path, value, record=None):
    """JSON of an example in which the field at `path` has another value."""
    values = json.loads(to_json(record or example()))
    *folders, last = path.split(".")
    place = values
    for name in folders:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    "record",
    [
        example(),
        example("none", None),
        example(random=True),
        example(throughput=SPEED, peak_memory_bytes=123),
        failed(),
        example(tokens=[197, 180.5], environment=None, cost=None),
        example(asked={"flops": 0.8, "layers": [0, 1]}, options={"ähm": None, "list": [1, {"a": True}]}),
    ],
)
def test_round_trip(record):
    assert from_json(to_json(record), "x") == record


def test_nested_lists_come_back_as_dataclasses():
    data = dataclasses.replace(
        example().data, n_skipped=2, skipped=[Skipped(id="7", reason="truncated file")]
    )
    back = from_json(to_json(example(data=data)), "x")
    assert back.data.skipped == [Skipped(id="7", reason="truncated file")]


def test_a_newer_version_is_refused_in_one_line():
    with pytest.raises(RecordError) as caught:
        from_json(changed("schema_version", SCHEMA_VERSION + 1), "a.json")
    assert "a.json was written by a newer version" in str(caught.value)
    assert "update pitome" in str(caught.value) and "\n" not in str(caught.value)


def test_a_newer_version_is_recognised_whatever_else_it_holds():
    with pytest.raises(RecordError, match="newer version"):
        from_json('{"schema_version": 99, "all": "different"}', "a.json")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version", ..., "no schema_version"),
        ("schema_version", "1", "no schema_version"),
        ("schema_version", True, "no schema_version"),
        ("task", ..., "task is missing"),
        ("task", 3, "task=3 is not text"),
        ("seconds", "long", "seconds=long is not a number"),
        ("seconds", True, "seconds=True is not a number"),
        ("seed", 0.5, "seed=0.5 is not a whole number"),
        ("cost.macs", None, "cost.macs=None is not a whole number"),
        ("cost.macs", ..., "cost.macs is missing"),
        ("cost", [], r"cost=\[\] is not a mapping"),
        ("metrics.top1", "high", "metrics.top1=high is not a number"),
        ("metrics", [0.5], r"metrics=\[0.5\] is not a mapping"),
        ("tokens", {"0": 1}, "is not a list of numbers"),
        ("tokens", [197, "x"], r"tokens\[1\]=x is not a number"),
        ("weights.random", 1, "weights.random=1 is not true or false"),
        ("data.skipped", [{"id": "1"}], r"data.skipped\[0\].reason is missing"),
        ("colour", "red", "unknown key colour; available: batch_size, code, config"),
        ("data.colour", "red", "unknown key data.colour"),
        ("status", "running", "status is 'running'"),
        ("measure", "all", "measure is 'all', expected one of none, flops, full"),
        ("error", "oops", "status is done but error is 'oops'"),
        ("identity.seed", 9, "not that of its identity"),
        ("run_id", "0" * 16, "not that of its identity"),
        ("weights.random", True, "top1 of random weights must be null"),
    ],
)
def test_a_damaged_record_is_named_in_one_line(path, value, message):
    with pytest.raises(RecordError, match=message) as caught:
        from_json(changed(path, value), "a.json")
    assert str(caught.value).startswith("a.json is damaged: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"schema_version": 1, "seconds": NaN}'])
def test_what_is_no_record_is_damaged(text):
    with pytest.raises(RecordError, match=r"a.json is damaged"):
        from_json(text, "a.json")


def test_bytes_that_are_no_text_and_endless_nesting_are_damaged():
    for content in (b"\xff\xfe\x00", b"[" * 100_000):
        with pytest.raises(RecordError, match=r"a.json is damaged"):
            from_json(content, "a.json")


def test_every_prefix_of_a_record_is_damaged():
    text = to_json(example()).rstrip()
    for end in range(0, len(text), 37):
        with pytest.raises(RecordError, match="damaged"):
            from_json(text[:end], "a.json")


def test_an_older_record_without_an_optional_field_is_read():
    values = json.loads(changed("peak_memory_bytes", ...)) | {"schema_version": 3}
    del values["digest"]
    assert from_json(json.dumps(values), "x") == example(schema_version=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {"top1": float("nan")}},
        {"metrics": {"top1": object()}},
        {"config": {"x": {1, 2}}},
        {"seconds": "long"},
        {"status": "failed"},
        {"status": "failed", "error": "two\nlines"},
    ],
)
def test_what_could_not_be_read_back_is_not_written(changes):
    with pytest.raises(RecordError):
        to_json(example(**changes))


def test_accuracy_of_random_weights_must_be_null():
    with pytest.raises(RecordError, match="must be null"):
        to_json(dataclasses.replace(example(random=True), metrics={"top1": 0.1}))


def test_score_is_the_headline_metric():
    assert example(accuracy=0.875).score == 0.875
    assert failed().score is None


def test_records_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        example().seconds = 3  # type: ignore[misc]
    assert {f.name for f in dataclasses.fields(Record)} >= {"status", "config", "environment", "tokens"}


def test_reading_records_imports_nothing_heavy():
    heavy = {"torch", "numpy", "pyarrow", "matplotlib", "rich"}
    code = f"import sys, pitome.records; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
