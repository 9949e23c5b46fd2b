"""Every merge step of the golden vectors, recorded by running the authors' code.

Not among them: `tome_r-09` (a distillation token without a class token, which no model has and a
count of leading tokens cannot say) and `tome_kth` (a function of facebookresearch/ToMe that no
method uses).
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pitome.merge import registry
from pitome.merge.energy import energy
from pitome.merge.methods.dct import low_pass
from pitome.merge.methods.pitome import PitomeOptions, energy_plan
from pitome.merge.methods.tofu import TofuRepoOptions
from pitome.merge.methods.tome import TomeRepoOptions
from pitome.merge.plan import Plan, Tokens, cosine, rank
from tests import GOLDEN
from tests.merge.test_dct import cosine_basis

CASES = json.loads((GOLDEN / "function.json").read_text())["cases"]


def cases(*groups: str) -> pytest.MarkDecorator:
    chosen = [case for case in CASES if case["group"] in groups]
    assert chosen
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case["name"])


def check(case: dict[str, Any], name: str, got: Tensor, want: Tensor) -> None:
    """Within the case's own tolerance; integers exactly."""
    assert got.shape == want.shape, name
    exact = not want.is_floating_point() or name == "out_source"
    tolerance = {"atol": 0.0, "rtol": 0.0} if exact else case["tolerance"]
    torch.testing.assert_close(got.to(want.dtype), want, **tolerance, msg=lambda text: f"{name}: {text}")


def load(case: dict[str, Any], **changes: Any) -> tuple[dict[str, Tensor], Tokens, int]:
    """Tensors of a case, its tokens and the number to remove."""
    data, params = load_file(GOLDEN / case["file"]), case["params"]
    x = data["x"]
    values: dict[str, Any] = {
        "x": x,
        "metric": data.get("metric", x),
        "size": data["size"][..., 0] if "size" in data else torch.ones(x.shape[:2]),
        "protected": int(params.get("class_token", True)) + int(params.get("distill_token", False)),
        "layer": 0,
        "depth": 1,
    }
    return data, Tokens(**(values | changes)), x.shape[1] - case["tokens_out"]


def check_plan(case: dict[str, Any], plan: Plan, data: dict[str, Tensor], size: Tensor) -> None:
    """Token order, sizes, sources and what merged masks, means and dropped sources come to."""
    x = data["x"]
    everything = torch.eye(x.shape[1]).expand(x.shape[0], -1, -1)
    check(case, "out_source", plan.trace(everything), data["out_source"])
    if "out_size" in data:
        check(case, "out_size", plan.sizes(size)[..., None], data["out_size"])
    plain = Plan(plan.kept, plan.source, plan.target)
    if "out_mean" in data:
        check(case, "out_mean", plain.apply(x), data["out_mean"])
    if "out_prune" in data:
        pruned = Plan(plan.kept, plan.source, torch.full_like(plan.target, -1))
        check(case, "out_prune", pruned.apply(x), data["out_prune"])
    if "out_mask" in data:
        mask = plan.trace(data["mask"][..., None].float())[..., 0] > 0
        check(case, "out_mask", mask, data["out_mask"])


def check_energy(
    case: dict[str, Any], options: PitomeOptions, data: dict[str, Tensor], tokens: Tokens
) -> None:
    unit = cosine(tokens.metric[:, tokens.protected :])
    got = energy(unit @ unit.mT, options.energy, options.margin, options.alpha)
    check(case, "energy", got, data["energy"])
    check(case, "order", rank(got), data["order"])


@cases("pitome_vision", "pitome_vision_bsm")
def test_pitome_vision(case):
    data, tokens, remove = load(case)
    params = case["params"]
    options = PitomeOptions(
        energy="elu",
        alpha=params["alpha"],
        margin=params["margin"],
        protect="none" if params["use_bsm_pitome"] else "all",
    )
    plan = energy_plan(tokens, remove, options)
    check(case, "out_x", plan.apply(tokens.x), data["out_x"])
    check_plan(case, plan, data, tokens.size)
    check_energy(case, options, data, tokens)
    # The registered preset decides the same; where nothing is to be removed it does not reorder.
    preset = registry.get("pitome_repo")
    values = {"margin": params["margin"], "alpha": params["alpha"], "protect": options.protect}
    filled = preset.resolve(preset.build_options(values), "deit", 1)
    again = preset.plan(tokens, remove, filled)
    if remove:
        check(case, "out_x", again.apply(tokens.x), data["out_x"])
    else:
        assert torch.equal(again.apply(tokens.x), tokens.x)


