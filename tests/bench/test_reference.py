"""`--reference`: a small stand-in for the authors' checkout, run in its own process."""

from __future__ import annotations

import math

import pytest

from pitome.errors import UsageError
from scripts.bench.checkout import check_checkout
from scripts.bench.record import Record
from scripts.bench.reference import CheckoutError, reference

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
# Merges nothing, as ours does at ratio 1; prints, and returns a count beside the logits, as theirs does.
# Its package imports what is not installed.
PATCH = """
from . import helper
def apply_patch(model):
    print("using", helper.NAME)
    forward = model.forward
    def both(x):
        assert model.ratio == 1.0
        return forward(x), 0
    model.forward = both
"""


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout" / "algo" / "pitome" / "patch"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("import a_library_that_is_not_installed")
    (folder / "helper.py").write_text("NAME = 'stand-in'")
    (folder / "deit.py").write_text(PATCH)
    return tmp_path / "checkout"


def run(checkout, record, **given):
    settings = {"name": "tiny", "args": ARGS, "batch": 2, "ratio": 1.0, "pairs": 6, "methods": ("pitome",)}
    return reference(checkout, record, math.inf, **settings | given)


def test_a_checkout_is_run_beside_ours_and_compared(checkout, tmp_path):
    record = Record(tmp_path / "a.json", {})
    assert run(checkout, record)
    (cell,) = Record(tmp_path / "a.json", {}).part("reference").values()
    assert cell["difference"] < 1e-12 and cell["images_equal_in_float32"] == cell["images"] == 2
    assert len(cell["ours"]) == len(cell["theirs"]) == 6 and min(cell["ours"] + cell["theirs"]) >= 0
    assert cell["low"] <= cell["speedup"] <= cell["high"]
    assert (cell["method"], cell["ratio"]) == ("pitome", 1.0)
    # what is recorded is not measured again
    (checkout / "algo" / "pitome" / "patch" / "deit.py").write_text("raise OSError")
    assert run(checkout, record)


@pytest.mark.nightly
def test_more_pairs_go_on_from_those_that_are_there(checkout, tmp_path):
    record = Record(tmp_path / "a.json", {})
    for pairs in (6, 8):
        assert run(checkout, record, pairs=pairs)
        assert [len(cell["ours"]) for cell in record.part("reference").values()] == [pairs]


@pytest.mark.nightly
def test_times_are_of_the_dtype_that_was_asked_for(checkout, tmp_path):
    log, file = tmp_path / "log", checkout / "algo" / "pitome" / "patch" / "deit.py"
    noted = f"print(x.dtype, file=open({str(log)!r}, 'a')); return forward"
    file.write_text(PATCH.replace("return forward", noted))
    record = Record(tmp_path / "a.json", {})
    assert run(checkout, record, dtype="bfloat16")
    # to compare, to warm up (twice), six times, to compare
    assert log.read_text().split() == ["torch.float32", *["torch.bfloat16"] * 8, "torch.float64"]
    (cell,) = record.part("reference").values()
    assert cell["difference"] < 1e-12 and cell["images_equal_in_float32"] == 2


@pytest.mark.nightly
def test_a_checkout_that_fails_is_one_line(checkout, tmp_path):
    (checkout / "algo" / "pitome" / "patch" / "deit.py").write_text("raise OSError('no such weights')")
    with pytest.raises(
        CheckoutError, match=r"^the reference checkout does not run: OSError: no such weights$"
    ):
        run(checkout, Record(tmp_path / "a.json", {}))


@pytest.mark.nightly
def test_a_checkout_that_fails_in_the_end_is_one_line(checkout, tmp_path):
    file = checkout / "algo" / "pitome" / "patch" / "deit.py"
    file.write_text(
        PATCH.replace("return forward", "assert x.dtype.itemsize == 4, 'not in float64'; return forward")
    )
    with pytest.raises(CheckoutError, match=r"^the reference checkout does not run: .*not in float64$"):
        run(checkout, Record(tmp_path / "a.json", {}))


def test_a_folder_that_is_no_checkout(tmp_path):
    with pytest.raises(UsageError, match=r"is not a checkout .*it has no algo/pitome/patch/deit\.py"):
        check_checkout(tmp_path)
