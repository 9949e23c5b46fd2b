"""How much merging changes a model's outputs, on samples that are none of the test split."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pitome.adapters.patch import InputSize
from pitome.errors import UsageError
from pitome.measure.copies import evaluating

SAMPLES = 2000
"""That are compared where no limit is given."""

AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


@dataclass
class Probe:
    """A model that is not patched, and samples on which its outputs are compared with and without merging."""

    model: nn.Module  # what `pitome.patch` takes, in eval mode
    batches: Sequence[Any]  # tensors, or mappings or tuples with tensors in them
    run: Callable[[Any], Tensor]  # a batch -> logits or features [B, ..., D]
    # `kl`: mean of KL(unmerged || merged), nats, of the distributions that the logits mean;
    # `cosine`: mean of 1 - cosine of the features
    compare: Literal["kl", "cosine"]
    facts: Mapping[str, Any] = field(default_factory=dict)  # what a card says of model and samples
    # For `flops=` where the model does not fix it; a mapping where samples differ in their number of tokens.
    input_size: InputSize = None
    timed: Callable[[], tuple[nn.Module, Any]] | None = None  # module and inputs whose speed counts
    # batches with labels [B] to learn from, without end; None: nothing can be learned
    training: Callable[[], Iterable[tuple[Any, Tensor | None]]] | None = None
    trace: bool = False  # `run` asks which tokens merged
    precision: str = "32"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        self._reference: list[Tensor] | None = None

    @property
    def by_ratio(self) -> bool:
        """Whether layers keep shares of their tokens, since samples differ in their number."""
        return isinstance(self.input_size, Mapping)

    @property
    def reference(self) -> list[Tensor]:
        """The outputs without merging, of a model that is not patched; computed once. Raises UsageError where
        they are not finite."""
        if self._reference is None:
            outputs = list(self.outputs())
            if any(not output.isfinite().all() for output in outputs):
                raise UsageError(
                    "the unmerged model's outputs are not finite (NaN), so nothing can be compared; "
                    "check its weights, or use precision=32"
                )
            self._reference = outputs
        return self._reference

    def outputs(self) -> Iterator[Tensor]:
        """Of each batch, as the model is now, in float32 on the CPU."""
        with evaluating(self.model):
            for batch in self.batches:
                with self.computing():
                    yield self.run(to_device(batch, self.device)).float().cpu()

    def computing(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision not in AUTOCAST:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, AUTOCAST[self.precision])

    def disagreement(self, reference: Sequence[Tensor]) -> float:
        """Between the model as it is now and without merging, see `compare`; NaN if an output is."""
        total, count = 0.0, 0
        for before, after in zip(reference, self.outputs(), strict=True):
            each = disagreements(self.compare, before, after)
            total, count = total + float(each.double().sum()), count + len(each)
        return total / count


def disagreements(compare: Literal["kl", "cosine"], before: Tensor, after: Tensor) -> Tensor:
    """Of each sample, [B]: outputs [B, ..., D] without and with merging."""
    if compare == "cosine":
        each = 1 - functional.cosine_similarity(before, after, dim=-1)
    else:
        log_before, log_after = before.log_softmax(dim=-1), after.log_softmax(dim=-1)
        each = functional.kl_div(log_after, log_before, reduction="none", log_target=True).sum(dim=-1)
    return each if each.ndim == 1 else each.flatten(1).mean(dim=1)


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch with its tensors on `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_replace"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, tuple):
        return tuple(to_device(value, device) for value in batch)
    return batch


def regroup(batches: Iterable[Tensor], chosen: Sequence[int], size: int) -> list[Tensor]:
    """The samples at these places, ascending, of batches [B, ...], in batches of `size`."""
    rows, start, wanted = [], 0, torch.as_tensor(list(chosen))
    for batch in batches:
        inside = wanted[(wanted >= start) & (wanted < start + len(batch))] - start
        rows.append(batch[inside])
        start += len(batch)
    return list(torch.cat(rows).split(size))


def describe(info: Any, count: int) -> dict[str, Any]:
    """What a card says of samples. info: a `DataInfo`."""
    fields = {item.name: getattr(info, item.name) for item in dataclasses.fields(info)}
    return {
        "data": f"{fields['name']}, revision {fields['revision']}",
        "split": fields["split"],
        "samples": count,
    }
