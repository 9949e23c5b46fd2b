"""transformers: text encoders and image towers (checked on 5.23).

Text: BertModel, DistilBertModel (`text.py`). Images: the towers of CLIP, SigLIP, BLIP
and BLIP-2, and ViT (`vision.py`), and of LLaVA-1.5 (`llava.py`); the text part
of such a model stays as it is.
"""

from __future__ import annotations

from torch import nn

from pitome.adapters.core import Adapter
from pitome.adapters.transformers import llava, text, vision
from pitome.errors import UnsupportedModelError
from pitome.sources.llava_family import KNOWN, MISSING

_TEXT = tuple(kind.host for kind in text.KINDS)
_IMAGES = tuple(kind.host for kind in vision.KINDS)


def adapt(model: nn.Module) -> Adapter:
    """The adapter of the one encoder in `model`.

    Raises UnsupportedModelError if there is none or more than one, or if it computes something the
    patch does not know.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind in MISSING:
        raise UnsupportedModelError(f"cannot patch {type(model).__name__}: {MISSING[kind]}; {KNOWN}")
    found = [module for module in model.modules() if isinstance(module, _TEXT + _IMAGES)]
    if len(found) != 1:
        what = f"{len(found)} of them" if found else f"{type(model).__module__}.{type(model).__qualname__}"
        names = " or ".join(cls.__name__ for cls in _TEXT + _IMAGES)
        raise UnsupportedModelError(
            f"cannot patch {type(model).__name__}: looked for one {names} of transformers, found {what}; "
            "pass the part of the model that is one"
        )
    host = found[0]
    if isinstance(host, _TEXT):
        return text.adapt(model, host)
    return llava.adapt(model, host) or vision.adapt(model, host)
