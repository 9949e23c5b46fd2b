"""A patched model through torch.export and ONNX, as it is deployed."""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import pitome
from pitome.errors import UsageError
from scripts.bench.groups import METHODS, RATIO, SMALL
from scripts.bench.record import Record
from scripts.bench.subjects import build

if TYPE_CHECKING:
    import onnxruntime

PART = "export"


def export_onnx(model: nn.Module, inputs: Tensor) -> bytes:
    """`model`, patched or not, as an ONNX file for inputs of the shape of `inputs`.

    The model must be in eval mode. Raises UsageError where the extra `export` is not installed.
    """
    _require("onnx", "onnxscript")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program: Any = torch.onnx.export(model, (inputs,), dynamo=True, verbose=False)
    program.save(buffer)
    return buffer.getvalue()


def onnx_session(file: bytes, threads: int) -> onnxruntime.InferenceSession:
    """An onnxruntime session for the model `file`, on `threads` threads of the CPU."""
    _require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def onnx_runner(model: nn.Module, inputs: Tensor) -> Callable[[], Tensor]:
    """One forward of `model` in onnxruntime, on as many threads as torch has now."""
    session = onnx_session(export_onnx(model, inputs), torch.get_num_threads())
    name, fed = session.get_inputs()[0].name, inputs.numpy()
    return lambda: torch.from_numpy(session.run(None, {name: fed})[0])


def _require(*modules: str) -> None:
    """Raises UsageError for a module that is not installed."""
    import importlib.util

    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"{missing[0]} is not installed; install the extra: pip install 'pitome[export]'")


def differences(model: nn.Module, inputs: Tensor) -> dict[str, float]:
    """The largest difference of what `model` computes through torch.export and through onnxruntime from
    what it computes as it is."""
    with torch.no_grad():
        want = model(inputs)
        exported = torch.export.export(model, (inputs,)).module()(inputs)
        again = onnx_runner(model, inputs)()
    calls = {"torch_export": exported, "onnxruntime": again}
    return {name: (got - want).abs().max().item() for name, got in calls.items()}


def compare(
    record: Record,
    deadline: float,
    model: str = SMALL,
    size: int = 224,
    methods: Sequence[str] = METHODS,
    ratio: float = RATIO,
) -> bool:
    """The differences of every method on one image, on the CPU in float32. Returns whether all of them
    are in `record`."""
    for method in methods:
        key = f"{model}, {method}" + ("" if ratio == RATIO else f", ratio {ratio}")
        if record.find(PART, key) is not None:
            continue
        if time.monotonic() > deadline:
            return False
        subject = build(model, 1, size)
        with pitome.patch(subject.model, method, ratio=ratio):
            record.keep(PART, key, differences(subject.model, subject.inputs))
    return True
