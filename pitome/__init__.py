"""Token merging in transformers: reproduced, compared and used.

>>> import pitome
>>> patched = pitome.patch(model, "pitome", ratio=0.925)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same for type checkers
    from pitome import errors as errors
    from pitome.adapters.patch import Patched as Patched
    from pitome.adapters.patch import patch as patch
    from pitome.adapters.patch import patched as patched
    from pitome.adapters.patch import remove as remove
    from pitome.measure.flops import flops as flops
    from pitome.measure.throughput import throughput as throughput
    from pitome.merge.plan import Plan as Plan
    from pitome.merge.plan import Tokens as Tokens
    from pitome.merge.registry import Guarantees as Guarantees
    from pitome.merge.registry import MethodOptions as MethodOptions
    from pitome.merge.registry import names as methods  # noqa: F401
    from pitome.merge.registry import register as register
    from pitome.search.tune import tune as tune

__version__ = "0.1.0"

# Public name -> where it lives. Resolved on first use: importing pitome imports no torch.
_PUBLIC = {
    "patch": "pitome.adapters.patch:patch",
    "patched": "pitome.adapters.patch:patched",
    "remove": "pitome.adapters.patch:remove",
    "load": "pitome.adapters.saved:load",
    "Patched": "pitome.adapters.patch:Patched",
    "methods": "pitome.merge.registry:names",
    "register": "pitome.merge.registry:register",
    "MethodOptions": "pitome.merge.registry:MethodOptions",
    "Guarantees": "pitome.merge.registry:Guarantees",
    "Plan": "pitome.merge.plan:Plan",
    "Tokens": "pitome.merge.plan:Tokens",
    "flops": "pitome.measure.flops:flops",
    "tune": "pitome.search.tune:tune",
    "throughput": "pitome.measure.throughput:throughput",
    "errors": "pitome.errors:",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pitome' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
