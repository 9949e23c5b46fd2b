"""From times to speed-ups, saved shares and verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.bench import plot, table, targets
from scripts.bench.groups import BASE, BERT, LARGE, METHODS, SMALL, Group, images
from scripts.bench.results import (
    MET,
    MISSED,
    OPEN,
    UNCLEAR,
    Interval,
    at_least,
    at_most,
    exponent,
    results,
    saved_share,
)

CPU = {"device": "cpu", "dtype": "float32", "torch": "2.15"}
GPU = {"device": "NVIDIA H200", "dtype": "bfloat16", "torch": "2.15"}


def cell(group: Group, speedups: list[float], macs: tuple[int, int] = (150, 100)) -> dict:
    """A cell of the record: every round takes 1 s unmerged."""
    return {
        "group": vars(group),
        "macs": {"none": macs[0], **dict.fromkeys(group.methods, macs[1])},
        "tokens": {},
        "memory": {"none": 50_000_000, **dict.fromkeys(group.methods, 40_000_000)},
        "rounds": [{"none": 1.0, **dict.fromkeys(group.methods, 1 / s), "cut": 1 / 1.5} for s in speedups],
    }


def parts_of(*cells: dict) -> dict:
    return {"speed": {str(number): one for number, one in enumerate(cells)}}


@pytest.mark.parametrize(
    ("speedup", "predicted", "saved"),
    [(1.5, 1.5, 1.0), (1.0, 1.5, 0.0), (1.25, 1.5, 0.6), (0.8, 1.25, -1.25), (1.10, 1.34, 0.3583)],
)
def test_saved_share_is_the_share_of_the_predicted_saving(speedup, predicted, saved):
    assert saved_share(speedup, predicted) == pytest.approx(saved, abs=1e-4)


def test_a_result_is_the_median_of_the_rounds_ratios():
    group = Group(SMALL, methods=("tome",), pairs=20)
    speedups = list(np.linspace(1.2, 1.58, 20))
    (one,) = results({"a": cell(group, speedups)})
    assert one.predicted == 1.5 and one.rounds == 20 and one.complete
    assert one.speedup.value == pytest.approx(np.median(speedups))
    # ranks 6 and 15 of 20, by the binomial distribution
    assert (one.speedup.low, one.speedup.high) == (
        pytest.approx(sorted(speedups)[5]),
        pytest.approx(sorted(speedups)[14]),
    )
    assert one.saved.low == pytest.approx(saved_share(one.speedup.low, 1.5))
    assert one.seconds_unmerged == 1.0


def test_the_share_of_what_cut_saves():
    """A round takes 1 s unmerged and 0.6 s cut: 0.64 s is nine tenths of that saving."""
    one = cell(Group(SMALL, methods=("tome",)), [1 / 0.64] * 20)
    for row in one["rounds"]:
        row["cut"] = 0.6
    (found,) = results({"a": one})
    assert found.of_cut == Interval(*[pytest.approx(0.9)] * 3)
    assert "| 90.0 % [90.0 %, 90.0 %] |" in table.markdown(CPU, parts_of(one))
    for row in one["rounds"]:
        row["cut"] = 1.1  # too busy a machine to say what cutting saves
    assert results({"a": one})[0].of_cut is None
    del one["rounds"][0]["cut"]  # measured before there was one
    assert results({"a": one})[0].of_cut is None
    assert "| tome | 1.500 | 1.562 [" in table.markdown(CPU, parts_of(one))


def test_one_image_at_a_time_has_targets_of_its_own():
    alone = cell(Group(SMALL, batch=1, methods=("pitome", "tome", "random")), [1.42] * 20)
    rows = [row for row in targets.judge(parts_of(alone), results({"a": alone})) if row.verdict != OPEN]
    assert [(row.name, row.wanted, row.verdict) for row in rows if row.name.startswith("of cut")] == [
        (f"of cut, {SMALL}, {method}, batch 1, eager, cpu", ">= 85.0 %", MET)
        for method in ("pitome", "tome", "random")
    ]
    assert {(g.mode, g.clock) for g in images() if g.batch == 1 and g.model == BASE} == {
        ("eager", "cpu"),
        ("compile", "wall"),
        ("onnx", "cpu"),
    }


def test_text_is_judged_by_its_length():
    text = cell(Group(BERT, 512, 4, 0.8, ("pitome", "tome"), "first3"), [1.49] * 20)
    rows = {row.name: row.verdict for row in targets.judge(parts_of(text), results({"a": text}))}
    assert rows[f"of cut, {BERT} at 512 tokens, tome, batch 4, eager, cpu"] == MET
    assert rows[f"of cut, {BERT} at 128 tokens, tome, batch 4, eager, cpu"] == OPEN


def test_too_few_rounds_have_no_interval_and_are_not_complete():
    (one,) = results({"a": cell(Group(SMALL, methods=("tome",)), [1.4, 1.5])})
    assert one.speedup == Interval(pytest.approx(1.45)) and not one.complete
    assert results({"a": cell(Group(SMALL), [])}) == []


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Interval(0.97, 0.96, 0.98), MET),
        (Interval(0.97, 0.95, 0.98), UNCLEAR),
        (Interval(0.94, 0.93, 0.955), MISSED),
        (Interval(0.94), MISSED),
        (None, OPEN),
    ],
)
def test_a_verdict_looks_at_the_whole_interval(found, verdict):
    assert at_least("saved", 0.96, found, str).verdict == verdict


@pytest.mark.parametrize(("found", "verdict"), [(1.5, MET), (1.51, MISSED), (None, OPEN)])
def test_a_bound_from_above(found, verdict):
    assert at_most("seconds", 1.5, found, str).verdict == verdict


def test_exponent_of_a_power_law():
    sizes = [197, 577, 1025, 4097]
    assert exponent(sizes, [3e-6 * n**1.5 for n in sizes]) == pytest.approx(1.5)


def test_every_target_has_a_row_even_where_nothing_was_measured():
    rows = targets.judge({}, [])
    assert {row.verdict for row in rows} == {OPEN}
    names = " ".join(row.name for row in rows)
    for word in (SMALL, BASE, LARGE, "compile", "memory", "authors", "4,097", "sweep", "fixed", "answer"):
        assert word in names


def test_targets_are_judged_at_their_own_conditions_only():
    good = [1.49] * 20
    other = cell(Group(SMALL, batch=4), good)
    short = cell(Group(SMALL), good[:5])
    assert all(row.verdict == OPEN for row in saved_rows(parts_of(other, short)))
    met = [row for row in saved_rows(parts_of(cell(Group(SMALL), good))) if row.verdict == MET]
    assert [row.name for row in met] == [
        f"of cut, {SMALL}, {method}, batch 16, eager, cpu"
        for method in ("pitome", "tome", "tofu", "diffrate")
    ]
    missed = saved_rows(parts_of(cell(Group(BASE), [1.3] * 20)))
    assert [row.verdict for row in missed].count(MISSED) == 4


def saved_rows(parts: dict) -> list[targets.Target]:
    rows = targets.judge(parts, results(parts["speed"]))
    return [row for row in rows if row.name.startswith("of cut")]


def test_a_gpu_has_targets_of_its_own():
    rows = targets.judge_gpu({}, [])
    assert {row.verdict for row in rows} == {OPEN} and any("batch 64" in row.name for row in rows)
    large = cell(Group(LARGE, batch=256, clock="wall"), [1.49] * 20)
    alone = cell(Group(LARGE, batch=1, mode="graphs", clock="wall"), [0.9] * 20)
    rows = targets.judge_gpu({}, results(parts_of(large, alone)["speed"]))
    assert [row.verdict for row in rows if "batch 256, eager" in row.name and LARGE in row.name] == [MET] * 4
    assert [row.verdict for row in rows if "at batch 1" in row.name and LARGE in row.name] == [MISSED] * 4


def test_peak_memory_above_unmerged_is_missed():
    one = cell(Group(SMALL, methods=("tome",)), [1.4] * 20)
    assert memory_verdict(one) == MET
    one["memory"]["tome"] = 60_000_000
    assert memory_verdict(one) == MISSED


def memory_verdict(one: dict) -> str:
    rows = targets.judge({}, results({"a": one}))
    return next(row.verdict for row in rows if "memory" in row.name)


def test_a_reference_with_other_outputs_is_missed_however_fast_we_are():
    row = {"method": "tome", "speedup": 2.0, "low": 1.9, "high": 2.1, "tolerance": 5e-5}
    assert reference_verdict(row | {"difference": 1e-6}) == (MET, "2.000 [1.900, 2.100]")
    assert reference_verdict(row | {"difference": 1e-3}) == (MISSED, "outputs differ by 1.0e-03")


def reference_verdict(row: dict) -> tuple[str, str]:
    rows = targets.judge({"reference": {"a": row}}, [])
    return next((one.verdict, one.found) for one in rows if one.name.endswith("implementation, tome"))


def test_shares_of_plan_and_merge():
    layer = {"tokens": 4097, "attention": 0.6, "plan": 0.02, "merge": 0.005, "mlp": 0.375}
    long = {"model": SMALL, "size": 1024, "method": "pitome", "layers": [layer, layer]}
    base = {"model": BASE, "size": 224, "method": "pitome", "layers": [{**layer, "tokens": 197}]}
    rows = {row.name: row for row in targets.judge({"layers": {"a": long, "b": base}}, [])}
    assert rows["pitome's plan at 4,097 tokens"].found == "2.0 %"
    assert rows[f"plan and merge of a block's time, {BASE}, pitome"].found == "2.5 %"


def test_the_page_names_conditions_and_incomplete_rows_and_the_fitted_exponents():
    sizes = (224, 384, 512)
    cells = [cell(Group(SMALL, size, 1, methods=("pitome",), pairs=2), [1.5] * 2) for size in sizes]
    for one, size in zip(cells, sizes, strict=True):
        for row in one["rounds"]:
            row.update({"none": 1.0 * size**2, "pitome": 0.7 * size**2})
    text = table.markdown({"device": "cpu", "torch": "2.15"}, parts_of(*cells, cell(Group(BASE), [1.4] * 3)))
    assert "Conditions: device cpu; torch 2.15; git_revision None;" in text
    assert "to the power 1.00 with pitome at ratio 0.925, 1.00 unmerged" in text
    assert "| 3 of 20 |" in text and "not measured" in text


def test_nothing_predicted_is_no_share_instead_of_an_error(tmp_path):
    same = cell(Group(SMALL, methods=("tome",), ratio=0.999), [1.0] * 20, (100, 100))
    (one,) = results({"a": same})
    assert one.saved is None and one.speedup.value == 1.0
    assert "| tome | 1.000 | 1.000 [1.000, 1.000] |  |" in table.markdown(CPU, parts_of(same))
    assert plot.plot([one], tmp_path / "a.png", CPU, "revision a")


def on_gpu() -> dict:
    """Wall time of ViT-B at batch 64, and the points of both curves."""
    shapes = [(224, 1), (384, 1), (512, 1), (224, 4), (224, 32)]
    curves = [
        cell(Group(SMALL, size, batch, methods=("pitome",), clock="wall", pairs=6), [1.4] * 6)
        for size, batch in shapes
    ]
    return parts_of(cell(Group(BASE, batch=64, clock="wall"), [1.49] * 20), *curves)


def test_a_gpu_has_a_plot_and_exponents_of_wall_time(tmp_path):
    parts = on_gpu()
    text = table.markdown(GPU, parts)
    assert f"Wall time of {SMALL} grows as tokens" in text and f"Wall time of {SMALL} grows as batch" in text
    path = tmp_path / "a.png"
    assert plot.plot(results(parts["speed"]), path, GPU, "revision a") and path.is_file()
    assert not plot.plot(results(parts["speed"]), path, CPU, "revision a")


def test_rows_of_a_gpu_that_were_not_measured_stay(tmp_path):
    parts = on_gpu()
    rows = {row.name: row for row in targets.judge_gpu(parts, results(parts["speed"]))}
    assert rows[f"of cut, {BASE}, tome, batch 64, eager, wall"].verdict == MET
    assert not any("batch 4," in name or "batch 32," in name for name in rows)  # of the curves alone
    for name in (f"plan and merge of a block's time, {BASE}", "times as fast as the authors' implementation"):
        assert [row.verdict for row in rows.values() if row.name.startswith(name)] == [OPEN] * 4
    row = {"method": "tome", "speedup": 1.5, "low": 1.4, "high": 1.6, "tolerance": 5e-5, "difference": 0.0}
    rows = targets.judge_gpu({"reference": {"a": row}}, [])
    (found,) = [one for one in rows if one.name.endswith("implementation, tome")]
    assert (found.wanted, found.verdict) == (">= 2.000", MISSED)


def test_another_ratio_is_judged_by_no_target():
    layer = {"tokens": 197, "attention": 0.6, "plan": 0.02, "merge": 0.005, "mlp": 0.375}
    base = {"model": BASE, "size": 224, "method": "pitome", "layers": [layer], "ratio": 0.5}
    row = {"method": "tome", "speedup": 2.0, "low": 1.9, "high": 2.1, "tolerance": 1, "difference": 0}
    found = targets.judge({"layers": {"a": base}, "reference": {"a": row | {"ratio": 0.5}}}, [])
    assert {one.verdict for one in found} == {OPEN}


def test_compiled_vit_l_is_among_the_targets():
    names = [row.name for row in targets.judge({}, [])]
    assert sum(f"of cut, {LARGE}" in name and "compile, wall" in name for name in names) == 4
    last = images()[-1]
    assert (last.model, last.mode, last.clock, last.methods) == (LARGE, "compile", "wall", METHODS)


def test_the_page_says_which_revision_measured_what():
    one, other = cell(Group(SMALL), [1.4] * 20), cell(Group(BASE), [1.4] * 20)
    one["measured"] = {"git_revision": "a" * 40, "git_dirty": False, "load": 0.5}
    other["measured"] = one["measured"] | {"load": 1.5}
    text = table.markdown(CPU, {"speed": {"small": one, "base": other}})
    assert f"; git_revision {'a' * 40}; git_dirty False; load 0.5 to 1.5." in text
    assert "## Revisions" not in text
    other["measured"] = {"git_revision": "b" * 40, "git_dirty": True, "load": 1.5}
    text = table.markdown(CPU, {"speed": {"small": one, "base": other}})
    assert f"git_revision {'a' * 40} and {'b' * 40}, see Revisions" in text
    assert f"| {'a' * 40} | False | speed | small |" in text
    assert f"| {'b' * 40} | True | speed | base |" in text
    assert table.revisions({"speed": {"small": one}}) == "revision aaaaaaa"
