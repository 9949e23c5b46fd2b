"""Where a model's weights come from: `pretrained`, `random` or a file. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitome.errors import CheckpointError
from pitome.sources.checkpoint_files import PUBLISHED, check_checkpoint
from pitome.sources.hub import check_reach, fetch_folder

SHIPPED = Path(__file__).parent / "shipped"  # <model>.safetensors beside its card <model>.md
_FILES = ("model.safetensors", "pytorch_model.bin")  # in repositories of timm and transformers
_OTHERWISE = "give the file with weights=PATH, or use weights=random"


@dataclass(frozen=True)
class Weights:
    """The weights a run asks for."""

    source: str  # random, shipped, hub or file
    name: str  # of the file, or the hub's repository
    path: Path | None = None  # of the file; None if there is none (yet)
    revision: str | None = None  # of the hub's repository, a commit once fetched

    def record(self, sha256: str | None) -> dict[str, Any]:
        """The entries of a record; the path stays out of it."""
        name = f"{self.name}@{self.revision}" if self.revision else self.name
        return {"name": name, "source": self.source, "sha256": sha256, "random": self.source == "random"}


def find_weights(name: str, checkpoint: str, weights: str, task: str = "classification") -> Weights:
    """Check what can be checked of `weights` for the model `name`, without torch and network.

    weights: pretrained, random or a path; checkpoint: what pretrained means, one of `shipped`,
    `hub:<repository>@<revision>`, a URL (a file that the user downloads) and nothing; task: of the model, for
    the command that trains it. A path may be a folder
    with the files of several models, each under its model's name or as the URL calls it, or with one
    model's as the hub names them: a model that has none there and is shipped or on the hub is taken from
    there. Raises CheckpointError for a missing or damaged file, and for pretrained where at most a URL is
    known.
    """
    if weights == "random":
        return Weights("random", "random")
    if weights != "pretrained" and (folder := Path(weights).expanduser()).is_dir():
        weights = _in_folder(folder, name, checkpoint)
    if weights != "pretrained":
        path = Path(weights).expanduser()
        check_checkpoint(path)
        return Weights("file", path.name, path)
    if checkpoint == "shipped":
        path = SHIPPED / f"{name}.safetensors"
        if not path.is_file():
            raise CheckpointError(
                f"{name} has no shipped weights yet: train it (python run.py task={task} mode=train "
                f"model={name}), give weights=PATH, or use weights=random"
            )
        check_checkpoint(path)
        return Weights("shipped", path.name, path)
    if checkpoint.startswith("hub:"):
        repo, _, revision = checkpoint.removeprefix("hub:").partition("@")
        if not re.fullmatch(r"([\w.-]+/)?[\w.-]+", repo):
            raise CheckpointError(
                f"model={name}: {checkpoint} names no repository; write hub:OWNER/NAME@REVISION"
            )
        return Weights("hub", repo, revision=revision or "main")
    if not checkpoint:
        raise CheckpointError(f"model={name} names no checkpoint: {_OTHERWISE}")
    if "://" not in checkpoint:
        raise CheckpointError(
            f"model={name} names the checkpoint {checkpoint}, which is neither shipped nor "
            f"hub:OWNER/NAME@REVISION nor a URL; correct it, or {_OTHERWISE}"
        )
    raise CheckpointError(
        f"{name}'s classifier is not on the hub: download {checkpoint} and give weights=PATH, "
        "or use weights=random"
    )


def _in_folder(folder: Path, name: str, checkpoint: str) -> str:
    """The file of a model in a folder: named after the model, or as its URL calls it, or the one that the
    folder of a hub's repository holds; `pretrained` where it has none and needs none."""
    url = "" if checkpoint.startswith("hub:") else checkpoint.rpartition("/")[2]
    names = [url, *(f"{name}{ending}" for ending in (".safetensors", ".pth", ".pt", ".bin")), *PUBLISHED]
    for file in names:
        if file and (folder / file).is_file():
            return str(folder / file)
    if checkpoint.startswith("hub:") or checkpoint == "shipped":
        return "pretrained"
    if checkpoint:
        raise CheckpointError(f"{folder} has no {url}: download {checkpoint} into it")
    raise CheckpointError(f"{folder} holds neither {name}.safetensors, {name}.pth nor {', '.join(PUBLISHED)}")


def find_text_weights(model: str, data: str, source: str | None, weights: str) -> Weights:
    """As `find_weights`, for a text model, whose weights=pretrained is a classifier for `data`.

    source: of that classifier, None if there is none. Raises CheckpointError likewise.
    """
    name = f"{model}_{data}"
    lacks = source is None or (source == "shipped" and not (SHIPPED / f"{name}.safetensors").is_file())
    if weights == "pretrained" and lacks:
        raise CheckpointError(
            f"model={model} has no classifier for data={data}: train it (python run.py mode=train task=text "
            f"model={model} data={data}), give weights=PATH, or use weights=random"
        )
    return find_weights(name, source or "", weights)


def check_hub(weights: Weights) -> None:
    """Whether weights of the hub are available at all; see `pitome.sources.hub.check_reach`."""
    if weights.source == "hub":
        assert weights.revision is not None
        check_reach(weights.name, revision=weights.revision, error=CheckpointError, otherwise=_OTHERWISE)


def fetch_weights(weights: Weights, files: Sequence[str] = _FILES) -> Weights:
    """Bring hub weights into the hub's cache; the revision becomes the commit. Others stay as they are.
    files: what the file may be called, the first that the repository has is taken.

    Raises CheckpointError, one line with the three ways to provide the file, when it is not available.
    """
    if weights.source != "hub":
        return weights
    assert weights.revision is not None
    folder = fetch_folder(
        weights.name, files, revision=weights.revision, error=CheckpointError, otherwise=_OTHERWISE
    )
    path = next(path for file in files if (path := folder / file).is_file())
    return Weights("hub", weights.name, path, folder.name)
