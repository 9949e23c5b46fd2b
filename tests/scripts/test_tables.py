"""The tables of docs/ are what `python -m scripts.tables` prints, and what the pages say of them is so."""

from __future__ import annotations

import functools
import inspect
import math
import re
from pathlib import Path

import pytest
import timm
import torch
import yaml
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

import pitome
from pitome.errors import UsageError
from pitome.measure.flops import count_flops
from pitome.tasks.vqa.costs import answering
from pitome.tasks.vqa.models import build_model
from scripts.tables import command, retrieval_flops, text_flops, text_lengths, vqa_flops
from tests import ROOT
from tests.configs import model_of

other_timm = pytest.mark.skipif(timm.__version__ != "1.0.31", reason="written for timm 1.0.31")


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[other_timm] if page == "models" else []) for page in command.PAGES]
)
def test_a_page_has_the_tables_that_are_printed(page: str) -> None:
    text = (command.DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert command.insert(text, command.tables_of(page)) == text, (
        f"run python -m scripts.tables {page} --write"
    )


def test_every_page_with_markers_has_its_tables() -> None:
    marked = {path.stem for path in command.DOCS.glob("*.md") if "<!-- table: " in path.read_text()}
    assert marked == set(command.PAGES)


def test_text_around_a_table_stays() -> None:
    page = "a\n<!-- table: one -->\nold\n<!-- end of table -->\nb\n"
    assert command.insert(page, {"one": "| x |"}) == page.replace("old", "| x |")
    for tables in ({}, {"one": "", "two": ""}):
        with pytest.raises(UsageError, match="markers"):
            command.insert(page, tables)


def test_the_command_prints_or_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "tables_of", functools.cache(command.tables_of))
    assert command.main(["variants"]) == 0
    assert "variants, images:\n\n|  | % | difference |" in capsys.readouterr().out
    text = (command.DOCS / "variants.md").read_text(encoding="utf-8")
    monkeypatch.setattr(command, "DOCS", tmp_path)
    (tmp_path / "variants.md").write_text(re.sub(r"\d\.\d\d", "9.99", text))
    assert command.main(["variants", "--write"]) == 0
    assert "88.52" not in text and (tmp_path / "variants.md").read_text().count("| 87.97 |") == 1
    assert command.main(["variant"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no page variant with tables; did you mean variants?")
    assert error.count("\n") == 1


# What docs/text_flops.md says of its tables.


def test_rows_and_statements_of_the_text_page() -> None:
    assert len(text_flops.rows()) == 20  # Table 10: two models, two data sets, five methods
    page = (command.DOCS / "text_flops.md").read_text(encoding="utf-8")
    needs = [int(n) for n in re.findall(r"BERT-base \| SST-2 .* needs (\d+) or longer", page)]
    assert len(needs) == 2 and f"no data set without inputs of {min(needs)} tokens or more" in page
    assert f"end at {max(text_flops.lengths())} tokens" in page
    assert f"`needs {min(needs)} or longer` means" in page


@pytest.mark.parametrize(
    ("words", "says"),
    [([], "give the folder"), (["a", "b"], "give the folder"), (["/no/where"], "no tokenizer in /no/where")],
    ids=["nothing", "two", "missing"],
)
def test_wrong_tokenizers_are_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert text_lengths.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {says}") and error.count("\n") == 1


# What docs/retrieval_flops.md says of its tables.


def cut(value: float, like: str) -> str:
    """`value` with as many digits as `like`, the rest cut off."""
    digits = len(like.partition(".")[2])
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"


def test_the_formula_gives_what_the_page_says_it_gives() -> None:
    for row in retrieval_flops.printed("costs"):
        formula = retrieval_flops.tower_of(row.tower).formula(row, row.ratio, class_token=True)
        assert (cut(formula, row.printed) == row.printed) is not (row.row == "BLIP"), row
    clip, blip = retrieval_flops.printed("speedups")
    for row, same in ((clip, True), (blip, False)):
        tower = retrieval_flops.tower_of(row.tower)
        share = tower.formula(row, None, class_token=True) / tower.formula(row, row.ratio, class_token=True)
        assert (cut(share, row.printed) == row.printed) is same


def test_the_closed_form_is_what_a_forward_costs() -> None:
    """Counted operation by operation on the meta device, merging included."""
    row = next(row for row in retrieval_flops.printed("speedups") if row.tower == "clip_l")
    tower = retrieval_flops.tower_of("clip_l")
    with pitome.patch(tower.model, "pitome_repo", ratio=row.ratio):
        counted = pitome.flops(tower.model).macs
    assert counted == tower.ours("pitome_repo", row).macs


# docs/vqa_flops.md: its closed forms are what is counted on a 7B-shaped model.


def test_a_row_is_what_is_counted() -> None:
    config = yaml.safe_load((ROOT / "conf" / "model" / "llava_7b.yaml").read_text())
    config["args"]["text_config"]["num_hidden_layers"] = 2
    with torch.device("meta"):
        model = build_model(model_of(config))
        image = torch.zeros(1, 3, 336, 336)
    with pitome.patch(model, "pitome_repo", ratio=0.9):
        rows = model.image_rows
        tower = count_flops(model.image_tower, image).macs
        counted = answering(model.model, rows, vqa_flops.PROMPT)
    assert rows == 54
    page = (command.DOCS / "vqa_flops.md").read_text(encoding="utf-8")
    assert f"| `pitome_repo` | 0.9 | 54 | {tower / 1e9:.2f} |" in page
    # Older versions of transformers multiply positions and frequencies as matrices, which is counted.
    rope = 64 if " @ " in inspect.getsource(LlamaRotaryEmbedding.forward) else 0
    assert counted.prefill == counted.prefill_closed + rope * counted.prompt
    assert counted.decode == counted.decode_closed + rope
