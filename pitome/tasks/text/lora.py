"""Low-rank adapters (Hu et al., ICLR 2022) through peft, kept with the head in one small file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from pitome.errors import CheckpointError
from pitome.sources.checkpoints import check_fit, load_checkpoint

_KEY = "lora"  # of the file's metadata
_OTHER_NAMES = {
    "query": "q_lin",
    "key": "k_lin",
    "value": "v_lin",
    "dense": "out_lin",
}  # of BERT in DistilBERT
_HEADS = ("classifier", "pre_classifier", "pooler")  # trained as a whole: parts after the encoder


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters: the update of a weight W is alpha / rank * B A."""

    rank: int
    alpha: float
    targets: tuple[str, ...]  # names of the linear layers that get one
    dropout: float = 0.0  # of their inputs while training


def targets_of(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """The names of layers of `model`; BERT's stand for those of other encoders."""
    present = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    return tuple(name if name in present else _OTHER_NAMES.get(name, name) for name in names)


def add_lora(model: nn.Module, lora: Lora) -> nn.Module:
    """Put adapters into `model`, in place; only they and the head stay trainable. Returns the model.

    Raises CheckpointError where no layer has a name in `targets`.
    """
    _wrap(model, lora)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name or _is_head(name)
    return model


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of adapters and head, by name."""
    state = model.state_dict()
    return {key: value for key, value in state.items() if "lora_" in key or _is_head(key)}


def metadata(lora: Lora) -> dict[str, str]:
    """What the file of an adapter says of itself."""
    values = {"rank": lora.rank, "alpha": lora.alpha, "targets": list(lora.targets)}
    return {_KEY: json.dumps(values)}


def read_lora(path: Path) -> Lora | None:
    """The adapter's settings in a safetensors file; None for a file that holds a whole model."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > 100_000_000:
            return None  # a torch zip
        header = file.read(length)
    try:
        text = json.loads(header).get("__metadata__", {}).get(_KEY)
        if text is None:
            return None
        values = json.loads(text)
        return Lora(int(values["rank"]), float(values["alpha"]), tuple(values["targets"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{path}: its settings of the adapters cannot be read; train it again"
        ) from None


def merge_adapter(model: nn.Module, lora: Lora, path: Path) -> tuple[nn.Module, str]:
    """Load adapters and head into the base `model` and add the adapters to its weights.

    Returns a model of plain layers and the file's sha256. Raises CheckpointError for tensors that do not
    fit.
    """
    wrapped = _wrap(model, lora)
    checkpoint = load_checkpoint(path, adapter_state(model))
    check_fit(adapter_state(model), checkpoint)
    model.load_state_dict(dict(checkpoint.state), strict=False)
    return wrapped.merge_and_unload(), checkpoint.sha256  # type: ignore[operator]


def _wrap(model: nn.Module, lora: Lora) -> nn.Module:
    """peft's wrapper; `model` itself gets the adapters."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
    )
    try:
        return get_peft_model(model, config)
    except ValueError as problem:
        raise CheckpointError(
            f"no layer for adapters ({' '.join(str(problem).split())[:200]}); "
            "give names of linear layers in trainer.lora.targets"
        ) from None


def _is_head(name: str) -> bool:
    return any(part in _HEADS for part in name.split("."))
