"""Plans that cannot be carried out are refused at the first forward, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

import pitome
from pitome.errors import MethodError
from pitome.merge import registry
from pitome.merge.contract import check_plan
from pitome.merge.plan import Plan, Tokens
from pitome.merge.registry import Method
from tests.adapters.tiny import images, vit
from tests.merge.support import Variant, make_tokens, name_of, variants

N, REMOVE, PROTECTED = 9, 3, 2
TOKENS = make_tokens(N, protected=PROTECTED)
BROADCAST = torch.ones(2, 1)
Change = Callable[[Plan], Any]


def right(**changes: Any) -> Plan:
    """Tokens 2, 3 and 4 go into rows 2, 3 and 3."""
    plan = Plan(
        kept=torch.tensor([[0, 1, 5, 6, 7, 8]] * 2),
        source=torch.tensor([[2, 3, 4]] * 2),
        target=torch.tensor([[2, 3, 3]] * 2),
        weight=torch.ones(2, N),
        mass=torch.ones(2, N),
        scale=torch.ones(2, N - REMOVE),
    )
    return dataclasses.replace(plan, **changes)


def put(name: str, column: int, value: float) -> Change:
    """The plan with one entry of the second sample changed."""

    def change(plan: Plan) -> Plan:
        part = getattr(plan, name).clone()
        part[1, column] = value
        return dataclasses.replace(plan, **{name: part})

    return change


def let(**changes: Any) -> Change:
    return lambda plan: dataclasses.replace(plan, **changes)


def with_shape(name: str, *shape: int) -> Change:
    return let(**{name: torch.ones(shape)})


NAN, INFINITE = float("nan"), float("inf")
FORM: dict[str, tuple[Change, str]] = {
    "no plan": (lambda plan: plan.kept, "is a Tensor; return a pitome.Plan"),
    "nothing": (lambda plan: None, "is a NoneType"),
    "a list": (let(kept=[0, 1, 5]), "kept of type list"),
    "int32": (let(source=torch.tensor([[2, 3, 4]] * 2).int()), "source of type torch.int32"),
    "float index": (let(target=torch.ones(2, 3)), "target of type torch.float32"),
    "no batch": (let(kept=torch.arange(6)), "kept of shape [6]"),
    "another batch": (let(source=torch.ones(3, 3).long()), "source of shape [3, 3]"),
    "targets": (let(target=torch.tensor([[2, 3]] * 2)), "3 sources and 2 targets"),
    "a token lost": (let(kept=torch.tensor([[0, 1, 5, 6, 7]] * 2)), "5 kept tokens and 3 sources for 9"),
    "too few": (
        let(
            kept=torch.tensor([[0, 1, 2, 5, 6, 7, 8]] * 2),
            source=torch.tensor([[3, 4]] * 2),
            target=torch.tensor([[2, 3]] * 2),
        ),
        "removes 2 of 9 tokens; 3 were asked for",
    ),
    "weight rows": (with_shape("weight", 2, 6), "weight of shape [2, 6]; it must be [2, 9]"),
    "weight width": (with_shape("weight", 2, 9, 1), "weight of shape [2, 9, 1]"),
    "weight for all": (let(weight=BROADCAST), "weight of shape [2, 1]"),
    "mass rows": (with_shape("mass", 1, 9), "mass of shape [1, 9]"),
    "scale rows": (with_shape("scale", 2, 9), "scale of shape [2, 9]; it must be [2, 6]"),
    "weight number": (let(weight=1.0), "weight of type float"),
    "whole weight": (let(weight=torch.ones(2, 9).long()), "weight of type torch.int64"),
    "device": (let(mass=torch.ones(2, 9, device="meta")), "mass on another device than the tokens, cpu"),
}
VALUES: dict[str, tuple[Change, str]] = {
    "kept beyond": (put("kept", 5, 9), "a token outside 0 to 8"),
    "source below": (put("source", 0, -1), "a token outside 0 to 8"),
    "twice": (put("kept", 5, 7), "names a token twice"),
    "kept and source": (put("source", 0, 5), "names a token twice"),
    "target beyond": (put("target", 0, 6), "a target outside -1 (dropped) to 5"),
    "target below": (put("target", 0, -2), "a target outside -1"),
    "nan weight": (put("weight", 4, NAN), "a weight that is not finite"),
    "endless mass": (put("mass", 4, INFINITE), "a mass that is not finite"),
    "nan scale": (put("scale", 4, NAN), "a scale that is not finite"),
    "negative weight": (put("weight", 4, -1), "a negative weight"),
    "whole, but drops": (
        lambda plan: put("target", 1, -1)(let(whole=True)(plan)),
        "drops a token, although it says that it is whole",
    ),
    "whole without weight": (
        lambda plan: put("weight", 5, 0)(put("weight", 2, 0)(let(whole=True)(plan))),
        "a group of weight 0, although it says that it is whole",
    ),
    "protected goes": (
        lambda plan: put("source", 0, 1)(put("kept", 1, 2)(plan)),
        "removes a protected token (the first 2 must stay)",
    ),
    "protected moves": (
        lambda plan: put("kept", 0, 1)(put("kept", 1, 0)(plan)),
        "moves a protected token: the first 2 rows of kept must be 0 to 1",
    ),
    "into protected": (put("target", 2, 1), "merges a token into a protected one"),
    "protected without weight": (put("weight", 0, 0), "gives a protected token the weight 0"),
    "protected scaled": (put("scale", 1, 2), "scales a protected token"),
}


def test_a_right_plan_passes() -> None:
    assert check_plan(right(), TOKENS, REMOVE, "mine", True)
    assert check_plan(right(whole=True), TOKENS, REMOVE, "mine", True)
    assert check_plan(right(weight=None, mass=None, scale=None), TOKENS, REMOVE, "mine", True)
    assert check_plan(right(target=torch.full((2, 3), -1)), TOKENS, REMOVE, "mine", True)  # dropped


@pytest.mark.parametrize("case", [*FORM, *VALUES])
def test_what_is_refused(case: str) -> None:
    change, says = (FORM | VALUES)[case]
    with pytest.raises(MethodError) as error:
        check_plan(change(right()), TOKENS, REMOVE, "mine", True)
    assert str(error.value).startswith("merge=mine: in layer 0 its plan ") and says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", [case for case in VALUES if case.startswith("protected") or "into" in case])
def test_protected_tokens_are_the_affair_of_methods_that_promise_it(case: str) -> None:
    assert check_plan(VALUES[case][0](right()), TOKENS, REMOVE, "mine", False)


def test_a_count_per_sample_is_not_compared_with_the_plan() -> None:
    assert check_plan(right(), TOKENS, torch.tensor([1, 2]), "mine", True)


def test_features_that_are_not_finite_are_no_fault_of_the_method() -> None:
    broken = dataclasses.replace(TOKENS, x=torch.full_like(TOKENS.x, NAN))
    assert check_plan(put("scale", 4, NAN)(right()), broken, REMOVE, "mine", True)


def on_meta(value: Any) -> Any:
    tensors = {k: v.to("meta") for k, v in vars(value).items() if isinstance(v, torch.Tensor)}
    return dataclasses.replace(value, **tensors)


@pytest.mark.parametrize("case", ["no plan", "too few", "scale rows"])
def test_meta_tensors_have_shapes_but_no_values(case: str) -> None:
    tokens, plan = on_meta(TOKENS), on_meta(right())
    assert not check_plan(plan, tokens, REMOVE, "mine", True)
    with pytest.raises(MethodError):
        check_plan(FORM[case][0](right()), tokens, REMOVE, "mine", True)


@pytest.mark.parametrize("variant", variants(), ids=name_of)
def test_every_method_of_the_package_passes(variant: Variant) -> None:
    promise = variant.method.guarantees.keeps_protected_first
    protected = variant.protected(1)
    for layer in range(4):
        tokens = make_tokens(14, protected=protected, layer=layer, seed=layer)
        remove = variant.remove(14, protected, 0.7, layer)
        assert check_plan(variant.plan(tokens, remove), tokens, remove, variant.method.name, promise)


# In a model


def spoilt(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Plan, Tokens], Any]) -> list[int]:
    """Register `mine`: ToMe with spoilt plans. Returns the list of layers it was asked in."""
    tome, asked = registry.get("tome"), []

    def plan(tokens: Tokens, remove: int, options: Any) -> Any:
        asked.append(tokens.layer)
        return spoil(tome.plan(tokens, remove, options), tokens)

    method: Method = dataclasses.replace(tome, name="mine", plan=plan)
    monkeypatch.setitem(registry._METHODS, "mine", method)
    return asked


def test_the_first_forward_says_it_and_nothing_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spoilt(monkeypatch, lambda plan, tokens: put("target", 0, 0)(plan) if tokens.layer == 1 else plan)
    model = vit()
    x, unmerged = images(model), vit()(images(model))
    pitome.patch(model, "mine", ratio=0.75)
    with pytest.raises(MethodError, match="merge=mine: in layer 1 its plan merges a token into a protected"):
        model(x)
    assert asked == [0, 1]
    with pytest.raises(MethodError):  # and the second says it again
        model(x)
    pitome.remove(model)
    assert torch.equal(model(x), unmerged)


def test_each_layer_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(monkeypatch, lambda plan, tokens: plan)
    model = vit()
    handle = pitome.patch(model, "mine", ratio=0.75)
    looks: list[int] = []

    def look(plan: Any, tokens: Tokens, *rest: Any) -> bool:
        looks.append(tokens.layer)
        return check_plan(plan, tokens, *rest)

    monkeypatch.setattr("pitome.adapters.core.check_plan", look)
    for _ in range(2):
        model(images(model))
    assert looks == [0, 1, 2, 3]
    assert handle.state.checked == [True] * 4


def test_a_run_on_the_meta_device_leaves_the_look_at_values_to_the_next() -> None:
    model = vit()
    handle = pitome.patch(model, "tome", ratio=0.75)
    assert pitome.flops(model).share < 1
    twin = vit().to("meta")
    other = pitome.patch(twin, "tome", ratio=0.75)
    twin(images(model).to("meta"))
    assert handle.state.checked == other.state.checked == [False] * 4
