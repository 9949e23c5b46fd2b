"""What merging costs features of single patches: python scripts/dense.py [scenes=500]

Segmentation of scenes by the image tower of `clip_scenes`: a linear classifier, fitted by least squares to
the unmerged model's features of validation scenes, says of every patch of test scenes which kind of item is
there. It reads the features after one block of the merged model, unmerged (`pitome.patch(..., dense=True)`):
of the block that suits the unmerged model best on validation scenes. Writes results/dense/clip_scenes.json,
which `python -m scripts.tables dense` prints.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

import pitome
from pitome.config import DataConfig
from pitome.errors import PitomeError, UsageError
from pitome.records.files import write_atomically
from pitome.runs.compose import check_command_line, register_schema
from pitome.sources.fashion_mnist import VALIDATION, locate, read_split
from pitome.tasks.retrieval.clip import build_clip
from pitome.tasks.retrieval.scenes_make import CANVAS, EMPTY, KINDS, Scenes, make

FOLDER = Path(__file__).parent.parent / "results" / "dense"
MODEL = "clip_scenes"
METHODS = ("tome", "pitome", "crossget", "mctf", "tofu", "stride", "random")
RATIOS = (0.95, 0.9, 0.85)
SCENES = 500
PATCH = 4
SIDE = CANVAS // PATCH
CLASSES = 1 + len(KINDS)  # 0: the empty ground
INK = 25  # of 255: the mean of a patch from which on an item is there
UNCOUNTED = -1  # patches in the middle, where an item of another quarter may reach


def scenes_of(data: DataConfig, part: str, count: int, seed: int) -> Scenes:
    """Scenes of the test images of Fashion-MNIST, or of those that no training sees."""
    images, kinds = read_split(locate("auto", data.root, part, data.repository, data.revision), part)
    if part == "train":
        images, kinds = images[-VALIDATION:], kinds[-VALIDATION:]
    return make(images, kinds, count, np.random.RandomState(seed), distinct=False)


def labels(scenes: Scenes) -> Tensor:
    """What is at every patch, [S, N]: 0 the ground, 1.. the kinds of items, or `UNCOUNTED`."""
    ink = scenes.images.reshape(-1, SIDE, PATCH, SIDE, PATCH).mean(axis=(2, 4)) > INK
    half = SIDE // 2
    quarter = np.arange(SIDE) // half
    kinds = scenes.kinds[:, 2 * quarter[:, None] + quarter]
    found = np.where(ink & (kinds != EMPTY), kinds + 1, 0)
    found[:, half - 1 : half + 1] = found[:, :, half - 1 : half + 1] = UNCOUNTED
    return torch.from_numpy(found.reshape(len(found), -1)).long()


def features(tower: Any, scenes: Scenes, look: tuple[float, float], block: int) -> Tensor:
    """Of every patch, [S, N, C], after a block; look: mean and standard deviation that the model expects."""
    parts = []
    for batch in torch.from_numpy(scenes.images).split(100):
        pixels = ((batch[:, None] / 255 - look[0]) / look[1]).expand(-1, 3, -1, -1)
        with torch.no_grad():
            found = tower.forward_intermediates(
                pixels,
                indices=[block],
                intermediates_only=True,
                normalize_intermediates=True,
                output_fmt="NLC",
            )
        parts.append(found["image_intermediates"][0])
    return torch.cat(parts)


def fit(x: Tensor, truth: Tensor) -> Tensor:
    """The linear classifier [C + 1, K] with the least squared error on one-hot classes, of x [S, N, C]."""
    counted = truth != UNCOUNTED
    rows = _with_one(x[counted]).double()
    targets = torch.nn.functional.one_hot(truth[counted], CLASSES).double()
    gram = rows.mT @ rows
    return torch.linalg.solve(gram + 1e-6 * gram.trace() * torch.eye(len(gram)), rows.mT @ targets)


def score(x: Tensor, truth: Tensor, classifier: Tensor) -> dict[str, Any]:
    """Mean intersection over union of the classes, and the share of patches that are right in every scene."""
    guess, counted = (_with_one(x).double() @ classifier).argmax(dim=-1), truth != UNCOUNTED
    shares = []
    for kind in range(CLASSES):
        both = ((guess == kind) & (truth == kind)).sum()
        either = (((guess == kind) | (truth == kind)) & counted).sum()
        shares.append(float(both / either) if either else None)
    known = [share for share in shares if share is not None]
    right = ((guess == truth) & counted).sum(dim=1) / counted.sum(dim=1)
    return {"miou": sum(known) / len(known), "right": [round(value, 4) for value in right.tolist()]}


def measure(scenes: int) -> dict[str, Any]:
    """All rows, the unmerged model first."""
    ((config, _),) = check_command_line(["task=retrieval", f"model={MODEL}", "merge=none"], False)
    assert config.model.preprocess is not None
    look = config.model.preprocess.mean[0], config.model.preprocess.std[0]
    built = build_clip(config.model)
    tower: Any = pitome.patch(built.model, "none", ratio=1.0)._adapter.host
    pitome.remove(built.model)
    known, asked = scenes_of(config.data, "train", scenes, 1), scenes_of(config.data, "test", scenes, 0)
    truth = labels(asked)
    kinds, half, trials = labels(known), scenes // 2, []
    for block in range(len(tower.transformer.resblocks)):
        x = features(tower, known, look, block)
        trials.append(score(x[half:], kinds[half:], fit(x[:half], kinds[:half]))["miou"])
        print(f"after block {block}: mIoU {trials[-1]:.3f} on validation scenes", flush=True)
    block = max(range(len(trials)), key=trials.__getitem__)
    classifier = fit(features(tower, known, look, block), kinds)
    rows: list[dict[str, Any]] = []
    for method, ratio in [("none", 1.0), *((name, ratio) for ratio in RATIOS for name in METHODS)]:
        torch.manual_seed(0)  # the control draws
        with pitome.patch(built.model, method, ratio=ratio, dense=True) as patched:
            found = score(features(tower, asked, look, block), truth, classifier)
            left, share = patched.tokens[block + 1], pitome.flops(built.model).share
        rows.append({"method": method, "ratio": ratio, "tokens": left, "share": share, **found})
        print(f"{method} {ratio}: {left} tokens left, mIoU {found['miou']:.3f}", flush=True)
    return {"model": MODEL, "weights": built.sha256, "block": block, "trials": trials, "rows": rows}


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)


def main(words: Sequence[str]) -> int:
    """Returns the exit code."""
    try:
        number = words[-1].partition("=")[2] if words else str(SCENES)
        if len(words) > 1 or not number.isdecimal() or int(number) == 0:
            raise UsageError(f"give scenes=N, a whole number above 0, or nothing, not {' '.join(words)}")
        register_schema()
        content = measure(int(number))
        FOLDER.mkdir(exist_ok=True)
        write_atomically(FOLDER / f"{MODEL}.json", json.dumps(content).encode())
        print(FOLDER / f"{MODEL}.json")
    except (PitomeError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