@cases("pitome_vision_chain")
def test_two_layers_hand_on_sizes_and_sources(case):
    data, tokens, _ = load(case)
    x, size, params = tokens.x, tokens.size, case["params"]
    membership = torch.eye(x.shape[1]).expand(x.shape[0], -1, -1)
    for layer, metric in enumerate((data["metric"], data["metric2"])):
        options = PitomeOptions(
            energy="elu",
            margin=params["margins"][layer],
            margin_slope=0.0,
            protect="none" if params["use_bsm_pitome"][layer] else "all",
        )
        remove = registry.get("pitome").count(x.shape[1], 1, params["ratio"], layer)
        plan = energy_plan(Tokens(x, metric, size, 1, layer, 2), remove, options)
        x, size, membership = plan.apply(x), plan.sizes(size), plan.trace(membership)
    check(case, "out_x", x, data["out_x"])
    check(case, "out_size", size[..., None], data["out_size"])
    check(case, "out_source", membership, data["out_source"])


@cases("pitome_text")
def test_pitome_text(case):
    data, tokens, remove = load(case)
    options = PitomeOptions(energy="gaussian", split="high_low", margin=case["params"]["margin"])
    plan = registry.get("pitome").plan(tokens, remove, options)
    check(case, "out_x", plan.apply(tokens.x), data["out_x"])
    check_plan(case, plan, data, tokens.size)
    check_energy(case, options, data, tokens)


@cases("pitome_vision_usebsm", "tome_ratio")
def test_tome_of_the_repository(case):
    data, tokens, remove = load(case)
    method = registry.get("tome_repo")
    assert method.count(tokens.x.shape[1], tokens.protected, case["params"]["ratio"], 0) == remove
    plan = method.plan(tokens, remove, TomeRepoOptions(weighted=True))
    check(case, "out_x", plan.apply(tokens.x), data["out_x"])
    check_plan(case, plan, data, tokens.size)
    if "out_unmerged" in data:
        check(case, "out_unmerged", plan.unmerge(data["out_x"]), data["out_unmerged"])


@cases("tome_r")
def test_tome(case):
    data, tokens, remove = load(case)
    method, params = registry.get("tome"), case["params"]
    assert min(params["r"], method.limit(tokens.x.shape[1], tokens.protected)) == remove
    plan = method.plan(tokens, remove, method.options())
    check(case, "out_x", plan.apply(tokens.x), data["out_x"])
    check_plan(case, plan, data, tokens.size)
    if not params["distill_token"]:  # there the authors' unmerge returns other tokens' values
        check(case, "out_unmerged", plan.unmerge(data["out_x"]), data["out_unmerged"])


@cases("tofu")
def test_tofu_of_the_repository(case):
    data, tokens, remove = load(case)
    method = registry.get("tofu_repo")
    assert method.count(tokens.x.shape[1], tokens.protected, case["params"]["ratio"], 0) == remove
    for want, layers, fuse in (
        ("tofu", 0, "tofu"),
        ("mean", 0, "mean"),
        ("prune", 1, "tofu"),
        ("sum", 1, "mean"),
    ):
        plan = method.plan(tokens, remove, TofuRepoOptions(prune_layers=layers, fuse=fuse))
        check(case, f"out_{want}", plan.apply(tokens.x), data[f"out_{want}"])
        check_plan(case, plan, data, tokens.size)
        assert torch.equal(plan.sizes(tokens.size), torch.ones(plan.kept.shape))


@cases("crossget")
def test_crossget_of_the_repository(case):
    data, tokens, remove = load(case)
    method = registry.get("crossget_repo")
    assert method.count(tokens.x.shape[1], tokens.protected, case["params"]["ratio"], 0) == remove
    plan = method.plan(tokens, remove, method.options())
    check(case, "out_x", plan.apply(tokens.x), data["out_x"])
    check_plan(case, plan, data, tokens.size)
    assert torch.equal(plan.sizes(torch.ones_like(tokens.size)), torch.ones(plan.kept.shape))


