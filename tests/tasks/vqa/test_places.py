"""task=vqa with keep=: methods after the image tower, from the command line to record, table and page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pitome
from pitome.measure.flops import count_flops
from pitome.merge import registry
from pitome.records.schema import Record
from pitome.records.store import Store
from pitome.report import tables
from pitome.report.page.sweeps import views
from pitome.tasks.vqa.costs import answering, answering_after_tower, layer_tokens
from pitome.tasks.vqa.llava import Llava
from pitome.tasks.vqa.timing import Answers, measure_throughput
from tests.tasks.vqa.test_costs import ROPE
from tests.tasks.vqa.test_vqa import TEXTS, ask, folder, outcomes, weights
from tests.tasks.vqa.tiny_llava import images, llava

__all__ = ["ask", "folder", "weights"]
Run = Callable[..., int]
AFTER = sorted({*registry.names("projector"), *registry.names("language")})
SMALL = {"fastv": {"layer": 1}, "dart": {"layer": 1}, "prumerge": {"neighbours": 3}}


def place(name: str) -> str:
    return next(place for place in registry.get(name).places if place != "tower")


def answers(model: Llava, **settings: Any) -> list[str]:
    prompts = [model.prompt(text) for text in TEXTS]
    shown = [(0,), (1,), (0,)]
    return [a.text for a in model.generate(prompts, images(), shown, max_new_tokens=4, **settings)]


def test_table_record_and_page(ask: Run, tmp_path: Path) -> None:
    fastv = ("merge=fastv", "merge.options.layer=1", "keep=0.5,0.25")
    assert ask("-m", "merge=none,divprune,visionzip,pool,random", "keep=0.5,0.25", "limit=12") == 0
    assert ask("-m", *fastv, "limit=12") == 0
    folder = tmp_path / "results" / "runs"
    found: list[Record] = Store(folder).all()
    assert len(found) == 11 and all(record.done for record in found)
    for record in found:
        cost, keep = record.cost, record.method.asked.get("keep")
        assert cost is not None and cost.answering is not None and cost.total_macs is not None
        parts, left = cost.answering, round(16 * (keep or 1))
        assert record.method.place == (None if record.method.name == "none" else place(record.method.name))
        assert cost.macs == cost.unmerged_macs, "the tower is whole"
        assert cost.total_macs == cost.macs + parts.projector_macs + parts.method_macs + parts.prefill_macs
        if record.method.place == "projector":
            assert record.tokens == [16, left] and record.method.schedule == ["projector", left]
            assert (
                parts.image_tokens == left and parts.prompt_tokens == parts.unmerged_prompt_tokens - 16 + left
            )
        if record.method.place == "language":
            whole = parts.unmerged_prompt_tokens
            assert record.tokens == [whole, whole - 16 + left, whole - 16 + left]
            assert (parts.image_tokens, parts.left_image_tokens) == (16, left)
        assert (cost.question_share == 1) is (keep is None)
    assert len({tuple(outcomes(record, folder)["prediction"]) for record in found}) > 3
    table = tables.build(found, lambda record: None)[-1]
    assert table.header[2:6] == ["Place", "Tokens left", "Tower GMACs", "GMACs"]
    assert {line[2] for line in table.rows} == {"-", "projector", "language"}
    (view,) = views(found, lambda record: None, {})
    assert {"Place", "Tower GMACs"} <= {column.name for column in view.columns}


def test_a_method_in_the_tower_beside_one_after_it(ask: Run, tmp_path: Path) -> None:
    how = ("keep=0.5", "limit=6", "merge=none,divprune,visionzip")
    assert ask("-m", *how) == 0
    assert ask("-m", *how, "task.tower=pitome", "task.tower_ratio=0.7,1.0") == 0
    found = Store(tmp_path / "results" / "runs").all()
    assert len(found) == 7 and all(record.done for record in found)
    whole = next(record.cost for record in found if record.method.name == "none")
    alone = {r.method.name: r for r in found if "tower" not in r.method.asked}
    for record in found:
        cost, method = record.cost, record.method
        assert cost is not None and cost.answering is not None and whole is not None
        if method.asked.get("tower") == "pitome 0.7":
            assert cost.macs < whole.macs and record.tokens == [16, 8]
            same = alone[method.name].cost
            assert same is not None and same.answering is not None and same.total_macs is not None
            assert cost.answering.prefill_macs == same.answering.prefill_macs
            assert cost.answering.method_macs == cost.answering.method_macs_closed_form
            assert cost.total_macs is not None and cost.total_macs < same.total_macs
        elif "tower" in method.asked:  # nothing merges there
            outcome = [
                outcomes(r, tmp_path / "results" / "runs")["prediction"] for r in (record, alone[method.name])
            ]
            assert outcome[0] == outcome[1] and cost.macs == whole.macs
    table = tables.build(found, lambda record: None)[-1]
    lines = {(line[0], line[1], line[2]) for line in table.rows}
    assert ("divprune", "keep 0.5, tower pitome 0.7", "tower, projector") in lines
    assert ("divprune", "keep 0.5", "projector") in lines


def test_two_ways_to_ask_for_the_same_tokens_are_one_run(ask: Run, tmp_path: Path) -> None:
    assert ask("merge=divprune", "keep=0.5", "limit=6", "measure=none") == 0
    assert ask("merge=divprune", "keep=8", "limit=6", "measure=none") == 0
    assert ask("merge=divprune", "keep=1", "limit=6", "measure=none") == 0
    assert ask("merge=divprune", "keep=1.0", "limit=6", "measure=none") == 0
    schedules = [record.method.schedule for record in Store(tmp_path / "results" / "runs").all()]
    assert sorted(schedule[1] for schedule in schedules if schedule) == [1, 8, 16]


@pytest.mark.parametrize("keep", [0.5, 3, 16])
@pytest.mark.parametrize("name", AFTER)
def test_what_is_counted_as_it_runs_is_the_closed_form(name: str, keep: int | float) -> None:
    """The prompt, one more token, and what the method itself computes and reads."""
    model, text = llava(), 9
    prompt = model.prompt("is there a ?")
    text = len(model.encode(prompt)) - 16
    plain = answering(model.model, 16, text)
    with pitome.patch(model, name, keep=keep, **SMALL.get(name, {})):
        tower = pitome.flops(model.image_tower).macs

        def run(tokens: int) -> int:
            return count_flops(Answers(model, [prompt], tokens), images(1)).macs

        cost = answering_after_tower(model, text, plain, tower, run)
        counts = layer_tokens(model, text)
    assert cost.prefill == cost.prefill_closed + ROPE * counts[0]
    assert cost.decode == cost.decode_closed + ROPE
    assert cost.method == cost.method_closed
    kept = round(16 * keep) if isinstance(keep, float) else keep
    first = text + 16 if place(name) == "language" else text + kept
    assert counts == [first, text + kept, text + kept]
    assert (cost.prefill < plain.prefill) is (kept < 16)


@pytest.mark.parametrize("name", AFTER)
def test_all_tokens_kept_are_the_stock_answers_and_batches_are_single_runs(name: str) -> None:
    model = llava()
    plain = answers(model)
    with pitome.patch(model, name, keep=16, **SMALL.get(name, {})):
        assert answers(model) == plain
    with pitome.patch(model, name, keep=5, **SMALL.get(name, {})):
        together = answers(model)
        for at, image in enumerate((0, 1, 0)):
            (alone,) = model.generate(
                [model.prompt(TEXTS[at])], images()[image : image + 1], [(0,)], max_new_tokens=4
            )
            assert alone.text == together[at]
            gone = 16 - model.read_rows
            assert alone.prompt_tokens == len(model.encode(model.prompt(TEXTS[at]))) - gone
    assert answers(model) == plain


def test_positions_are_an_option() -> None:
    model = llava()
    prompts, shown = [model.prompt(TEXTS[0])], [(0,)]
    logits = {}
    for positions in ("keep", "renumber"):
        with pitome.patch(model, "divprune", keep=5, positions=positions):
            logits[positions] = model.next_word(prompts, images(1), shown, keep_positions=positions == "keep")
    assert not torch.allclose(logits["keep"], logits["renumber"])


def test_the_parts_of_the_time() -> None:
    model = llava()
    prompts = [model.prompt(text) for text in TEXTS[:2]]
    for name in ("visionzip", "fastv"):
        with pitome.patch(model, name, keep=0.5, **SMALL.get(name, {})):
            speed = measure_throughput(model, prompts, images(), [0, 1], 2, "32")
        parts = (speed.encoder_s, speed.method_s, speed.prefill_s, speed.encoder_s_unmerged)
        assert all(part is not None and part > 0 for part in (*parts, speed.prefill_s_unmerged))
    with pitome.patch(model, "tome", ratio=0.7):
        assert measure_throughput(model, prompts, images(), [0, 1], 2, "32").method_s is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("keep=17",), "more than the 16 tokens of an image"),
        (("merge=fastv", "keep=0.5"), "the language model has layers 0 to 1"),
        (("keep=0.5", "task.tower=pitom"), "task.tower=pitom is not known; did you mean pitome"),
        (("keep=0.5", "task.tower=fastv"), "does not merge in the layers of a tower"),
        (("keep=0.5", "task.tower=tome", "task.tower_ratio=0"), "tower_ratio=0"),
        (("merge=tome", "ratio=0.9", "task.tower=tome"), "goes with keep="),
    ],
)
def test_user_errors_are_one_line(ask: Run, capsys: Any, words: tuple[str, ...], says: str) -> None:
    assert ask("merge=divprune", *words) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(err) == 1 and says in err[0]
