"""MCTF: multi-criteria token fusion (arXiv 2403.10030, CVPR 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pitome.fields import number
from pitome.merge.methods.tome import macs
from pitome.merge.plan import Plan, Tokens, cosine, keep_all, rank
from pitome.merge.presets import TEXT_LAYERS, fill
from pitome.merge.registry import Guarantees, MethodOptions, register
from pitome.merge.schedule import count_all

_HINT = "; 0 leaves the factor out"


@dataclass(frozen=True)
class MctfOptions(MethodOptions):
    """Options of `mctf`; the defaults are the paper's.

    t_sim, t_info, t_size: temperatures of the three factors of a pair: similarity, how little attention the
        two get, how few tokens they stand for; 0 leaves the factor out.
    bidirectional: half of the removals go from the even to the odd positions, the rest back; false: all from
        even to odd.
    metric: the features themselves.
    position: `before_attention` as well, where the map is computed for the merge alone, and the block's own
        attention runs on what is left.
    """

    metric: Literal["keys", "hidden"] = "hidden"
    position: Literal["before_attention", "before_mlp", "after_block"] = "before_mlp"  # type: ignore[assignment]
    t_sim: float = number(1.0, least=0, hint=_HINT)
    t_info: float = number(20.0, least=0, hint=_HINT)
    t_size: float = number(40.0, least=0, hint=_HINT)
    bidirectional: bool = True


def _scarce(value: Tensor) -> Tensor:
    """1 / value over the largest of it, [B, N]: 1 for the smallest value."""
    inverse = 1 / value.clamp_min(torch.finfo(value.dtype).tiny ** 0.5)
    return inverse / inverse.amax(dim=1, keepdim=True)


def fusion_plan(tokens: Tokens, remove: int, options: MctfOptions, fixed: int, strict: bool) -> Plan:
    """Match even positions (A) with odd ones (B) by the product of the three factors, in both directions.

    The best `remove` // 2 of A join B; then the best of B, with what has joined them, join what is left of A,
    by the same scores. A token weighs the attention it receives times its size. The first `fixed` tokens
    never meet another; if not `strict`, they do where nothing else is left. Output rows: fixed tokens, the
    rest of A (by position, or by descending score where nothing is fixed), the rest of B by descending score.
    """
    batch, n = tokens.x.shape[:2]
    if n == 1:  # set B is empty
        return keep_all(tokens)
    assert tokens.attention is not None
    size, head = tokens.size, fixed if strict else 0
    received = tokens.attention.mean(dim=(1, 2))
    with torch.no_grad():
        unit = cosine(tokens.metric)
        score = ((unit[:, ::2] @ unit[:, 1::2].transpose(1, 2) + 1) / 2).clamp_min(0)
        score = score ** (1 / options.t_sim) if options.t_sim else torch.ones_like(score)
        for temperature, value in ((options.t_info, received), (options.t_size, size)):
            if temperature:
                factor = _scarce(value)
                score = score * (factor[:, ::2, None] * factor[:, None, 1::2]) ** (1 / temperature)
        position = torch.arange(n, device=score.device)
        closed = position < fixed
        score = score.masked_fill(closed[::2, None] | closed[1::2], -torch.inf)

    first = remove // 2 if options.bidirectional else remove
    best, to_b = score.max(dim=-1)
    order = rank(best)
    a_gone, a_left = order[:, :first], order[:, first:]
    a_left = a_left[:, : a_left.shape[1] - (head + 1) // 2]
    if fixed:
        a_left = a_left.sort(dim=-1).values
    left = score.gather(1, a_left[..., None].expand(-1, -1, score.shape[2]))
    if a_left.shape[1] == 0:  # all of A has joined B
        left = score.new_zeros(batch, 1, score.shape[2])
    best, to_a = left.max(dim=1)
    order = rank(best)
    b_gone, b_left = order[:, : remove - first], order[:, remove - first :]
    b_left = b_left[:, : b_left.shape[1] - head // 2]

    rows = torch.arange(b_left.shape[1], device=order.device).expand_as(b_left)
    row_of_b = (to_a + head).scatter(1, b_left, rows + head + a_left.shape[1])
    target = torch.cat([row_of_b.gather(1, to_b.gather(1, a_gone)), row_of_b.gather(1, b_gone)], dim=1)
    first_rows = torch.arange(head, device=order.device).expand(batch, -1)
    return Plan(
        kept=torch.cat([first_rows, 2 * a_left, 2 * b_left + 1], dim=1),
        source=torch.cat([2 * a_gone, 2 * b_gone + 1], dim=1),
        target=target,
        weight=received * size / size.amax(dim=1, keepdim=True),
    )


@register(
    "mctf",
    options=MctfOptions,
    guarantees=Guarantees(),
    source="arXiv 2403.10030; mlvlab/MCTF 2004da0, utils/mctf.py:13-232",
    reads=lambda options: ("attention",),
    macs=macs,
)
def mctf(tokens: Tokens, remove: int, options: MctfOptions) -> Plan:
    """Fusion by similarity, informativeness and size, in both directions; see `fusion_plan`.

    Merging comes between attention and MLP, as with the other methods, with the map of that attention.
    So there is no need of what the authors call one-step-ahead attention: they merge before the attention
    and merge its map as well, to spare a second one. As many tokens leave as with other methods; theirs
    stops at 10 tokens. Their published rows are trained.
    """
    if remove == 0:
        return keep_all(tokens)
    return fusion_plan(tokens, remove, options, tokens.protected, strict=True)


@dataclass(frozen=True)
class MctfRepoOptions(MctfOptions):
    """Options of `mctf_repo`, as those of `mctf`; None: the family's own."""

    prop_attn: bool | None = None  # type: ignore[assignment]
    metric: Literal["keys", "hidden"] | None = None  # type: ignore[assignment]
    position: Literal["before_attention", "before_mlp", "after_block"] | None = None  # type: ignore[assignment]
    t_sim: float | None = number(None, least=0, hint=_HINT)  # type: ignore[assignment]
    t_info: float | None = number(None, least=0, hint=_HINT)  # type: ignore[assignment]
    t_size: float | None = number(None, least=0, hint=_HINT)  # type: ignore[assignment]
    bidirectional: bool | None = None  # type: ignore[assignment]


