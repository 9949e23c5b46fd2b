"""FLOPs of every point of the paper's items: python scripts/experiment_costs.py

Writes pitome/paper/costs.json from the real architectures, built without weights. No model is run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

import pitome
from pitome.config import DEFAULT_RATIO, ModelConfig, find_choice, load_model
from pitome.errors import PitomeError
from pitome.merge import registry
from pitome.merge.costs import authors_macs, closed_form
from pitome.merge.schedule import AMOUNTS
from pitome.paper import costs
from pitome.paper.experiments import load
from pitome.paper.files import item_names
from pitome.paper.points import OPTIONS, Point, paper_values, sweep_points, training_points
from pitome.records.files import write_atomically
from pitome.sources.yaml_files import read_yaml
from pitome.tasks.text.costs import authors_cost, encoder, mean_share, our_cost, padded_lengths

LENGTHS = Path(__file__).parent / "tables" / "text_lengths.yaml"
BATCH = 32  # of the authors' evaluation (tasks/tc/engine.py:58-62 at 550b5de)
REVIEW = 512  # tokens; where reviews of IMDb are cut off

Entry = dict[str, dict[str, Any]]


def main() -> None:
    """Compute every cost that a value of experiments/ needs."""
    table = {costs.key(point): point for name in item_names() for point in needed(name)}
    models: dict[str, nn.Module] = {}
    entries = {key: entry for key, point in sorted(table.items()) if (entry := compute(point, models))}
    write_atomically(costs.FILE, (json.dumps(entries, indent=1) + "\n").encode())
    print(f"{costs.FILE.name}: {len(entries)} of {len(table)} points")


def needed(name: str) -> list[Point]:
    """The points of an item of which a cost is printed, logged or drawn."""
    item = load(name)
    points = [value.point for value in paper_values(item) if not value.quoted]
    points += [*sweep_points(item), *training_points(item)]
    return [point for point in points if point.get("task") != "vqa" and "model" in point]


def compute(point: Mapping[str, Any], models: dict[str, nn.Module]) -> Entry | None:
    """Costs of one point; None where its model, method or amount is not built here."""
    if point.get("task") == "text":
        return _text(point)
    method = str(point["merge"])
    if method != "none" and method not in registry.names():
        return None
    name = str(point["model"])
    if name not in models:
        if (built := _build(name)) is None:
            return None
        models[name] = built
    return _image(models[name], method, point)


def _image(model: nn.Module, method: str, point: Mapping[str, Any]) -> Entry | None:
    with pitome.patch(model, "none", ratio=1.0) as handle:
        architecture = handle.architecture()
    plain = closed_form(architecture)
    form = plain
    if method != "none":
        amount = {key: point[key] for key in AMOUNTS if key in point} or {"ratio": DEFAULT_RATIO}
        options = {k.removeprefix(OPTIONS): value for k, value in point.items() if k.startswith(OPTIONS)}
        try:
            with pitome.patch(model, method, layers=point.get("layers"), **amount, **options) as handle:
                form = closed_form(architecture, handle.schedule, handle.method, handle.options)
        except PitomeError as problem:
            print(f"left out: {dict(point)}: {problem}")
            return None
    theirs = authors_macs(architecture, form.tokens, method)
    base = authors_macs(architecture, plain.tokens, "none")
    # their DiffRate counts patch embedding and classifier where their other methods do not
    same_base = authors_macs(architecture, plain.tokens, method)
    out = {"gmacs": _entry(theirs / 1e9, f"authors' count; ours {form.macs / 1e9:.4g}")}
    if method != "none":
        ours = f"authors' count; ours {plain.macs / form.macs:.3f}"
        out["flops_x"] = _entry(max(base, same_base) / theirs, ours)
    return out


def _text(point: Mapping[str, Any]) -> Entry | None:
    """Speed-up in FLOPs: at the length of a cut-off review for IMDb; for SST-2 over real sentences of the
    same site in random batches, each as long as its longest."""
    method = str(point["merge"])
    theirs, counted_as = (method, None) if method != "dct_repo" else ("dct", "pitome_repo")
    if method == "none" or (counted_as is None and method not in registry.names()) or "ratio" not in point:
        return None
    model, ratio = encoder(str(point["model"])), float(point["ratio"])
    merged = authors_cost(model, theirs, ratio, counted_as=counted_as)
    base = authors_cost(model, theirs, 1.0, counted_as=counted_as)
    if point["data"] == "imdb":
        lengths = padded = {REVIEW: 1}
        where = f"at {REVIEW} tokens"
    else:
        lengths = read_yaml(LENGTHS)["tokens"]
        padded, where = padded_lengths(lengths, BATCH), "over Rotten Tomatoes' sentences in batches of 32"
    note = f"authors' count {where}; the paper names no lengths"
    if counted_as is None:
        share = mean_share(lengths, our_cost(model, method, ratio), our_cost(model, "none", 1.0))
        note += f"; ours {1 / share:.3f}"
    return {"flops_x": _entry(1 / mean_share(padded, merged, base), note)}


def _entry(value: float, note: str) -> dict[str, Any]:
    return {"value": round(value, 4), "note": note}


def _build(name: str) -> nn.Module | None:
    """A model of conf/model on the meta device, its image tower where it has others; None for one that is
    not built here. ALBEF's tower is BLIP's, ViT-B/16 at 384."""
    from pitome.tasks.classification import models as vision
    from pitome.tasks.retrieval import clip

    name = "blip_base" if name == "albef" else name
    if find_choice("model", name) is None:
        return None
    config = load_model(name)
    builders: dict[str, Callable[[], nn.Module]] = {
        "classification": lambda: vision.build_timm(config.arch, dict(config.args)),
        "retrieval": lambda: _tower(config) if "blip" in config.arch else clip.build_model(config),
    }
    with torch.device("meta"):
        return builders[config.task]()


def _tower(config: ModelConfig) -> nn.Module:
    from transformers import Blip2VisionConfig, Blip2VisionModel, BlipVisionConfig, BlipVisionModel

    given = config.args["vision_config"]
    if config.arch == "blip":
        return BlipVisionModel(BlipVisionConfig(**given))
    return Blip2VisionModel(Blip2VisionConfig(**given))


if __name__ == "__main__":
    main()
