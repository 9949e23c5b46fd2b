"""transformers: text encoders and image towers (checked on 5.23).

Text: BertModel, DistilBertModel (`text.py`). Images: the towers that `vision.py` names, and that of LLaVA-1.5
(`llava.py`); the text part of such a model stays as it is.
"""

from __future__ import annotations

from torch import nn

from pitome.adapters.core import Adapter
from pitome.adapters.transformers import llava, text, vision

_TEXT = tuple(kind.host for kind in text.KINDS)
HOSTS = (*_TEXT, *(kind.host for kind in vision.KINDS))


def adapt(model: nn.Module, host: nn.Module) -> Adapter:
    """The adapter of the encoder `host` in `model`.

    Raises UnsupportedModelError if it computes something the patch does not know.
    """
    if isinstance(host, _TEXT):
        return text.adapt(model, host)
    return llava.adapt(model, host) or vision.adapt(model, host)
