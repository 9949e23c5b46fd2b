"""Names, options, families and the configuration files that list them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import pytest
import torch
import yaml

from pitome.errors import UsageError
from pitome.merge import registry
from pitome.merge.registry import Guarantees, MethodOptions, register
from tests import ROOT
from tests.merge.support import FAMILIES

CONF = ROOT / "conf" / "merge"
NAMES = [
    "atc",
    "crossget",
    "crossget_repo",
    "dct",
    "dct_repo",
    "diffrate",
    "diffrate_repo",
    "evit",
    "mctf",
    "mctf_repo",
    "none",
    "pitome",
    "pitome_repo",
    "ppt",
    "random",
    "repshift",
    "stride",
    "tofu",
    "tofu_repo",
    "tome",
    "tome_repo",
]


def test_the_names():
    assert set(NAMES) <= set(registry.names())


@pytest.mark.parametrize("name", registry.names(None))
def test_the_configuration_file_lists_every_option_with_its_default(name):
    text = (CONF / f"{name}.yaml").read_text().replace("${seed}", "0")  # the run's own, 0 by default
    assert text.startswith("# ")
    content = yaml.safe_load(text)
    places = list(registry.get(name).places)
    assert content.pop("places", ["tower"]) == places
    assert content.pop("tasks", None) == (None if "tower" in places else ["vqa"])
    assert set(content) == {"name", "options"}
    assert content["name"] == name
    defaults = registry.get(name).options()
    expected = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(defaults)}
    assert content["options"] == expected
    assert {k: type(v) for k, v in content["options"].items()} == {k: type(v) for k, v in expected.items()}


def test_no_configuration_file_without_a_method():
    assert {path.stem for path in CONF.glob("*.yaml")} <= set(registry.names(None))


@pytest.mark.parametrize("name", registry.names(None))
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
    assert {"deit", "mae"} <= set(known) or name == "mctf_repo"  # on which the authors' patch fails
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
        ("pitome", {"protected": -1}, "not a whole number >= 0"),
        ("pitome", {"energy": "gaussian", "margin": 1.0}, "smaller margin"),
        ("pitome", {"energy": "gaussian", "margin": 0.5, "margin_slope": -0.5}, "smaller margin"),
        ("pitome_repo", {"split": "odd"}, "available: alternate, high_low"),
        ("tofu", {"prune_share": 1.5}, "outside"),
        ("random", {"seed": True}, "a whole number"),
        ("diffrate", {"merge_kept": "3,2"}, "a list of whole numbers"),
        ("diffrate", {"merge_kept": [3, 0]}, r"merge_kept\[1\]=0 is not a whole number >= 1"),
        ("diffrate", {"merge_kept": [3], "prune_kept": [3, 3]}, "one per layer"),
        ("diffrate", {"merge_kept": [4], "prune_kept": [3]}, "exceeds"),
        ("diffrate", {"merge_kept": [4], "schedule_file": "x.yaml"}, "not both"),
        ("diffrate_repo", {"prune_each": -1}, "not a whole number >= 0"),
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


@pytest.fixture
def own(monkeypatch):
    """Methods registered in a test are gone after it."""
    registry.names()
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


def plan_of_mine(tokens, remove, options):
    raise NotImplementedError


@dataclass(frozen=True)
class _Set(MethodOptions):
    steps: set[int] = frozenset()


@dataclass(frozen=True)
class _Tensor(MethodOptions):
    scale: torch.Tensor | None = None


@dataclass(frozen=True)
class _Numbers(MethodOptions):
    kind: Literal[1, 2] = 1


@dataclass(frozen=True)
class _Nested(MethodOptions):
    table: Sequence[Sequence[int]] = ()


@dataclass(frozen=True)
class _Required(MethodOptions):
    steps: int = field(kw_only=True)


@dataclass(frozen=True)
class _WrongDefault(MethodOptions):
    steps: int = 0.5


@dataclass(frozen=True)
class _Unreadable(MethodOptions):
    steps: NoSuchType = None  # noqa: F821


class _Undecorated(MethodOptions):
    steps: int = 1


@dataclass(frozen=True)
class _Stranger:
    steps: int = 1


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (_Set, r"option steps has type set\[int\]; use bool, int, float, str, Literal of texts, Sequence"),
        (_Tensor, "option scale has type torch.Tensor | None; use bool"),
        (_Numbers, "option kind has type typing.Literal"),
        (_Nested, "option table has type"),
        (_Required, "option steps has no default; give it one"),
        (_WrongDefault, "steps=0.5 is not a whole number"),
        (_Unreadable, "the types in _Unreadable cannot be read .NameError"),
        (_Undecorated, r"put @dataclass\(frozen=True\) above _Undecorated"),
        (_Stranger, "is not a class that extends MethodOptions"),
        ({"steps": 1}, "is not a class that extends MethodOptions"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_options_that_no_command_line_could_say_are_refused_at_once(options, says):
    with pytest.raises(UsageError, match=says) as error:
        register("mine", options=options)
    assert str(error.value).startswith("merge=mine: ") and "\n" not in str(error.value)
    assert "mine" not in registry.names()


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["", "my method", "my-method", "1st", "a.b", "a=b"])
def test_a_name_is_an_identifier(name):
    with pytest.raises(UsageError, match="cannot be named"):
        register(name)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("promise", ["keeps_protected_first", "identity_at_1"])
def test_a_bare_name_promises_the_basics(promise):
    with pytest.raises(UsageError, match="must guarantee keeps_protected_first and identity_at_1"):
        register("mine", guarantees=Guarantees(**{promise: False}))
    register("mine_repo", guarantees=Guarantees(**{promise: False}))(plan_of_mine)


@pytest.mark.usefixtures("own")
def test_a_taken_name_is_refused_and_a_cell_can_be_run_again():
    with pytest.raises(UsageError, match="'tome' is registered already; choose another name"):
        register("tome")(plan_of_mine)
    made = [{}, {}]
    for place in made:  # the same cell of a notebook, twice
        place["__name__"] = "notebook"
        exec("def mine(tokens, remove, options): ...", place)
        register("mine")(place["mine"])
    assert registry.get("mine").plan is made[1]["mine"]
    with pytest.raises(UsageError, match="registered already"):
        register("mine")(plan_of_mine)


def test_a_name_of_this_package_is_taken_before_the_package_is_loaded():
    code = "import pitome\ntry: pitome.register('tome')(lambda tokens, remove, options: None)\n"
    code += "except pitome.errors.UsageError as e: print(e)\nprint(pitome.methods())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("a merge method named 'tome' is registered already") and "'tome'" in shown
