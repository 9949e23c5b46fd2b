"""What a merge method reads (`Tokens`) and what it decides (`Plan`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pitome.merge.fast_path import scatter_is_wrong


@dataclass(frozen=True)
class Tokens:
    """What one layer knows when it is about to merge.

    Shapes: `x` [B, N, C] features at the merge point; `metric` [B, N, D] what similarity is
    measured on (float32 or float64); `size` [B, N] how many input tokens each token stands for;
    `cls_attention` [B, N], only for methods that ask for it: the softmax of the class query
    against all keys (same bias as the attention), averaged over heads. So are these:
    `attention` [B, H, N, N], the whole map of the layer's attention; `values` [B, H, N, D], what that
    attention averages; `mlp` [B, N, C], what the layer's MLP added to x. The first `protected`
    tokens (class, distillation, registers) never move. `layer` runs 0..`depth`-1 over all blocks
    of the model.

    A batch of sentences of different lengths has `padding` [B, N], True at padding, which comes
    last in every sample and has size 0. The number to remove is then a tensor [B], one for every
    sample from its own length, and `rows` is the common length M of the plan: at least what every
    sample keeps, at most N less what any of them removes. Both are None where nothing is padding.
    """

    x: Tensor
    metric: Tensor
    size: Tensor
    protected: int
    layer: int
    depth: int
    padding: Tensor | None = None
    cls_attention: Tensor | None = None
    attention: Tensor | None = None
    values: Tensor | None = None
    mlp: Tensor | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Plan:
    """Where every token of one layer goes.

    kept    [B, M] long   the input token each output row starts from
    source  [B, K] long   the tokens that lose their row; kept and source partition 0..N-1
    target  [B, K] long   the output row each source joins, -1 where it is dropped
    weight  [B, N] float  weight of each token in its group's mean; None: plain mean; 0: ignored
    mass    [B, N] float  factor on the size a token passes on; None: 1
    scale   [B, M] float  factor on each output row, computed from the inputs; None: 1

    Padding: a sample's own rows come first, padding fills them up to M, and padding for which
    there is no row is a source with target -1. So K is the same for all samples, and every sample
    merges as if it were alone.
    """

    kept: Tensor
    source: Tensor
    target: Tensor
    weight: Tensor | None = None
    mass: Tensor | None = None
    scale: Tensor | None = None

    def replaced(
        self,
        *,
        target: Tensor | None = None,
        weight: Tensor | None = None,
        mass: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Plan:
        """The plan with other parts; `dataclasses.replace`, which older compilers of torch cannot follow."""
        return Plan(
            self.kept,
            self.source,
            self.target if target is None else target,
            self.weight if weight is None else weight,
            self.mass if mass is None else mass,
            self.scale if scale is None else scale,
        )

    @staticmethod
    def dense(matrix: Tensor, dtype: torch.dtype | None = None) -> DensePlan:
        """The second form of a plan, for methods that mix tokens without groups: see `DensePlan`."""
        return DensePlan(matrix, dtype)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """The plan as a matrix [B, M, N]: what `apply` multiplies features with."""
        tokens = torch.eye(self.n_in, dtype=dtype, device=self.kept.device)
        return self.apply(tokens.expand(len(self.kept), -1, -1))

    @property
    def n_in(self) -> int:
        return self.kept.shape[1] + self.source.shape[1]

    @property
    def n_out(self) -> int:
        return self.kept.shape[1]

    def apply(self, x: Tensor) -> Tensor:
        """Merge features `x` [B, N, C] into [B, M, C]: every group's weighted mean.

        A group without any weight (padding) keeps the features it starts from. Rows that nothing
        joins are copied and no more: the mean of the others is y + sum of w_i (x_i - y) / w, with y
        the token the row starts from, x_i its sources and w the weight of the group.
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        out = select(x, self.kept).to(dtype)
        if self.source.shape[1] > 0:
            weight = x.new_ones(x.shape[:2], dtype=dtype) if self.weight is None else self.weight.to(dtype)
            row = self.target.clamp_min(0)
            total = self.totals(weight).gather(1, row)
            share = weight.gather(1, self.source) / total.masked_fill(total == 0, 1)
            index, flat = _flat(row, out.shape[1]), out.flatten(0, 1)
            step = select(x, self.source).to(dtype) - flat.index_select(0, index).view(*row.shape, -1)
            # Not by a product with 0 alone: a dropped token may be infinite.
            step = (step * share[..., None]).masked_fill((self.target < 0)[..., None], 0)
            if scatter_is_wrong(x):
                out = out + torch.nn.functional.one_hot(row, out.shape[1]).to(dtype).mT @ step
            else:
                # In place: the rows are a copy already. One flat index_add is several times faster on a CPU
                # than scatter_add over [B, K, C].
                flat.index_add_(0, index, step.flatten(0, 1))
        if self.scale is not None:
            out = out * self.scale[..., None].to(dtype)
        return out.to(x.dtype)

    def sizes(self, size: Tensor) -> Tensor:
        """Sizes [B, N] -> [B, M]: each group's total; dropped tokens hand nothing on."""
        return self.totals(size if self.mass is None else size * self.mass.to(size.dtype))

    def totals(self, x: Tensor) -> Tensor:
        """Group totals of one number per token, `x` [B, N] -> [B, M]; dropped tokens do not count."""
        moved = x.gather(1, self.source).masked_fill(self.target < 0, 0)
        return x.gather(1, self.kept).scatter_add(1, self.target.clamp_min(0), moved)

    def trace(self, membership: Tensor) -> Tensor:
        """Rows of `membership` [B, N, S] (which source tokens each token holds) -> [B, M, S]."""
        out = select(membership, self.kept)
        moved = select(membership, self.source).masked_fill((self.target < 0)[..., None], 0)
        out.flatten(0, 1).index_add_(0, _flat(self.target.clamp_min(0), out.shape[1]), moved.flatten(0, 1))
        return out

    def assignment(self) -> Tensor:
        """The output row of every input token, [B, N] long; -1 where it is dropped."""
        rows = torch.arange(self.n_out, device=self.kept.device).expand_as(self.kept)
        out = self.kept.new_full((self.kept.shape[0], self.n_in), -1)
        return out.scatter(1, self.kept, rows).scatter(1, self.source, self.target)

    def unmerge(self, y: Tensor) -> Tensor:
        """Give every input token its group's row: [B, M, C] -> [B, N, C]; zeros where dropped."""
        rows = self.assignment()
        out = select(y, rows.clamp_min(0))
        return out.masked_fill((rows < 0)[..., None], 0)


