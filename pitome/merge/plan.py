"""What a merge method reads (`Tokens`) and what it decides (`Plan`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pitome.merge import native
from pitome.merge.fast_path import is_eager, made_once, scatter_is_wrong


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
    of the model; `depth` 0: not in a layer, but after an image tower.

    A batch of sentences of different lengths has `padding` [B, N], True at padding, which comes
    last in every sample and has size 0. The number to remove is then a tensor [B], one for every
    sample from its own length, and `rows` is the common length M of the plan: at least what every
    sample keeps, at most N less what any of them removes. Both are None where nothing is padding.

    After the image tower of a vision-language model, N is the number of an image's tokens as the language
    model reads them (of all images of a prompt, inside the language model), and these are there for methods
    that ask for them: `received` [B, N], the attention each token gets: from the tower's class token, or, in
    a tower without one, from all its tokens, or inside the language model from the prompt's last token, mean
    over heads; `keys` [B, N, D], heads side by side; `text` [B, S, C], features of the prompt's text, and
    `text_keys` [B, S, D]; `grid`, rows and columns of an image whose tokens form a grid.
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
    received: Tensor | None = None
    keys: Tensor | None = None
    text: Tensor | None = None
    text_keys: Tensor | None = None
    grid: tuple[int, int] | None = None
    native: bool = False  # whether the compiled kernel may decide (`pitome.merge.native.fits`)


@dataclass(frozen=True)
class Plan:
    """Where every token of one layer goes.

    kept    [B, M] long   the input token each output row starts from
    source  [B, K] long   the tokens that lose their row; kept and source partition 0..N-1
    target  [B, K] long   the output row each source joins, -1 where it is dropped
    weight  [B, N] float  weight of each token in its group's mean; None: plain mean; 0: ignored
    mass    [B, N] float  factor on the size a token passes on; None: 1
    scale   [B, M] float  factor on each output row, computed from the inputs; None: 1
    whole   whether no target is -1 and every group weighs more than 0, so that neither is looked for

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
    whole: bool = False

    def replaced(
        self,
        *,
        target: Tensor | None = None,
        weight: Tensor | None = None,
        mass: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Plan:
        """The plan with other parts; `dataclasses.replace`, which older compilers of torch cannot follow.
        It stays `whole` with the targets and weights that it has."""
        return Plan(
            self.kept,
            self.source,
            self.target if target is None else target,
            self.weight if weight is None else weight,
            self.mass if mass is None else mass,
            self.scale if scale is None else scale,
            self.whole and target is None and weight is None,
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
        weight = (
            ones(x.shape[0], self.n_in, dtype, x.device) if self.weight is None else cast(self.weight, dtype)
        )
        return self._mean(x, dtype, *self._totals(weight))

    def sizes(self, size: Tensor) -> Tensor:
        """Sizes [B, N] -> [B, M]: each group's total; dropped tokens hand nothing on."""
        return self.totals(size if self.mass is None else size * self.mass.to(size.dtype))

    def carry_out(self, x: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """`apply(x)` and `sizes(size)`, in one where the weights are the sizes."""
        if native.fits(x):
            passed = size if self.mass is None else size * self.mass.to(size.dtype)
            done = native.carry_out(x, passed, (self.kept, self.source, self.target), self.weight, self.scale)
            if done is not None:
                return done
        dtype = torch.promote_types(x.dtype, torch.float32)
        if self.weight is not size or self.mass is not None or size.dtype != dtype:
            return self.apply(x), self.sizes(size)
        moved, total = self._totals(size)
        return self._mean(x, dtype, moved, total), total

    def totals(self, x: Tensor) -> Tensor:
        """Group totals of one number per token, `x` [B, N] -> [B, M]; dropped tokens do not count."""
        return self._totals(x)[1]

    def _totals(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What each source brings, [B, K], and `totals`."""
        moved = x.gather(1, self.source)
        if not self.whole:
            moved = moved.masked_fill(self.target < 0, 0)
        return moved, x.gather(1, self.kept).scatter_add_(1, self._rows(), moved)

    def _rows(self) -> Tensor:
        """`target`, 0 where it is -1."""
        return self.target if self.whole else self.target.clamp_min(0)

    def _mean(self, x: Tensor, dtype: torch.dtype, moved: Tensor, total: Tensor) -> Tensor:
        """`apply`, computed in `dtype`, with the weights of sources [B, K] and groups [B, M]."""
        tokens = x.flatten(0, 1)
        out = cast(tokens.index_select(0, _flat(self.kept, self.n_in)), dtype)
        if self.source.shape[1] > 0:
            row = self._rows()
            total = total.gather(1, row)
            share = moved / (total if self.whole else total.masked_fill(total == 0, 1))
            index = _flat(row, self.n_out)
            # In place, here and below: all of them are copies already.
            step = cast(tokens.index_select(0, _flat(self.source, self.n_in)), dtype)
            step = step.sub_(out.index_select(0, index)).mul_(share.view(-1, 1))
            if not self.whole:  # not by a product with 0 alone: a dropped token may be infinite
                step = step.masked_fill_((self.target < 0).view(-1, 1), 0)
            if scatter_is_wrong(x):
                each = torch.nn.functional.one_hot(row, self.n_out).to(dtype).mT
                out = out + (each @ step.view(*row.shape, -1)).flatten(0, 1)
            else:
                # One flat index_add is several times faster on a CPU than scatter_add over [B, K, C].
                out = out.index_add_(0, index, step)
        out = out.view(*self.kept.shape, x.shape[2])
        if self.scale is not None:
            out = out * self.scale[..., None].to(dtype)
        return cast(out, x.dtype)

    def trace(self, membership: Tensor) -> Tensor:
        """Rows of `membership` [B, N, S] (which source tokens each token holds) -> [B, M, S]."""
        out = select(membership, self.kept)
        moved = select(membership, self.source).masked_fill((self.target < 0)[..., None], 0)
        out.flatten(0, 1).index_add_(0, _flat(self.target.clamp_min(0), out.shape[1]), moved.flatten(0, 1))
        return out

    def assignment(self) -> Tensor:
        """The output row of every input token, [B, N] long; -1 where it is dropped."""
        return Move(None, self.kept, self.source, self.target).assignment()

    def unmerge(self, y: Tensor) -> Tensor:
        """Give every input token its group's row: [B, M, C] -> [B, N, C]; zeros where dropped."""
        return unmerge(y, self.assignment())


class Move(NamedTuple):
    """Where the tokens of one layer went: `order` [B, N], the layer's tokens before that, None: as they were;
    kept [B, M], source and target [B, K] of its plan, of tokens in that order."""

    order: Tensor | None
    kept: Tensor
    source: Tensor
    target: Tensor

    def assignment(self) -> Tensor:
        """The output row of every token, [B, N] long; -1 where it is dropped."""
        batch, rows = self.kept.shape
        out = self.kept.new_full((batch, rows + self.source.shape[1]), -1)
        out = out.scatter(1, self.kept, positions(batch, 0, rows, 1, self.kept.device))
        out = out.scatter(1, self.source, self.target)
        return out if self.order is None else out.scatter(1, self.order, out)


def rows_of(moves: Sequence[Move]) -> Tensor | None:
    """The row of every token after several layers, [B, N] long, -1 where it was dropped in one of them; None:
    nothing moved."""
    rows: Tensor | None = None
    for move in moves:
        step = move.assignment()
        rows = step if rows is None else step.gather(1, rows.clamp_min(0)).masked_fill(rows < 0, -1)
    return rows


def firsts_of(moves: Sequence[Move]) -> Tensor | None:
    """The token that every row after several layers starts from, [B, M] long; None: nothing moved."""
    firsts: Tensor | None = None
    for move in moves:
        kept = move.kept if move.order is None else move.order.gather(1, move.kept)
        firsts = kept if firsts is None else firsts.gather(1, kept)
    return firsts


def unmerge(x: Tensor, rows: Tensor) -> Tensor:
    """Every token's row of `x` [B, M, C], by `rows` [B, N]: [B, N, C]; zeros where dropped."""
    return select(x, rows.clamp_min(0)).masked_fill((rows < 0)[..., None], 0)


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
    kept: Tensor | None = None  # [B, M], the token whose place each row takes; None: that of most weight

    @property
    def n_in(self) -> int:
        return self.weights.shape[2]

    @property
    def n_out(self) -> int:
        return self.weights.shape[1]

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """[B, M, N], as `Plan.matrix`."""
        return self.weights.to(dtype)

    def carry_out(self, x: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """`apply(x)` and `sizes(size)`."""
        return self.apply(x), self.sizes(size)

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


def keep_rows(kept: Tensor, n: int) -> Plan:
    """The plan that keeps the tokens `kept` [B, M] of `n`, in the order of the sequence, and no others."""
    kept = kept.sort(dim=-1).values
    mask = torch.ones(kept.shape[0], n, dtype=torch.bool, device=kept.device).scatter(1, kept, False)
    source = mask.nonzero()[:, 1].view(kept.shape[0], -1)
    return Plan(kept=kept, source=source, target=torch.full_like(source, -1))


def keep_all(tokens: Tokens) -> Plan:
    """The plan that leaves every token where it is."""
    batch, n = tokens.x.shape[:2]
    kept = positions(batch, 0, n, 1, tokens.x.device)
    return Plan(kept=kept, source=kept[:, :0], target=kept[:, :0], whole=True)


def select(x: Tensor, index: Tensor) -> Tensor:
    """Select rows: `x` [B, N, C], `index` [B, K] -> [B, K, C].

    By a flat index: whole rows are copied, several times faster on a CPU than gather over [B, K, C].
    """
    return x.flatten(0, 1).index_select(0, _flat(index, x.shape[1])).view(*index.shape, x.shape[-1])


def _flat(index: Tensor, rows: int) -> Tensor:
    """Positions `index` [B, K] in batches of `rows` rows as positions in all of them: [B * K]."""
    batch = index.shape[0]
    if is_eager() and batch == 1:
        return index.select(0, 0)
    return (index + _offsets(batch, rows, index.device)).flatten()


@made_once
def _offsets(batch: int, rows: int, device: torch.device) -> Tensor:
    """Where each sample's rows begin, [B, 1]."""
    return torch.arange(batch, device=device)[:, None] * rows


@made_once
def ones(batch: int, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[B, N] of 1; not to be written to."""
    return torch.ones(batch, n, dtype=dtype, device=device)


@made_once
def positions(batch: int, start: int, stop: int, step: int, device: torch.device) -> Tensor:
    """start, start + step, .. below `stop`, the same for each sample: [B, K]; not to be written to."""
    return torch.arange(start, stop, step, device=device).expand(batch, -1)


def rank(scores: Tensor) -> Tensor:
    """Positions by descending score along the last axis; ties keep their order."""
    if torch.onnx.is_in_onnx_export():  # ONNX has no stable sort
        return scores.topk(scores.shape[-1], dim=-1).indices
    return scores.sort(dim=-1, descending=True, stable=True).indices


def detached(x: Tensor) -> Tensor:
    """`x` for a decision, which has no gradient."""
    return x.detach() if x.requires_grad or not is_eager() else x


def cosine(metric: Tensor) -> Tensor:
    """Unit rows of `metric` [B, N, D], so that a product is a cosine; a zero row stays zero."""
    length: Tensor = torch.linalg.vector_norm(metric, dim=-1, keepdim=True)
    return metric / length.clamp_min(1e-12)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in another type; where it has that, without a call of torch."""
    return x if x.dtype == dtype else x.to(dtype)
