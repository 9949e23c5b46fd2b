"""Names, options, families and the configuration files that list them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import yaml

from pitome.errors import UsageError
from pitome.merge import registry
from pitome.merge.registry import MethodOptions, register
from tests.merge.support import FAMILIES

CONF = Path(__file__).parents[2] / "conf" / "merge"
NAMES = [
    "diffrate",
    "diffrate_repo",
    "none",
    "pitome",
    "pitome_repo",
    "random",
    "stride",
    "tofu",
    "tofu_repo",
    "tome",
    "tome_repo",
]


def test_the_names():
    assert set(NAMES) <= set(registry.names())


@pytest.mark.parametrize("name", registry.names())
def test_the_configuration_file_lists_every_option_with_its_default(name):
    text = (CONF / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    content = yaml.safe_load(text)
    assert set(content) == {"name", "options"}
    assert content["name"] == name
    defaults = registry.get(name).options()
    expected = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(defaults)}
    assert content["options"] == expected
    assert {k: type(v) for k, v in content["options"].items()} == {k: type(v) for k, v in expected.items()}


def test_no_configuration_file_without_a_method():
    assert {path.stem for path in CONF.glob("*.yaml")} <= set(registry.names())


@pytest.mark.parametrize("name", registry.names())
def test_every_option_is_documented(name):
    options = registry.get(name).options
    own = [field.name for field in dataclasses.fields(options)]
    text = " ".join(cls.__doc__ or "" for cls in options.__mro__ if dataclasses.is_dataclass(cls))
    assert [field for field in own if field not in text] == []
    assert registry.get(name).source


@pytest.mark.parametrize("name", [n for n in registry.names() if n.endswith("_repo")])
def test_a_preset_is_filled_for_its_families_and_refuses_others(name):
    method, known = registry.get(name), []
    for family in FAMILIES:
        try:
            options = method.resolve(method.options(), family, 12)
        except UsageError as error:
            assert f"family={family}" in str(error)
            continue
        known.append(family)
        lists = {"prune_kept", "merge_kept", "schedule_file"}
        unset = {f.name for f in dataclasses.fields(options) if getattr(options, f.name) is None}
        assert unset <= lists
    assert {"deit", "mae"} <= set(known)
    with pytest.raises(UsageError, match=", ".join(known)):
        method.resolve(method.options(), "resnet", 12)


def test_what_the_user_sets_stands_above_the_family():
    method = registry.get("pitome_repo")
    options = method.resolve(method.build_options({"margin": 0.3, "prop_attn": True}), "deit", 12)
    assert (options.margin, options.margin_slope, options.prop_attn) == (0.3, 0.75, True)


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("pitome", {"margn": 0.5}, "did you mean margin"),
        ("pitome", {"energy": "elo"}, "did you mean elu"),
        ("pitome", {"energy": None}, "available: elu, gaussian, paper"),
        ("pitome", {"metric": 3}, "available: hidden, keys"),
        ("pitome", {"alpha": "much"}, "a number"),
        ("pitome", {"alpha": float("nan")}, "a number"),
        ("pitome", {"weighted": 1}, "true or false"),
        ("pitome", {"protected": 1.5}, "a whole number"),
        ("pitome", {"protected": -1}, "negative"),
        ("pitome", {"energy": "gaussian", "margin": 1.0}, "smaller margin"),
        ("pitome", {"energy": "gaussian", "margin": 0.5, "margin_slope": -0.5}, "smaller margin"),
        ("pitome_repo", {"split": "odd"}, "available: alternate, high_low"),
        ("tofu", {"prune_share": 1.5}, "outside"),
        ("random", {"seed": True}, "a whole number"),
        ("diffrate", {"merge_kept": "3,2"}, "a list of whole numbers"),
        ("diffrate", {"merge_kept": [3, 0]}, "above 0"),
        ("diffrate", {"merge_kept": [3], "prune_kept": [3, 3]}, "one per layer"),
        ("diffrate", {"merge_kept": [4], "prune_kept": [3]}, "exceeds"),
        ("diffrate", {"merge_kept": [4], "schedule_file": "x.yaml"}, "not both"),
        ("diffrate_repo", {"prune_each": -1}, "negative"),
    ],
)
def test_options_that_cannot_be_used(name, values, says):
    with pytest.raises(UsageError, match=says) as error:
        registry.get(name).build_options(values)
    assert str(error.value).startswith(f"merge={name}")
    assert "\n" not in str(error.value)


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean pitome"):
        registry.get("pitom")


@dataclass(frozen=True)
class _Mine(MethodOptions):
    speed: Literal["slow", "fast"] | None = None
    steps: Sequence[int] = (1,)
    share: float = 1
    word: str = ""


def test_a_method_of_ones_own(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

    def plan(tokens, remove, options):
        raise NotImplementedError

    register("mine", options=_Mine)(plan)
    register("mine", options=_Mine)(plan)  # a module that is imported twice
    assert registry.get("mine").plan is plan
    values = {"speed": "fast", "steps": [2, 3], "share": 2, "word": "a"}
    assert registry.get("mine").build_options(values) == _Mine(**values)
    for wrong in ({"speed": "quick"}, {"steps": [1.5]}, {"steps": 1}, {"share": "1"}, {"word": 1}):
        with pytest.raises(UsageError):
            registry.get("mine").build_options(wrong)
    with pytest.raises(UsageError, match="registered already"):
        register("mine")(lambda tokens, remove, options: None)