_COMMON = {
    "prop_attn": False,
    "metric": "hidden",
    "position": "before_attention",
    "protected": 1,
    "t_sim": 1.0,
    "t_info": 0.0,
    "t_size": 40.0,
    "bidirectional": True,
}
FAMILIES = {
    "clip": _COMMON,
    "blip": _COMMON,
    "llava": {**_COMMON, "position": "after_block", "t_size": 0.0},
    "bert": {**_COMMON, "metric": "keys", "position": "before_mlp"},
}


@register(
    "mctf_repo",
    options=MctfRepoOptions,
    guarantees=Guarantees(proportional=False, keeps_protected_first=False, identity_at_1=False),
    source="hchautran/PiToMe 550b5de, algo/mctf/merge.py and algo/mctf/patch/",
    reads=lambda options: ("attention",),
    count=count_all,
    macs=macs,
    padding="merged",
    resolve=lambda options, family, depth: fill("mctf_repo", options, family, FAMILIES),
    families={"bert": TEXT_LAYERS["bert"]},
)
def mctf_repo(tokens: Tokens, remove: int, options: MctfRepoOptions) -> Plan:
    """What the PiToMe repository runs as MCTF. Its particulars:

    - no patch hands attention to the matching, so that t_info has no effect there;
    - CLIP and BLIP merge before the attention, which is computed once for the weights and once more on
      what is left; LLaVA after the block and without the factor of sizes; BERT, on keys, in the first three
      layers;
    - no proportional attention; a ratio counts all tokens, the class token included;
    - at a ratio below 1 that leaves nothing to remove, tokens are permuted; of two or three tokens the last
      merge into the class token.

    With padding their code divides zero by zero on BERT; here a group of padding keeps the token it starts
    from. It has rows for CLIP, BLIP, LLaVA and BERT, the families on which their patches run.
    """
    return fusion_plan(tokens, remove, options, min(tokens.protected, 1), strict=False)
