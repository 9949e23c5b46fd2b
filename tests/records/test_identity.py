import json
import subprocess
import sys

import pytest

from pitome.records import RESULT_VERSION, build_identity, run_id

BASE = {
    "task": "classification",
    "model": "vit_fmnist",
    "weights_sha256": "ab" * 32,
    "data": "fashion_mnist",
    "revision": "r1",
    "split": "test",
    "limit": 500,
    "method": "pitome",
    "options": {"alpha": 1.0, "margin": 0.9},
    "schedule": [0.9] * 12,
    "precision": "float32",
    "seed": 0,
    "measure": "flops",
}


def identify(**changes):
    return run_id(build_identity(**{**BASE, **changes}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", "text"),
        ("model", "deit_s"),
        ("weights_sha256", None),
        ("data", "imagenet"),
        ("revision", "r2"),
        ("split", "train"),
        ("limit", None),
        ("method", "tome"),
        ("options", {"alpha": 0.5, "margin": 0.9}),
        ("schedule", [0.9] * 11 + [1.0]),
        ("precision", "bfloat16"),
        ("seed", 1),
        ("measure", "full"),
    ],
)
def test_every_part_changes_the_id(name, value):
    assert identify(**{name: value}) != identify()


def test_all_parts_are_tested_above():
    tested = {mark.args[1][i][0] for mark in test_every_part_changes_the_id.pytestmark for i in range(13)}
    assert tested == set(BASE)


def test_the_result_version_changes_the_id(monkeypatch):
    before = identify()
    monkeypatch.setattr("pitome.records.identity.RESULT_VERSION", RESULT_VERSION + 1)
    assert identify() != before


def test_how_a_value_is_written_does_not_matter():
    assert identify(options={"margin": 0.9, "alpha": 1}, schedule=(0.9,) * 12, limit=500) == identify()


def test_nothing_else_can_enter():
    with pytest.raises(TypeError):
        build_identity(**BASE, device="cuda")
    assert set(build_identity(**BASE)) == {
        "task", "model", "weights_sha256", "data", "method", "precision", "seed", "measure", "result_version"
    }  # fmt: skip


def test_the_unmerged_model_is_one_run_whatever_the_ratio():
    a = identify(method="none", schedule=[0.9] * 12, options={"prop_attn": True})
    b = identify(method="none", schedule=None, options={})
    assert a == b != identify()
    assert identify(method="none", seed=1) != a


def test_the_id_is_the_same_in_every_process():
    """Records are shared between machines: the id may not depend on hash seeds or key order."""
    code = "import json, sys; from pitome.records import run_id; print(run_id(json.loads(sys.argv[1])))"
    identity = build_identity(**BASE)
    backwards = dict(reversed(identity.items()))
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(backwards)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == identify()
    assert len(identify()) == 16 and int(identify(), 16)


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        identify(options={"alpha": value})
