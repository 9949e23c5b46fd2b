"""Does spectral distance predict what merging costs? python scripts/spectral.py [MODEL ...] [images=32]

For every method that leaves a partition of the tokens, every layer and every ratio: one layer alone merges,
and two things are measured on the same images. The spectral distance (arXiv 2405.16148, Definitions 1 and 2,
Eq. 5) between the graph of the tokens that enter the merge and its coarsening; and the loss, 1 - cosine
between the model's output and the unmerged one's. Writes results/spectral/MODEL.json, which
`python -m scripts.tables spectral` prints.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))

import pitome
from pitome.errors import PitomeError, UsageError
from pitome.merge import registry
from pitome.paper import spectral
from pitome.records.files import write_atomically
from pitome.runs.compose import check_command_line, register_schema
from pitome.tasks.base import task_class
from pitome.tasks.subject import Samples

FOLDER = Path(__file__).parent.parent / "results" / "spectral"
MODELS = {"vit_fmnist": [], "clip_scenes": ["task=retrieval"]}
RATIOS = (0.95, 0.9, 0.8, 0.6)
IMAGES = 32
_SEEN: list[
    tuple[Tensor, int]
] = []  # of each layer, what `probe` was given: its tokens and how many are protected


def probe(tokens: pitome.Tokens, remove: int, options: pitome.MethodOptions) -> pitome.Plan:
    """Keeps what a method would compare, [B, N, D]; the last tokens join the first."""
    _SEEN.append((tokens.metric.detach().double(), tokens.protected))
    batch, n = tokens.x.shape[:2]
    place = torch.arange(n).expand(batch, n)
    kept, source = place[:, : n - remove], place[:, n - remove :]
    target = torch.full_like(source, tokens.protected)
    return pitome.Plan(kept=kept, source=source, target=target, weight=tokens.size)


def methods() -> list[str]:
    """Bare methods whose groups are a partition of the tokens."""
    return [
        name
        for name in registry.names("tower")
        if name != "probe" and not name.endswith("_repo")
        if (promises := registry.get(name).guarantees).groups and not promises.prunes
    ]


def measure(
    model: nn.Module, run: Callable[[Tensor], Any], images: Tensor, ratios: Sequence[float] = RATIOS
) -> Iterator[dict[str, Any]]:
    """A row for each layer, ratio and method, with distance and loss of every image [B, C, H, W]. Needs
    `probe` among the methods."""
    with torch.no_grad():
        whole = run(images).double()
        with pitome.patch(model, "probe", ratio=0.5) as patched:
            depth = len(patched.layers)
        for layer in range(depth):
            _SEEN.clear()
            with pitome.patch(model, "probe", ratio=0.5, layers=[layer]):
                run(images)
            ((metric, protected),) = _SEEN
            graphs = [spectral.graph(tokens) for tokens in metric[:, protected:]]
            before = [spectral.spectrum(weights) for weights in graphs]
            for ratio in ratios:
                for name in methods():
                    torch.manual_seed(0)  # the control draws
                    with pitome.patch(model, name, ratio=ratio, layers=[layer], trace=True) as patched:
                        output = run(images).double()
                        joined = patched.sources.argmax(dim=1)[:, protected:]  # [B, N]: row of each token
                    distances = []
                    for weights, spectrum, rows in zip(graphs, before, joined, strict=True):
                        groups = rows.unique(return_inverse=True)[1]
                        after = spectral.spectrum(spectral.lift(spectral.coarsen(weights, groups), groups))
                        distances.append(float((spectrum - after).abs().sum()))
                    loss = 1 - torch.nn.functional.cosine_similarity(output, whole)
                    yield {
                        "layer": layer,
                        "ratio": ratio,
                        "method": name,
                        "distance": distances,
                        "loss": loss.tolist(),
                    }


def of_model(name: str, images: int) -> dict[str, Any]:
    """Everything measured on one of the models that come with the project."""
    ((config, _),) = check_command_line([*MODELS[name], f"model={name}", "merge=none"], False)
    subject = task_class(config.task.name)(config).subject(images)
    assert subject is not None and isinstance(subject.samples, Samples)
    clock, rows = time.monotonic(), []
    run = subject.run or subject.model
    for row in measure(subject.model, run, subject.samples.inputs):
        if rows and rows[-1]["layer"] != row["layer"]:
            print(f"{name}: layer {row['layer']} after {time.monotonic() - clock:.0f} s", flush=True)
        rows.append(row)
    return {
        "model": name,
        "data": config.data.name,
        "weights": subject.sha256,
        "images": len(subject.samples.inputs),
        "rows": [
            row | {key: [round(value, 6) for value in row[key]] for key in ("distance", "loss")}
            for row in rows
        ],
    }


def main(words: Sequence[str]) -> int:
    """Measure the models that are named, or all. Returns the exit code."""
    try:
        given = [word.partition("=")[2] for word in words if word.startswith("images=")]
        names = [word for word in words if not word.startswith("images=")] or list(MODELS)
        if unknown := [name for name in names if name not in MODELS]:
            raise UsageError(f"{unknown[0]} is not one of the models: {', '.join(MODELS)}")
        if not (number := given[-1] if given else str(IMAGES)).isdecimal() or int(number) == 0:
            raise UsageError(f"images={number} is not a whole number above 0; give e.g. images={IMAGES}")
        register_schema()
        pitome.register("probe")(probe)
        for name in names:
            content = of_model(name, int(number))
            FOLDER.mkdir(exist_ok=True)
            write_atomically(FOLDER / f"{name}.json", json.dumps(content).encode())
            print(FOLDER / f"{name}.json")
    except (PitomeError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