@dataclass(frozen=True)
class DensePlan:
    """A plan as a matrix: every output row is a weighted sum of all tokens.

    It has no groups: each row counts as one token from here on (`sizes`), and holds every token that it
    has a weight for (`trace`), so that a token may be in several rows.
    """

    weights: Tensor  # [B, M, N], features are multiplied with it
    dtype: torch.dtype | None = (
        None  # what rows that mix tokens are rounded to, but in float64; None: nothing
    )

    @property
    def n_in(self) -> int:
        return self.weights.shape[2]

    @property
    def n_out(self) -> int:
        return self.weights.shape[1]

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """[B, M, N], as `Plan.matrix`."""
        return self.weights.to(dtype)

    def apply(self, x: Tensor) -> Tensor:
        """Features `x` [B, N, C] -> [B, M, C]."""
        wide = torch.promote_types(x.dtype, torch.float32)
        out = self.weights.to(wide) @ x.to(wide)
        if self.dtype is not None and wide != torch.float64:
            mixes = (self.weights != 0).sum(dim=-1, keepdim=True) > 1
            out = torch.where(mixes, out.to(self.dtype).to(wide), out)
        return out.to(x.dtype)

    def sizes(self, size: Tensor) -> Tensor:
        """Sizes [B, N] -> [B, M]: 1 for every row, 0 for one without any token (padding)."""
        return (self.weights != 0).any(dim=-1).to(size.dtype)

    def trace(self, membership: Tensor) -> Tensor:
        """`membership` [B, N, S] -> [B, M, S], of 0 and 1 (0 where weights are 0)."""
        return ((self.weights != 0).to(membership.dtype) @ membership).clamp_max(1)


AnyPlan = Plan | DensePlan


def keep_all(tokens: Tokens) -> Plan:
    """The plan that leaves every token where it is."""
    batch, n = tokens.x.shape[:2]
    kept = torch.arange(n, device=tokens.x.device).expand(batch, -1)
    return Plan(kept=kept, source=kept[:, :0], target=kept[:, :0])


def select(x: Tensor, index: Tensor) -> Tensor:
    """Select rows: `x` [B, N, C], `index` [B, K] -> [B, K, C].

    By a flat index: whole rows are copied, several times faster on a CPU than gather over [B, K, C].
    """
    return x.flatten(0, 1).index_select(0, _flat(index, x.shape[1])).view(*index.shape, x.shape[-1])


def _flat(index: Tensor, rows: int) -> Tensor:
    """Positions `index` [B, K] in batches of `rows` rows as positions in all of them: [B * K]."""
    offset = torch.arange(index.shape[0], device=index.device)[:, None] * rows
    return (index + offset).flatten()


def rank(scores: Tensor) -> Tensor:
    """Positions by descending score along the last axis; ties keep their order."""
    if torch.onnx.is_in_onnx_export():  # ONNX has no stable sort
        return scores.topk(scores.shape[-1], dim=-1).indices
    return scores.argsort(dim=-1, descending=True, stable=True)


def cosine(metric: Tensor) -> Tensor:
    """Unit rows of `metric` [B, N, D], so that a product is a cosine; a zero row stays zero."""
    return torch.nn.functional.normalize(metric, dim=-1)
