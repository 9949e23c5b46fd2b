"""Whether the plan of a merge method can be carried out, and does what was asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from pitome.errors import MethodError
from pitome.merge.plan import DensePlan, Plan, Tokens

_INDICES = ("kept", "source", "target")


@torch.no_grad()  # or gradient checkpointing would find other tensors in the second run of a layer
def check_plan(
    plan: object, tokens: Tokens, remove: int | Tensor, method: str, keeps_protected_first: bool
) -> bool:
    """Raise MethodError, one line that names `method`, for a plan that cannot be right.

    The plan is for `tokens` (x [B, N, C]) with `remove` of them to go; a tensor [B] where padding
    gives every sample a count of its own (then only the indices are compared with N). Shapes and
    types are checked everywhere, values not on the meta device. Returns whether values were.
    """
    if isinstance(plan, DensePlan):
        problem = _matrix(plan.weights, tokens, remove, keeps_protected_first)
    else:
        problem = _form(plan, tokens, remove)
        if problem is None and tokens.x.device.type != "meta":
            assert isinstance(plan, Plan)
            problem = _values(plan, tokens, keeps_protected_first)
    if problem is not None:
        raise MethodError(f"merge={method}: in layer {tokens.layer} its plan {problem}")
    return tokens.x.device.type != "meta"


def _form(plan: object, tokens: Tokens, remove: int | Tensor) -> str | None:
    """What is wrong with shapes, types and devices."""
    if not isinstance(plan, Plan):
        return f"is a {type(plan).__name__}; return a pitome.Plan"
    batch, n = tokens.x.shape[:2]
    for name in _INDICES:
        index = getattr(plan, name)
        if not isinstance(index, Tensor) or index.dtype != torch.long:
            found = index.dtype if isinstance(index, Tensor) else type(index).__name__
            return f"has {name} of type {found}; give a tensor of torch.int64"
        if index.ndim != 2 or index.shape[0] != batch:
            return (
                f"has {name} of shape {list(index.shape)}; its first dimension of two is the batch, {batch}"
            )
    if plan.target.shape != plan.source.shape:
        return f"has {plan.source.shape[1]} sources and {plan.target.shape[1]} targets; give one for each"
    if plan.n_in != n:
        return f"has {plan.n_out} kept tokens and {plan.source.shape[1]} sources for {n} tokens"
    if isinstance(remove, int) and plan.n_out != n - remove:
        return f"removes {n - plan.n_out} of {n} tokens; {remove} were asked for"
    for name, rows in (("weight", n), ("mass", n), ("scale", plan.n_out)):
        factor = getattr(plan, name)
        if factor is None:
            continue
        if not isinstance(factor, Tensor) or not factor.is_floating_point():
            found = factor.dtype if isinstance(factor, Tensor) else type(factor).__name__
            return f"has {name} of type {found}; give a floating point tensor or None"
        if factor.shape != (batch, rows):
            return f"has {name} of shape {list(factor.shape)}; it must be {[batch, rows]}"
    wrong = [
        name
        for name in (*_INDICES, "weight", "mass", "scale")
        if (part := getattr(plan, name)) is not None and part.device != tokens.x.device
    ]
    return f"has {wrong[0]} on another device than the tokens, {tokens.x.device}" if wrong else None


def _matrix(weights: Tensor, tokens: Tokens, remove: int | Tensor, keeps_protected_first: bool) -> str | None:
    """What is wrong with a plan that is a matrix."""
    batch, n = tokens.x.shape[:2]
    if not isinstance(weights, Tensor) or not weights.is_floating_point() or weights.ndim != 3:
        return "is a matrix of another form; give a floating point tensor [B, M, N]"
    if weights.shape[0] != batch or weights.shape[2] != n:
        return f"is a matrix of shape {list(weights.shape)} for {batch} x {n} tokens"
    if isinstance(remove, int) and weights.shape[1] != n - remove:
        return f"removes {n - weights.shape[1]} of {n} tokens; {remove} were asked for"
    if weights.device != tokens.x.device:
        return f"has its matrix on another device than the tokens, {tokens.x.device}"
    if weights.device.type == "meta":
        return None
    if not weights.isfinite().all() and tokens.x.isfinite().all():
        return "has a weight that is not finite"
    p = tokens.protected
    if keeps_protected_first and (weights[:, :p] != torch.eye(p, n, device=weights.device)).any():
        return f"changes a protected token: the first {p} rows must be these tokens as they are"
    return None


def _values(plan: Plan, tokens: Tokens, keeps_protected_first: bool) -> str | None:
    """What is wrong with indices and factors."""
    n, p = tokens.x.shape[1], tokens.protected
    everything = torch.cat([plan.kept, plan.source], dim=1)
    if ((everything < 0) | (everything >= n)).any():
        return f"names a token outside 0 to {n - 1}"
    if (everything.sort(dim=1).values != torch.arange(n, device=everything.device)).any():
        return "names a token twice in kept and source together; name each one once"
    if ((plan.target < -1) | (plan.target >= plan.n_out)).any():
        return f"has a target outside -1 (dropped) to {plan.n_out - 1}, the last output row"
    for name in ("weight", "mass", "scale"):
        factor = getattr(plan, name)
        # Features that are not finite are no fault of the method.
        if factor is not None and not factor.isfinite().all() and tokens.x.isfinite().all():
            return f"has a {name} that is not finite"
    if plan.weight is not None and (plan.weight < 0).any():
        return "has a negative weight"
    if plan.whole and (plan.target < 0).any():
        return "drops a token, although it says that it is whole"
    if plan.whole and plan.weight is not None and (plan.totals(plan.weight) == 0).any():
        return "has a group of weight 0, although it says that it is whole"
    return _protected(plan, p) if keeps_protected_first and p > 0 else None


def _protected(plan: Plan, p: int) -> str | None:
    """What happens to the first `p` tokens, which are to stay as they are."""
    first = torch.arange(p, device=plan.kept.device)
    if (plan.source < p).any():
        return f"removes a protected token (the first {p} must stay)"
    if (plan.kept[:, :p] != first).any():
        return f"moves a protected token: the first {p} rows of kept must be 0 to {p - 1}"
    if ((plan.target >= 0) & (plan.target < p)).any():
        return f"merges a token into a protected one (the first {p})"
    if plan.weight is not None and (plan.weight[:, :p] == 0).any():
        return "gives a protected token the weight 0"
    if plan.scale is not None and (plan.scale[:, :p] != 1).any():
        return "scales a protected token"
    return None