@cases("mctf")
def test_mctf_of_the_repository(case):
    """The attention that they merge with the tokens is used nowhere in their models, and is not built."""
    data, tokens, remove = load(case)
    method, params = registry.get("mctf_repo"), case["params"]
    assert method.count(tokens.x.shape[1], tokens.protected, params["ratio"], 0) == remove
    options = method.build_options(
        {
            "t_sim": params["tau_sim"],
            "t_info": params["tau_info"] if params["attn_in_matching"] else 0,
            "t_size": params["tau_size"],
            "bidirectional": bool(params["bidirection"]),
        }
    )
    plan = method.plan(replace(tokens, attention=data["attn"]), remove, options)
    check(case, "out_x", plan.apply(tokens.x), data["out_x"])
    check_plan(case, plan, data, tokens.size)


@cases("dct")
def test_dct_of_the_repository(case):
    data, tokens, remove = load(case)
    method = registry.get("dct_repo")
    assert method.count(tokens.x.shape[1], tokens.protected, case["params"]["ratio"], 0) == remove
    out = method.plan(tokens, remove, method.options()).apply(tokens.x)
    check(case, "out_dct", out, data["out_dct"].float())
    assert torch.equal(out[:, : tokens.protected], tokens.x[:, : tokens.protected])  # not rounded
    if remove:
        rest = out[:, tokens.protected :]
        assert torch.equal(rest, rest.half().float())


@cases("dct_kernel")
def test_dct_kernel(case):
    """Forth and back are the recorded ones, and the matrix of a plan is their product."""
    data = load_file(GOLDEN / case["file"])
    n = data["x"].shape[1]
    basis = cosine_basis(n).float()
    check(case, "dct", data["x"] @ basis.T, data["dct"])
    check(case, "idct", data["x"] @ basis, data["idct"])
    for left in (n, n // 2, 1):
        want = cosine_basis(left).T @ cosine_basis(n)[:left]
        torch.testing.assert_close(low_pass(n, left, torch.device("cpu")), want, atol=1e-12, rtol=0)


@cases("diffrate_merge")
def test_diffrate_merge(case):
    x = load_file(GOLDEN / case["file"])["x"]
    by_position = torch.arange(x.shape[1], 0, -1.0).expand(x.shape[:2])
    data, tokens, remove = load(case, cls_attention=by_position)
    plan = registry.get("diffrate").plan(tokens, remove, registry.get("diffrate").options())
    check(case, "out_mean", plan.apply(x), data["out_mean"])
    check(case, "out_sum", plan.trace(x), data["out_sum"])
    check_plan(case, plan, data, tokens.size)
    # The similarities of these inputs may be negative: the preset keeps them, the bare name does not.
    preset = registry.get("diffrate_repo")
    options = preset.resolve(preset.build_options({"merge_kept": [case["tokens_out"]]}), "deit", 1)
    repo = preset.plan(tokens, remove, options)
    order = repo.source.argsort(dim=1)
    check(case, "node_max", repo.mass.gather(1, repo.source).gather(1, order), data["node_max"])
    check(case, "node_max", plan.mass.gather(1, plan.source).gather(1, order), data["node_max"].clamp_min(0))
    assert (repo.mass.gather(1, repo.kept) == 1).all()


@cases("diffrate_block")
def test_diffrate_block(case):
    attention = load_file(GOLDEN / case["file"])["attn"].mean(dim=1)[:, 0]
    data, tokens, remove = load(case, cls_attention=attention)
    params = case["params"]
    for name in ("diffrate", "diffrate_repo"):
        method = registry.get(name)
        values = {
            "prune_kept": [params["prune_kept_number"]],
            "merge_kept": [params["merge_kept_number"]],
        }
        options = method.resolve(method.build_options(values), "deit", 1)
        assert list(method.kept(options)) == values["merge_kept"]
        plan = method.plan(tokens, remove, options)
        check(case, "out_x", plan.apply(tokens.x), data["out_x"])
        check_plan(case, plan, data, tokens.size)
        ranking = torch.cat([plan.kept, plan.source], dim=1)
        check(case, "idx", ranking, data["idx"])
        check(
            case,
            "out_ranked",
            Plan(ranking, ranking[:, :0], ranking[:, :0]).apply(tokens.x),
            data["out_ranked"],
        )
