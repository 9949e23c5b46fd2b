"""A child process that runs one side, the authors' implementation or ours: reference_worker.py SETTINGS.json.

It runs its model once, prints `ready`, and then answers every line it reads with the seconds of one forward
in the asked dtype: CPU time, on CUDA wall time until the device is done. In the end it writes what the model
makes of the inputs in float32 and, with the weights as they were timed, in float64. Their code is imported
file by file: the `__init__` of their packages imports libraries (LAVIS among them) that a DeiT does not need.
"""

from __future__ import annotations

import collections.abc
import contextlib
import importlib
import json
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(path: str) -> None:
    settings = json.loads(Path(path).read_text())
    # What their code prints is not an answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    with contextlib.redirect_stdout(sys.stderr):
        model, x = _load(settings)
        import torch
        from safetensors.torch import save_file

        with torch.no_grad():
            single = _tensor(model(x)).contiguous()
            dtype = getattr(torch, settings["dtype"])
            model, x = model.to(dtype), x.to(dtype)
            seconds = _stopwatch(settings["device"])
            seconds(lambda: model(x))
            print("ready", file=answers, flush=True)
            for _ in sys.stdin:
                print(seconds(lambda: model(x)), file=answers, flush=True)
            double = _tensor(model.double()(x.double())).contiguous()
            save_file({"single": single.cpu(), "double": double.cpu()}, settings["output"])


def _stopwatch(device: str) -> Callable[[Callable[[], object]], float]:
    """Seconds of one call on `device`."""
    import torch

    def seconds(call: Callable[[], object]) -> float:
        clock = time.process_time if device == "cpu" else time.perf_counter
        start = clock()
        call()
        if device != "cpu":
            torch.cuda.synchronize(device)
        return clock() - start

    return seconds


def _load(settings: dict[str, Any]) -> tuple[Any, Any]:
    """The patched model of one side with the weights of both, and the inputs."""
    sys.path[:0] = [folder for folder in (settings["timm"], settings["folder"]) if folder]
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(settings["threads"])
    if importlib.util.find_spec("torch._six") is None:  # timm 0.4 asks for it; torch 2 has it no more
        six: Any = types.ModuleType("torch._six")
        six.container_abcs, six.string_classes, six.int_classes = collections.abc, (str,), int
        sys.modules["torch._six"] = six
    from timm.models.vision_transformer import VisionTransformer

    model: Any = VisionTransformer(**settings["args"])
    tensors = load_file(settings["tensors"])
    x = tensors.pop("input").to(settings["device"])
    model.load_state_dict(tensors)
    model.to(settings["device"]).eval()
    if settings["module"] is None:
        import pitome

        pitome.patch(model, settings["method"], ratio=settings["ratio"])
        return model, x
    _import(Path(settings["folder"]), settings["module"]).apply_patch(model)
    if hasattr(model, "init_kept_num_using_ratio"):
        model.init_kept_num_using_ratio(settings["ratio"])
    model.ratio = settings["ratio"]
    return model, x


def _import(checkout: Path, name: str) -> Any:
    """The module `name` without the `__init__` of its packages."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        package = types.ModuleType(".".join(parts[:depth]))
        package.__path__ = [str(checkout.joinpath(*parts[:depth]))]
        sys.modules[package.__name__] = package
    return importlib.import_module(name)


def _tensor(output: Any) -> Any:
    """Their forward returns the logits and a count of operations."""
    return output[0] if isinstance(output, tuple) else output


if __name__ == "__main__":
    main(sys.argv[1])
