"""LLaVA with merging as a model of lmms-eval: what its command needs. Imports no torch.

Checked with lmms-eval 0.7.3; `scripts/lmms.py`, docs/vqa_data.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pitome.errors import UsageError

NAME = "pitome_llava"
"""Of the model in lmms-eval."""


def options_of(given: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Of a task's generation settings: new tokens at most (128 if it does not say), and what ends an
    answer. Raises UsageError for a task that samples or searches beams."""
    if given.get("do_sample") or (given.get("temperature") or 0) > 0 or (given.get("num_beams") or 1) > 1:
        raise UsageError(f"{NAME} answers greedily; this task asks for sampling or several beams")
    until = given.get("until") or []
    return int(given.get("max_new_tokens") or 128), [until] if isinstance(until, str) else list(until)


def cut(text: str, until: Sequence[str]) -> str:
    """`text` up to the first of the words that end an answer."""
    text = text.strip()
    for word in until:
        text = text.split(word)[0] if word else text
    return text.strip()


def chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """`items` in their order, `size` at a time."""
    return [items[at : at + size] for at in range(0, len(items), size)]


def register() -> None:
    """Make `--model pitome_llava` known to lmms-eval. Raises UsageError where it is not installed."""
    try:
        from lmms_eval.models import MODEL_REGISTRY_V2
        from lmms_eval.models.registry_v2 import ModelManifest
    except ImportError as problem:
        raise UsageError(
            f"lmms-eval >= 0.7 is needed ({problem}); pip install -e '.[experiments,lmms]' in an environment "
            "of its own, see docs/vqa_data.md"
        ) from None
    manifest = ModelManifest(NAME, simple_class_path="pitome.cli.lmms_model.PitomeLlava")
    MODEL_REGISTRY_V2.register_manifest(manifest, overwrite=True)
