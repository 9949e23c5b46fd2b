"""docs/retrieval_flops.md: the cost of merging image towers beside the paper's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

import pitome
from pitome.config import load_model
from pitome.merge.costs import Architecture, ClosedForm, authors_macs, closed_form
from pitome.merge.schedule import count_all
from pitome.records.markdown import markdown_table
from pitome.tasks.retrieval import blip
from pitome.tasks.retrieval.clip import build_model

PRINTED = Path(__file__).with_suffix(".yaml")
HEADER = ["printed in", "tower", "tokens", "ratio", "printed"]
COUNTS = ["formula, share of all but class", "formula, share of all", "repository at 550b5de"]
OURS = ["ours, `pitome`", "of it merging", "ours, `pitome_repo`", "of it merging", "ratio that gives it"]
TOTAL_HEADER = ["printed in", "model", "ratio", "printed total", "beyond the printed tower", "tokens left"]
TOTAL_HEADER += ["ours: tower", "features of the image", "of five captions", "total", "a pair"]


@dataclass(frozen=True)
class PrintedCost:
    """One printed number."""

    where: str
    row: str
    tower: str  # of TOWERS
    printed: str
    ratio: float | None  # None: unmerged
    skip_last: bool = False  # the last layer does not merge
    of_tower: str = ""  # what is printed beside a total for the tower alone


def _blip(name: str, kind: type[blip.ImageTextMatching]) -> nn.Module:
    return kind(blip.build_model(load_model(name)), None)  # type: ignore[arg-type]  # no words, no tokenizer


TOWERS: dict[str, Callable[[], nn.Module]] = {
    "clip_l": lambda: build_model(load_model("clip_l")),
    "clip_l336": lambda: build_model(load_model("clip_l336")),
    "blip": lambda: _blip("blip_base", blip.Blip),  # ViT-B/16 at 384
    "blip2": lambda: _blip("blip2", blip.Blip2),  # EVA-g/14 at 364 without its last block: 39 blocks
}


class Tower:
    """An architecture on the meta device."""

    def __init__(self, name: str) -> None:
        with torch.device("meta"):
            self.model: Any = TOWERS[name]()
        with pitome.patch(self.model, "none", ratio=1.0) as handle:
            self.architecture: Architecture = handle.architecture()
        self.depth = len(self.architecture.layers)

    def ours(self, method: str, row: PrintedCost) -> ClosedForm:
        """The closed form of a method, unmerged for a row without a ratio."""
        if row.ratio is None:
            return closed_form(self.architecture)
        with pitome.patch(self.model, method, ratio=self._ratios(row, row.ratio)) as handle:
            return closed_form(self.architecture, handle.schedule, handle.method, handle.options)

    def formula(self, row: PrintedCost, ratio: float | None, *, class_token: bool) -> float:
        """12 N C^2 + 2 N^2 C at the tokens that enter each layer, in billions."""
        tokens = [self.architecture.tokens]
        for share in [1.0] * self.depth if ratio is None else self._ratios(row, ratio):
            rest = 0 if class_token else 1
            tokens.append(tokens[-1] - count_all(tokens[-1] - rest, 0, share, 0))
        width = self.architecture.layers[0].hidden_dim
        return sum(12 * n * width**2 + 2 * n**2 * width for n in tokens[:-1]) / 1e9

    def repository(self, row: PrintedCost) -> float:
        """What the authors' code reports, in billions."""
        tokens = self.ours("pitome_repo", row).tokens
        return authors_macs(self.architecture, tokens, "pitome_repo") / 1e9

    def ratio_giving(self, row: PrintedCost, value: float) -> float:
        """The ratio, in steps of 0.001, whose formula comes closest to `value`."""
        ratios = [step / 1000 for step in range(800, 1000)]
        return min(ratios, key=lambda q: abs(self.formula(row, q, class_token=False) - value))

    def _ratios(self, row: PrintedCost, ratio: float) -> list[float]:
        return [ratio] * (self.depth - row.skip_last) + [1.0] * row.skip_last


@functools.cache
def tower_of(name: str) -> Tower:
    """A tower of TOWERS, built once."""
    return Tower(name)


def printed(kind: str) -> list[PrintedCost]:
    """What is printed: `costs`, `speedups` or `totals`."""
    return [PrintedCost(**entry) for entry in yaml.safe_load(PRINTED.read_text())[kind]]


def tables() -> dict[str, str]:
    """The tables of the page, by their names in its markers."""
    out = {}
    for kind, header, line in (
        ("costs", [*HEADER, *COUNTS, *OURS], _cost),
        ("speedups", [*HEADER, *COUNTS, OURS[0], OURS[2], OURS[4]], _speedup),
        ("totals", TOTAL_HEADER, _total),
    ):
        out[kind] = markdown_table(header, [line(row, tower_of(row.tower)) for row in printed(kind)])
    return out


def _cost(row: PrintedCost, tower: Tower) -> list[str]:
    merged = row.ratio is not None
    out = [*_head(row, tower), row.printed]
    out += [f"{tower.formula(row, row.ratio, class_token=every):.3f}" for every in (False, True)]
    out.append(f"{tower.repository(row):.3f}")
    for method in ("pitome", "pitome_repo"):
        cost = tower.ours(method, row)
        out += [f"{cost.macs / 1e9:.2f}", f"{cost.plan_macs / 1e9:.2f}" if merged else "-"]
    return [*out, f"{tower.ratio_giving(row, float(row.printed)):.3f}" if merged else "-"]


def _speedup(row: PrintedCost, tower: Tower) -> list[str]:
    plain, cost = tower.formula(row, None, class_token=False), closed_form(tower.architecture).macs
    out = [*_head(row, tower), f"{row.printed}x"]
    out += [f"{plain / tower.formula(row, row.ratio, class_token=every):.3f}" for every in (False, True)]
    out.append(f"{plain / tower.repository(row):.3f}")
    out += [f"{cost / tower.ours(method, row).macs:.3f}" for method in ("pitome", "pitome_repo")]
    return [*out, f"{tower.ratio_giving(row, plain / float(row.printed)):.3f}"]


def _total(row: PrintedCost, tower: Tower) -> list[str]:
    cost = tower.ours("pitome", row)
    left = cost.tokens[-1]
    features, pair = tower.model.feature_macs(left), _pair(tower.model, left)
    captions = 5 * _caption(tower.model)
    where, name, _, ratio = _head(row, tower)
    beyond = f"{float(row.printed) - float(row.of_tower):.2f}"
    ours = [cost.macs, features, captions, cost.macs + features + captions, pair]
    return [where, name, ratio, row.printed, beyond, str(left), *(f"{macs / 1e9:.2f}" for macs in ours)]


@functools.cache
def _caption(model: Any) -> int:
    """MACs of a caption's features."""
    return int(model.text_macs())


@functools.cache
def _pair(model: Any, tokens: int) -> int:
    """MACs of a caption with an image of which so many tokens are left."""
    return int(model.match_macs(tokens))


def _head(row: PrintedCost, tower: Tower) -> list[str]:
    last = ", not the last layer" if row.skip_last else ""
    ratio = "unmerged" if row.ratio is None else f"{row.ratio:g}{last}"
    return [row.where, row.row, str(tower.architecture.tokens), ratio]
