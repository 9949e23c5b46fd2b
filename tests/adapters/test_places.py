"""Vision-language models of every family: tokens taken out after the image tower."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import pitome
from pitome.adapters.transformers import families
from pitome.errors import UnsupportedModelError, UsageError
from tests.adapters.tiny_vlm import CONFIGS, IMAGE, PAD, VIDEO, WORDS, inputs, single, vlm

FAMILIES = list(CONFIGS)
FEW = ("llava", "qwen2_5_vl", "gemma3")  # one of each kind of positions and masks
BOTH = (1, 2)  # images of two prompts
PLACES: tuple[tuple[str, dict[str, Any]], ...] = (("divprune", {}), ("fastv", {"layer": 3}))


def answer(model: Any, given: dict[str, Any], new: int = 4, **settings: Any) -> Tensor:
    """Tokens after the prompts."""
    made: Tensor = model.generate(**given, max_new_tokens=new, do_sample=False, **settings)
    assert torch.equal(made[:, : given["input_ids"].shape[1]], given["input_ids"])
    return made[:, given["input_ids"].shape[1] :]


def by_hand(model: Any, given: dict[str, Any], new: int) -> tuple[Tensor, Tensor]:
    """Decoding without `generate`, by masks as long as the caller counts, or none, and without positions: the
    new tokens and the logits they are of."""
    out, tokens, logits, mask = model(**given), [], [], given["attention_mask"]
    for _ in range(new):
        logits.append(out.logits[:, -1:])
        tokens.append(logits[-1].index_fill(-1, torch.tensor([IMAGE, VIDEO]), -torch.inf).argmax(-1))
        mask = torch.cat([mask, mask[:, -1:]], dim=1)
        masked = {} if bool(mask.all()) and len(tokens) == 1 else {"attention_mask": mask}
        out = model(input_ids=tokens[-1], past_key_values=out.past_key_values, **masked)
    return torch.cat(tokens, dim=1), torch.cat(logits, dim=1)


def test_every_family_is_tested() -> None:
    assert {*FAMILIES} == set(families.known())


@pytest.mark.parametrize("name", FAMILIES)
def test_keeping_all_changes_no_bit_and_removing_the_patch_neither(name: str) -> None:
    model, given = vlm(name), inputs(name, BOTH)
    plain, logits = answer(model, given), model(**given).logits
    for method, options in PLACES:
        for keep in (1.0, 10_000):
            with pitome.patch(model, method, keep=keep, **options):
                assert torch.equal(model(**given).logits, logits)
            assert torch.equal(model(**given).logits, logits)
    with (
        pitome.patch(model, "divprune", keep=10_000),
        pitome.patch(model, "fastv", keep=1.0, layer=3) as handle,
    ):
        assert handle.places == ("projector", "language")
        assert torch.equal(answer(model, given), plain)
    before = vlm(name)
    assert type(model) is type(before) and set(vars(model)) == set(vars(before))
    hooks = [
        hook
        for part in model.modules()
        for hook in (*part._forward_pre_hooks.values(), *part._forward_hooks.values())
    ]
    assert not any(type(hook).__module__.startswith("pitome") for hook in hooks)  # transformers has its own


def _picked(row: Tensor, count: int) -> list[int]:
    """DivPrune, token by token."""
    unit = torch.nn.functional.normalize(row, dim=-1)
    distance = (1 - unit @ unit.T).tolist()
    every = range(len(row))
    picked = [max(every, key=lambda i: (min(distance[i][j] for j in every if j != i), -i))]
    while len(picked) < count:
        rest = [i for i in every if i not in picked]
        picked.append(max(rest, key=lambda i: (min(distance[i][j] for j in picked), -i)))
    return sorted(picked)


@pytest.mark.parametrize("positions", ["keep", "renumber"])
@pytest.mark.parametrize("name", FAMILIES)
def test_half_of_the_tokens_is_the_stock_model_on_a_shorter_prompt(name: str, positions: str) -> None:
    """The reference cuts the prompt by hand; then each new token by the cache equals one forward of all."""
    model, given = vlm(name), inputs(name)
    base = model.base_model
    named = {key: given[key] for key in ("pixel_values", "image_grid_thw", "image_sizes") if key in given}
    tower = base.get_image_features(**named, return_dict=True)
    family = families.family_of(name)
    rows = family.images(model, tower.pooler_output)
    places, offset, kept = (given["input_ids"][0] == IMAGE).nonzero()[:, 0].tolist(), 0, []
    for number, row in enumerate(rows):
        chosen = _picked(row, round(len(row) / 2))
        kept += [places[offset + at] for at in chosen]
        offset, rows[number] = offset + len(row), row[chosen]
        if getattr(tower, "deepstack_features", None) is not None:
            tower.deepstack_features = [
                [part[chosen] if at == number else part for at, part in enumerate(layer)]
                for layer in tower.deepstack_features
            ]
    columns = sorted({*range(given["input_ids"].shape[1])} - {*places} | {*kept})
    whole = torch.arange(given["input_ids"].shape[1])[None] + family.first_position
    if name.startswith("qwen"):
        whole = model._prepare_position_ids_for_generation(given["input_ids"], dict(given))
    placed = whole[..., columns]
    if positions == "renumber":
        placed = torch.arange(len(columns)).expand_as(placed) + family.first_position
    tower.pooler_output = torch.stack(rows) if isinstance(tower.pooler_output, Tensor) else rows
    short = {
        key: value[:, columns] for key, value in given.items() if value.shape == given["input_ids"].shape
    }
    types = {key: value for key, value in short.items() if key.endswith("_ids") and key != "input_ids"}
    reference = model(
        **short, position_ids=placed, mm_encoder_outputs={"image": tower}, use_cache=False
    ).logits
    with pitome.patch(model, "divprune", keep=0.5, positions=positions) as handle:
        assert torch.allclose(model(**given).logits, reference, atol=1e-6, rtol=0)
        assert all(after == round(before / 2) for before, after in handle.images)
        new, logits = by_hand(model, given, 4)
        assert torch.equal(answer(model, given), new)
    step = placed[..., -1:] + torch.arange(1, 5)
    if positions == "keep" and name.startswith("qwen"):
        step = whole[..., -1:] + torch.arange(1, 5)
    grown = {key: torch.cat([value, value[:, -1:].expand(-1, 4)], 1) for key, value in types.items()}
    if "mm_token_type_ids" in grown:
        grown["mm_token_type_ids"][:, -4:] = 0
    grown |= {"input_ids": torch.cat([short["input_ids"], new], dim=1)}
    grown["attention_mask"] = torch.ones_like(grown["input_ids"])
    if name == "paligemma":  # new tokens are no part of the prefix
        grown["token_type_ids"][:, -4:] = 1
    once = model(
        **grown,
        position_ids=torch.cat([placed, step], -1),
        mm_encoder_outputs={"image": tower},
        use_cache=False,
    ).logits[:, -5:-1]
    assert torch.allclose(logits, once, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method, options", PLACES)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_of_different_prompts_and_numbers_of_images_is_as_single_runs(
    name: str, method: str, options: dict[str, Any]
) -> None:
    model, given = vlm(name), inputs(name, BOTH)
    settings: dict[str, Any] = {"output_logits": True, "return_dict_in_generate": True, "do_sample": False}
    with pitome.patch(model, method, keep=0.5, **options):
        together = torch.stack(model.generate(**given, max_new_tokens=4, **settings).logits, dim=1)
        for sample in (0, 1):
            alone = model.generate(**single(name, given, BOTH, sample), max_new_tokens=4, **settings)
            assert torch.allclose(torch.stack(alone.logits, 1)[0], together[sample], atol=1e-5, rtol=1e-5)


def _fastv_layer(model: Any, given: dict[str, Any], first: int) -> tuple[list[int], Tensor]:
    """FastV by an eager copy of the stock model: which tokens stay, and what enters the layer."""
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    entered: list[Tensor] = []
    eager.get_decoder().layers[first].register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    out = eager(**given, output_attentions=True)
    row = out.attentions[first - 1][0].mean(dim=0)[-1].tolist()
    image = (given["input_ids"][0] == IMAGE).nonzero()[:, 0].tolist()
    best = sorted(image, key=lambda at: (-row[at], at))[: round(len(image) / 2)]
    return sorted({*range(len(row))} - {*image} | {*best}), entered[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_fastv_drops_what_full_attention_says_and_keeps_positions(name: str) -> None:
    model, given = vlm(name), inputs(name)
    columns, hidden = _fastv_layer(model, given, 3)
    seen: list[Tensor] = []
    layer = model.get_decoder().layers[3]
    with pitome.patch(model, "fastv", keep=0.5, layer=3) as handle:
        hook = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        model(**given)
        hook.remove()
        (count,) = {*handle.tokens["language"][3:]}
        assert count == len(columns) < given["input_ids"].shape[1] == handle.tokens["language"][2]
    assert torch.allclose(seen[0], hidden[:, columns], atol=1e-4)  # eager softmax is of float32


@pytest.mark.parametrize("name", FEW)
def test_fastv_by_the_cache_is_one_forward_with_the_same_tokens(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference forward of prompt and answer takes the choice that the prompt's last token made."""
    from pitome.adapters.transformers import language

    model, given = vlm(name), inputs(name, BOTH)
    with pitome.patch(model, "fastv", keep=0.5, layer=3):
        made = model.generate(
            **given, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        removed = made.past_key_values._pitome_removed
        stays = (
            torch.zeros_like(given["input_ids"]).scatter(1, removed.inner, removed.inner_valid.long()).bool()
        )
        new = made.sequences[:, given["input_ids"].shape[1] :]

        def same(places: Any, forward: Any, x: Tensor) -> None:
            stay = torch.cat([stays, torch.ones_like(new, dtype=torch.bool)], dim=1)
            order = stay.long().argsort(dim=1, stable=True)[:, -int(stay.sum(1).max()) :]
            forward.removed.inner, forward.removed.inner_valid = order, stay.gather(1, order)

        monkeypatch.setattr(language, "decide", same)
        grown = dict(given, input_ids=made.sequences)
        for key in ("attention_mask", "mm_token_type_ids", "token_type_ids"):
            if key in given:
                fill = torch.full_like(new, int(key == "attention_mask"))
                grown[key] = torch.cat([given[key], fill.to(given[key].dtype)], dim=1)
        grown["position_ids"] = (grown["attention_mask"].cumsum(1) - 1).clamp_min(0)
        if name.startswith("qwen"):
            del grown["position_ids"]
        once = model(**grown, use_cache=False).logits[:, -5:-1]
    assert torch.allclose(torch.stack(made.logits, dim=1).double(), once, atol=1e-5, rtol=0)  # floats


@pytest.mark.parametrize("name", FEW)
def test_beams_static_cache_no_cache_and_half_precision(name: str) -> None:
    model, given = vlm(name), inputs(name, BOTH)
    with pitome.patch(model, "divprune", keep=0.5):
        greedy = answer(model, given)
        assert torch.equal(answer(model, given, use_cache=False), greedy)
        beams = answer(model, given, num_beams=2)
        for sample in (0, 1):
            assert torch.equal(
                answer(model, single(name, given, BOTH, sample), num_beams=2)[0], beams[sample]
            )
        with pitome.patch(model, "fastv", keep=0.5, layer=3):
            plain = answer(model, given)
            assert torch.equal(answer(model, given, cache_implementation="static"), plain)
            assert answer(model, given, num_beams=2).shape == greedy.shape
            half = model.to(torch.bfloat16)
            assert answer(half, inputs(name, BOTH, torch.bfloat16)).shape == greedy.shape


def test_another_turn_goes_on_with_the_cache() -> None:
    model, given = vlm("llava"), inputs("llava")
    for positions in ("keep", "renumber"):
        with pitome.patch(model, "divprune", keep=0.5, positions=positions):
            made = model.generate(**given, max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
            turn = torch.cat([made.sequences, torch.randint(7, WORDS, (1, 4))], dim=1)
            call = {"input_ids": turn, "attention_mask": torch.ones_like(turn)}
            again = answer(model, call, past_key_values=made.past_key_values)
            assert torch.equal(again, answer(model, call | {"pixel_values": given["pixel_values"]}))
            with pytest.raises(UsageError, match="an image after a cached prompt"):
                model.generate(**given, past_key_values=made.past_key_values, max_new_tokens=2)


def test_copies_pickles_and_what_is_saved(tmp_path: Any) -> None:
    model, given = vlm("llava"), inputs("llava")
    handle = pitome.patch(model, "divprune", keep=9)
    pitome.patch(model, "fastv", keep=0.5, layer=3)
    stored = pickle.dumps(model)  # before transformers puts hooks of its own on it, which cannot be pickled
    expected = answer(model, given)
    for other in (copy.deepcopy(model), pickle.loads(stored)):
        assert torch.equal(answer(other, given), expected)
        twin = pitome.patched(other)
        assert twin is not None and twin.places == ("projector", "language")
        pitome.remove(other)
        assert pitome.patched(other) is None and pitome.patched(model) is not None
    handle.save(tmp_path)
    written = copy.deepcopy(model.config.pitome)
    handle.remove()
    assert pitome.patched(model) is None and not hasattr(model.config, "pitome")
    pitome.load(model, tmp_path)
    assert torch.equal(answer(model, given), expected) and model.config.pitome == written


def test_a_tower_method_combines_with_the_places_after_it() -> None:
    model, given = vlm("llava"), inputs("llava", BOTH)
    plain = answer(model, given)
    with pitome.patch(model, "tome", ratio=0.9) as tower:
        alone = answer(model, given)
        rows = tower.tokens[-2] - 1
        with pitome.patch(model, "divprune", keep=8) as handle:
            answer(model, given)
            assert handle.places == tower.places == ("tower", "projector")
            assert handle.tokens["projector"] == [rows, 8] and handle.tokens["tower"] == tower.tokens
        assert torch.equal(answer(model, given), alone)
    assert torch.equal(answer(model, given), plain)


def test_a_tower_whose_grid_is_needed_merges_and_combines_with_the_places_after_it() -> None:
    for name in set(FAMILIES) - {"llava", "qwen2_5_vl", "qwen3_vl", "mistral3"}:
        model, given = vlm(name), inputs(name, BOTH)
        plain = model(**given).logits
        with pitome.patch(model, "divprune", keep=0.5) as handle:
            cut = model(**given).logits
            count = handle.tokens["projector"]
            with pitome.patch(model, "pitome", ratio=1.0):  # after, and below before, the other place
                assert torch.equal(model(**given).logits, cut)
        with pitome.patch(model, "pitome", ratio=1.0):
            assert torch.equal(model(**given).logits, plain)
        with pitome.patch(model, "tome", ratio=0.8) as tower:
            merged = model(**given).logits
            assert merged.shape == plain.shape and not torch.allclose(merged, plain)
            with (
                pitome.patch(model, "divprune", keep=0.5) as handle,
                pitome.patch(model, "fastv", keep=0.5, layer=3),
            ):
                answer(model, given)
                assert handle.places == ("tower", "projector", "language")
                assert handle.tokens["tower"] == tower.tokens and tower.tokens[-1] < tower.tokens[0]
                assert handle.tokens["projector"] == count
            assert torch.equal(model(**given).logits, merged)
        assert torch.equal(model(**given).logits, plain) and pitome.patched(model) is None


def test_training_cuts_labels_and_takes_padding_on_the_right() -> None:
    model, left = vlm("llava"), inputs("llava", BOTH)
    count = int(left["attention_mask"][0].sum())
    left["labels"] = left["input_ids"].masked_fill(left["input_ids"] < 7, -100)
    right = {
        key: torch.cat([value[:1].roll(count, 1), value[1:]]) if value.ndim == 2 else value
        for key, value in left.items()
    }
    assert right["attention_mask"][0, :count].all() and not right["attention_mask"][0, count:].any()
    with pitome.patch(model, "divprune", keep=0.5):
        assert torch.allclose(model(**left).loss, model(**right).loss, atol=1e-5)


READABLE = ("llava", "internvl", "smolvlm", "idefics3", "paligemma", "gemma3")
CELLS = {"internvl": 2, "smolvlm": 2, "idefics3": 2, "gemma3": 2}


@pytest.mark.parametrize("name", READABLE)
def test_what_is_read_in_the_tower_is_in_its_attention_map(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is the eager attention of a copy, token by token; the model itself stays with its own."""
    model, given, seen = vlm(name), inputs(name, BOTH), []
    family = families.family_of(name)
    eager, kind = copy.deepcopy(model), model.config._attn_implementation
    eager.set_attn_implementation("eager")
    maps: list[Tensor] = []
    attentions = [
        m
        for n, m in family.tower(eager).named_modules()
        if n.endswith("self_attn") or n.endswith("attention")
    ]
    attentions = [m for m in attentions if hasattr(m, "q_proj")]
    chosen = attentions[-2] if name == "llava" else attentions[-1]
    chosen.register_forward_hook(lambda module, args, output: maps.append(output[1]))
    eager(**given)
    whole = maps[0].mean(dim=1)  # [T, N, N]
    row = whole[:, 0, 1:] if name in ("llava", "internvl") else whole.mean(dim=1)
    if cell := CELLS.get(name):
        side = round(row.shape[1] ** 0.5)
        row = row.view(-1, side // cell, cell, side // cell, cell).mean((2, 4)).flatten(1)
    scores = type(family).scores

    def spy(*args: Any) -> dict[str, list[Tensor]]:
        seen.append(scores(*args))
        return seen[-1]

    monkeypatch.setattr(type(family), "scores", spy)
    with pitome.patch(model, "visionzip", keep=0.5) as handle:
        model(**given)
        assert {after for _, after in handle.images} == {round(row.shape[1] / 2)}
    assert torch.allclose(torch.stack(seen[0]["received"]).to(row), row, atol=1e-5)
    assert model.config._attn_implementation == kind == "sdpa"
    assert len(seen[0]["keys"]) == len(row)


def test_the_tower_of_qwen3_is_read_in_cells_of_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference: the maps of the last block of a copy with eager attention, the mean of 2 x 2 patches."""
    from transformers.models.qwen3_vl import modeling_qwen3_vl as modeling

    model, given, maps = vlm("qwen3_vl"), inputs("qwen3_vl", BOTH), []
    copied, eager = copy.deepcopy(model), modeling.eager_attention_forward

    def kept(module: Any, *args: Any, **kwargs: Any) -> Any:
        made = eager(module, *args, **kwargs)
        if module is copied.model.visual.blocks[-1].attn:
            maps.append(made[1][0].mean(dim=(0, 1)).view(-1, 4).mean(dim=1))
        return made

    monkeypatch.setattr(modeling, "eager_attention_forward", kept)
    copied.set_attn_implementation("eager")
    copied(**given)
    found: list[dict[str, list[Tensor]]] = []
    kind = type(families.family_of("qwen3_vl"))
    scores = kind.scores
    monkeypatch.setattr(kind, "scores", lambda *args: (found.append(scores(*args)), found[-1])[1])
    with pitome.patch(model, "visionzip", keep=0.5) as handle:
        model(**given)
        assert handle.images == [(len(row), round(len(row) / 2)) for row in maps] and len(maps) == 3
    torch.testing.assert_close(found[0]["received"], maps)
    assert [len(keys) for keys in found[0]["keys"]] == [len(row) for row in maps]
    for sample in (0, 1):
        with pitome.patch(model, "visionzip", keep=4):
            alone = answer(model, single("qwen3_vl", given, BOTH, sample), num_beams=2)[0]
            assert torch.equal(answer(model, given, num_beams=2)[sample], alone)
    assert not model.model.visual.blocks[-1].attn._forward_pre_hooks


@pytest.mark.parametrize("name", sorted({*READABLE} - {"llava"}))
def test_tokens_that_merged_in_the_tower_share_what_their_group_gets(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equal tokens, each as much as without merging."""
    model, given, seen = vlm(name), inputs(name), []
    for part, parameter in families.family_of(name).tower(model).named_parameters():
        if "position" in part:
            parameter.zero_()
    patches = torch.randn(3, 3, 4, 4, dtype=torch.float64)[torch.randint(0, 3, (6, 6))]
    given["pixel_values"] = (
        patches.permute(2, 0, 3, 1, 4).reshape(1, 3, 24, 24).view_as(given["pixel_values"])
    )
    scores = type(families.family_of(name)).scores

    def spy(*args: Any) -> dict[str, list[Tensor]]:
        seen.append(scores(*args))
        return seen[-1]

    monkeypatch.setattr(type(families.family_of(name)), "scores", spy)
    with pitome.patch(model, "visionzip", keep=0.5):
        model(**given)
        with pitome.patch(model, "tome", r=6, layers=[0, 1]) as tower:
            model(**given)
    assert tower.tokens[0] - tower.tokens[-1] == 12
    for part in ("received", "keys"):
        torch.testing.assert_close(seen[1][part], seen[0][part], atol=1e-9, rtol=1e-6)


AFTER_TOWER = sorted({*pitome.methods("projector"), *pitome.methods("language")})


@pytest.mark.parametrize("method", AFTER_TOWER)
def test_every_method_generates_in_batches_as_alone(method: str) -> None:
    for name in ("llava", "gemma3"):
        model, given = vlm(name), inputs(name, BOTH)
        options = {"layer": 3} if method in pitome.methods("language") else {}
        with pitome.patch(model, method, keep=4, **options):
            together = answer(model, given)
            beams = answer(model, given, num_beams=2)
            for sample in (0, 1):
                alone = single(name, given, BOTH, sample)
                assert torch.equal(answer(model, alone)[0], together[sample])
                assert torch.equal(answer(model, alone, num_beams=2)[0], beams[sample])


def test_a_prompt_without_words_and_a_tower_that_cannot_be_read_are_refused() -> None:
    model, given = vlm("llava"), inputs("llava")
    places = (given["input_ids"][0] == IMAGE).nonzero()[:, 0]
    bare = given | {key: given[key][:, places] for key in ("input_ids", "attention_mask")}
    with pitome.patch(model, "cdpruner", keep=4, relevance="words"):
        assert answer(model, given).shape == (1, 4)
        with pytest.raises(UsageError, match="this one has none"):
            model(**bare)
    with pytest.raises(UnsupportedModelError, match=r"Qwen2\.5-VL cannot be read"):
        pitome.patch(vlm("qwen2_5_vl"), "visionzip", keep=4)
    wide = vlm("qwen2_5_vl")
    with pitome.patch(wide, "pool", keep=4), pytest.raises(UnsupportedModelError, match="no square grid"):
        wide(**inputs("qwen2_5_vl"))


REFUSED: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("divprune", {"keep": 0}, "neither a number"),
    ("divprune", {"keep": -3}, "neither a number"),
    ("divprune", {"keep": 1.5}, "neither a number"),
    ("divprune", {"keep": 0.0}, "neither a number"),
    ("divprune", {"keep": True}, "neither a number"),
    ("divprune", {}, "needs keep"),
    ("divprune", {"keep": 8, "ratio": 0.9}, "takes keep, not ratio"),
    ("divprune", {"keep": 8, "place": "language"}, "cannot be used at place=language"),
    ("tofu", {"keep": 8}, "give ratio or r"),
    ("pitome", {"keep": 8, "rank_by": "cls_attention"}, "reads cls_attention of a layer"),
    ("fastv", {"keep": 0.5, "layer": 5}, "has layers 0 to 4"),
    ("fastv", {"keep": 0.5, "layer": 0}, "layer=0"),
    ("fastv", {"keep": 0.5, "layr": 2}, "has no option"),
    ("divprune", {"keep": 8, "positions": "other"}, "positions="),
)


@pytest.mark.parametrize(("method", "given", "text"), REFUSED)
def test_what_cannot_be_done_is_refused_in_a_line(method: str, given: dict[str, Any], text: str) -> None:
    model = vlm("llava")
    with pytest.raises(UsageError, match=text) as problem:
        pitome.patch(model, method, **given)
    assert "\n" not in str(problem.value)
    assert pitome.patched(model) is None and not model._forward_pre_hooks


def test_calls_that_cannot_be_answered_are_refused_in_a_line() -> None:
    model, given = vlm("llava"), inputs("llava", BOTH)
    with pytest.raises(UsageError, match="too early in Qwen3-VL"):
        pitome.patch(vlm("qwen3_vl"), "fastv", keep=0.5)
    with pytest.raises(UnsupportedModelError, match=r"LLaVA-1\.5"):
        pitome.patch(model.model.vision_tower, "divprune", keep=8)
    with pytest.raises(UnsupportedModelError, match="attends within windows"):
        pitome.patch(vlm("qwen2_5_vl"), "tome", ratio=0.9)
    with pytest.raises(UnsupportedModelError, match=r"Gemma3Model reads every token .* dense=True"):
        pitome.patch(vlm("gemma3"), "tome", ratio=0.9, dense=False)
    pitome.patch(model, "divprune", keep=8)
    with pytest.raises(UsageError, match="already, with divprune"):
        pitome.patch(model, "divprune", keep=8)
    right = {key: value.flip(1) if value.ndim == 2 else value for key, value in given.items()}
    few = given | {"pixel_values": given["pixel_values"][:2]}
    calls: Sequence[tuple[str, dict[str, Any]]] = (
        ("padding_side", right),
        ("108 placeholders for 72", few),
        ("without an assistant", given | {"prompt_lookup_num_tokens": 2}),
        ("prefill_chunk_size", given | {"prefill_chunk_size": 4}),
    )
    for text, call in calls:
        with pytest.raises(UsageError, match=text):
            model.generate(**call, max_new_tokens=2)
    embeds = model.get_input_embeddings()(given["input_ids"])
    with pytest.raises(UsageError, match="input_ids"):
        model(inputs_embeds=embeds, pixel_values=given["pixel_values"])


def test_the_time_of_the_methods_stands_apart() -> None:
    model, given = vlm("llava"), inputs("llava")
    with pitome.patch(model, "divprune", keep=0.5) as handle, pitome.patch(model, "fastv", keep=0.5, layer=3):
        answer(model, given)
        assert handle.seconds == {}
        handle.timed = True
        answer(model, given)
        assert set(handle.seconds) == {"projector", "language"} and min(handle.seconds.values()) > 0


def test_a_window_that_begins_to_forget_is_refused_inside_the_language_model_alone() -> None:
    model, given = vlm("gemma3", window=16), inputs("gemma3")
    plain = answer(model, given)
    with pitome.patch(model, "divprune", keep=1000):
        assert torch.equal(answer(model, given), plain)
    with (
        pitome.patch(model, "fastv", keep=0.5, layer=1),
        pytest.raises(UsageError, match="sliding window of layer"),
    ):
        answer(model, given)


def test_prompts_without_images_are_as_without_a_patch() -> None:
    model = vlm("qwen2_5_vl")
    ids = torch.randint(7, WORDS, (2, 9))
    ids[0, :3] = PAD
    given = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
    plain = answer(model, given)
    with pitome.patch(model, "divprune", keep=0.5), pitome.patch(model, "fastv", keep=0.5, layer=2):
        assert torch.equal(answer(model, given), plain)
