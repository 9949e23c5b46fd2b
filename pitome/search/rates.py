"""DiffRate's learned rates: how many tokens each layer prunes and merges, by gradient (arXiv 2305.17997).

The model is frozen. In every layer two distributions over numbers of tokens are learned, one for what pruning
leaves and one for what merging leaves after it. Tokens are ranked by class attention; those beyond the
expected number get the mask 0, and the gradient of the mask at a rank is that of the probability that the
rank is kept (straight-through). Masked tokens stay in the sequence and count as nothing in attention, so the
loss of the task and the squared distance of the cost from its target reach every number.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from pitome.adapters.patch import patch
from pitome.errors import UsageError
from pitome.merge import registry
from pitome.merge.costs import Architecture, closed_form
from pitome.merge.plan import Tokens, cosine, rank
from pitome.merge.schedule import Schedule
from pitome.records.files import write_atomically
from pitome.search.probe import Probe, to_device
from pitome.search.space import Space

METHOD = "diffrate"
FILE = "rates.safetensors"
_NOTHING = 1e-6  # how much a masked token weighs; sizes are divided by it, since attention clamps them at 1
_WEIGHT = 100.0  # of the squared distance of the cost from its target
_RATE, _WIDTH = 0.05, 0.05  # of learning; of the first distributions, as a share of the tokens
_SAVED_EVERY = 10  # steps


class Rates(nn.Module):
    """Logits [2, L, T] over the numbers 1 to T of unprotected tokens that pruning and merging leave."""

    def __init__(self, first: Tensor, tokens: int) -> None:
        """first [2, L]: the numbers that the distributions begin around."""
        super().__init__()
        numbers = torch.arange(1, tokens + 1, dtype=torch.float32)
        self.numbers: Tensor
        self.register_buffer("numbers", numbers)
        self.logits = nn.Parameter(-((numbers - first[..., None]) ** 2) / (2 * (_WIDTH * tokens) ** 2))

    def kept(self) -> tuple[Tensor, Tensor]:
        """Expected numbers [L] that pruning and merging leave; none exceeds what came before."""
        expected = (self.logits.softmax(dim=-1) * self.numbers).sum(dim=-1)
        before, pruned, merged = self.numbers[-1], [], []
        for prune, merge in zip(*expected, strict=True):
            pruned.append(torch.minimum(prune, before))
            merged.append(torch.minimum(merge, pruned[-1]))
            before = merged[-1]
        return torch.stack(pruned), torch.stack(merged)

    def masks(self, layer: int) -> tuple[Tensor, Tensor]:
        """By rank [T]: 1 where pruning, and merging, keep a token; gradients of the probabilities."""
        probabilities = self.logits[:, layer].softmax(dim=-1).flip(-1).cumsum(dim=-1).flip(-1)
        ranks = torch.arange(len(self.numbers), device=self.numbers.device)
        hard = [(ranks < kept[layer].detach().round().clamp_min(1)).float() for kept in self.kept()]
        prune, merge = (h + p - p.detach() for h, p in zip(hard, probabilities, strict=True))
        return prune, merge


@dataclass(frozen=True)
class Masked:
    """A plan in which every token keeps its row; those that left weigh next to nothing."""

    x: Tensor  # [B, N, C]
    size: Tensor  # [B, N]

    def carry_out(self, x: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        return self.x.to(x.dtype), self.size


def masked_plan(tokens: Tokens, rates: Rates) -> Masked:
    """What `diffrate` does with its two counts, with masks instead of shorter sequences."""
    p, size = tokens.protected, tokens.size if tokens.layer == 0 else tokens.size * _NOTHING
    alive = size[:, p:].detach() > 0.5
    assert tokens.cls_attention is not None
    ranks = rank(tokens.cls_attention[:, p:].detach().masked_fill(~alive, -1)).argsort(dim=-1)
    prune, merge = (mask[ranks] for mask in rates.masks(tokens.layer))
    stays = prune * merge
    joins = prune * (1 - merge) * alive
    unit = cosine(tokens.metric[:, p:].detach())
    scores = unit @ unit.transpose(1, 2)
    goal = (stays.detach() > 0.5) & alive
    best, target = scores.masked_fill(~goal[:, None, :], -torch.inf).max(dim=-1)
    x, index = tokens.x[:, p:], target[..., None].expand_as(tokens.x[:, p:])
    total = torch.ones_like(joins).scatter_add(1, target, joins)
    mixed = x.scatter_add(1, index, x * joins[..., None].to(x.dtype)) / total[..., None].to(x.dtype)
    grown = size[:, p:].scatter_add(1, target, joins * size[:, p:] * best.clamp_min(0))
    left = torch.cat([size[:, :p], grown * stays * alive], dim=1)
    return Masked(torch.cat([tokens.x[:, :p], mixed], dim=1), (left + _NOTHING) / _NOTHING)


def cost(architecture: Architecture, merged: Tensor) -> Tensor:
    """Share of the unmerged cost where merging leaves `merged` [L] unprotected tokens: `closed_form`, with
    gradients."""
    p, total = architecture.protected, merged.new_tensor(float(architecture.stem + architecture.head))
    before = merged.new_tensor(float(architecture.tokens))
    for layer, left in zip(architecture.layers, merged + p, strict=True):
        total = total + before * layer.attn_token + before**2 * layer.attn_pair + left * layer.mlp_token
        total = total + (before - left) * (left - p) * layer.hidden_dim
        total = total + layer.heads * layer.metric_dim * before
        before = left
    return (total + before * architecture.pool_token) / closed_form(architecture).macs


def learn(
    probe: Probe,
    space: Space,
    options: Mapping[str, Any],
    target: float,
    *,
    steps: int | None,
    minutes: float | None,
    folder: Path,
    identity: str,
) -> tuple[dict[str, list[int]], int]:
    """Learned `prune_kept` and `merge_kept`, protected tokens counted, at `target` of the unmerged cost at
    most, and how many steps were taken, those before a restart counted.

    Raises UsageError for a probe without samples to learn from, and for outputs that are not finite.
    """
    if probe.training is None or probe.by_ratio:
        raise UsageError("DiffRate's rates are learned on labelled images; give another search.sampler")
    protected = space.architecture.protected
    tokens = space.architecture.tokens - protected
    uniform = torch.tensor(space.uniform(target, space.resolve(options)).schedule or ()) - protected
    before = torch.cat([torch.tensor([tokens]), uniform[:-1]])
    rates = Rates(torch.stack([before, uniform]).float(), tokens).to(probe.device)
    done, spent = _read(folder / FILE, rates, identity)
    optimizer = torch.optim.Adam(rates.parameters(), lr=_RATE)
    batches, started = iter(probe.training()), time.monotonic()

    def seconds() -> float:
        return spent + time.monotonic() - started

    with _masked(probe, space, options, rates):
        while (steps is None or done < steps) and (minutes is None or seconds() < 60 * minutes):
            inputs, labels = next(batches)
            with probe.computing():
                outputs = probe.run(to_device(inputs, probe.device)).float()
            loss = functional.cross_entropy(outputs, to_device(labels, probe.device))
            share = cost(space.architecture, rates.kept()[1])
            loss = loss + _WEIGHT * (share - target) ** 2
            if not loss.isfinite():
                raise UsageError(f"the loss of step {done} is not finite (NaN); try precision=32")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            if done % _SAVED_EVERY == 0 or done == steps:
                _write(folder / FILE, rates, identity, done, seconds())
                print(
                    f"learn {METHOD}: step {done}, loss {loss.item():.4f}, cost {share.item():.4f}",
                    flush=True,
                )
    pruned, merged = (kept.detach().round().int().tolist() for kept in rates.kept())
    return _to_target(space, options, target, pruned, merged), done


def _to_target(
    space: Space, options: Mapping[str, Any], target: float, pruned: list[int], merged: list[int]
) -> dict[str, list[int]]:
    """The lists with all removals scaled alike, so that the closed-form cost is `target` at most and little
    less."""
    tokens, protected = space.architecture.tokens, space.architecture.protected
    resolved = space.resolve(options)

    def scaled(scale: float) -> dict[str, list[int]]:
        prune, merge, here, learned = [], [], tokens, tokens - protected
        for p, m in zip(pruned, merged, strict=True):
            prune.append(max(here - round(scale * (learned - p)), protected + 1))
            merge.append(max(prune[-1] - round(scale * (p - m)), protected + 1))
            here, learned = merge[-1], m
        return {"prune_kept": prune, "merge_kept": merge}

    def fits(scale: float) -> bool:
        return space.share(Schedule(kept=tuple(scaled(scale)["merge_kept"])), resolved) <= target

    low, high = 0.0, 1.0
    while not fits(high):
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return scaled(high)


@contextmanager
def _masked(probe: Probe, space: Space, options: Mapping[str, Any], rates: Rates) -> Iterator[None]:
    """Within it the model, frozen, runs with masks instead of merging."""
    trained = [parameter for parameter in probe.model.parameters() if parameter.requires_grad]
    everything = [space.architecture.tokens] * len(space.architecture.layers)
    method = registry.get(METHOD)

    def plan(tokens: Tokens, remove: object, options: object) -> Any:  # masks, which drop no token
        return masked_plan(tokens, rates)

    masked = dataclasses.replace(
        method,
        plan=plan,
        guarantees=dataclasses.replace(method.guarantees, identity_at_1=False),
    )
    with patch(probe.model, masked, schedule=everything, **options) as handle:
        handle.state.checked = [True] * len(everything)  # a mask is no plan that could be checked
        try:
            probe.model.requires_grad_(False)
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)


def _read(path: Path, rates: Rates, identity: str) -> tuple[int, float]:
    """Steps and seconds of a learning that was stopped, whose logits `rates` gets; 0 where there is none."""
    if not path.is_file():
        return 0, 0.0
    with safe_open(path, "pt") as file:
        known = file.metadata()
        if known["identity"] != identity:
            raise UsageError(
                f"{path.parent} holds a search of something else; give another search.folder, or "
                "overwrite=all to begin again"
            )
        with torch.no_grad():
            rates.logits.copy_(file.get_tensor("logits"))
    return int(known["steps"]), float(known["seconds"])


def _write(path: Path, rates: Rates, identity: str, steps: int, seconds: float) -> None:
    metadata = {"identity": identity, "steps": str(steps), "seconds": json.dumps(seconds)}
    write_atomically(path, save({"logits": rates.logits.detach().cpu()}, metadata))
