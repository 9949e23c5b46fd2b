"""docs/models.md: which models of timm can be patched, and why others cannot.

Every name that timm registers is looked at without building it: its constructor and arguments are
recorded. Of names that differ in size alone one is built, tiny and without weights, and given to the
timm adapter.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import timm
import torch
from timm.layers import Mlp, PatchEmbed, RmsNorm, SwiGLU, SwiGLUPacked
from timm.models import vision_transformer as vit
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from pitome.adapters.timm import adapt
from pitome.errors import UnsupportedModelError
from pitome.records.markdown import markdown_table

# What may differ between models of one structure: numbers that change neither what is computed
# nor in which order. The rest (norms, activations, pools, prefix tokens, ...) is the structure.
_SIZES = frozenset(
    {"img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "num_classes", "in_chans"}
)
# Arguments of timm's builder, not of the model.
_BUILDER = frozenset({"pretrained_filter_fn", "feature_cfg", "pretrained_strict", "pretrained_cfg"})
_TINY: dict[str, Any] = {"embed_dim": 32, "num_heads": 2, "patch_size": 4, "img_size": 16}
_DEPTH = 2
_HYBRID_SIZE = 64  # pixels: at least 2 x 2 patches after every stem of timm


@dataclasses.dataclass(frozen=True)
class TimmModel:
    """What timm would build under `name`: a class and its arguments."""

    name: str
    cls: type[nn.Module]
    args: dict[str, Any]

    @property
    def file(self) -> str:
        """The file of timm that registers the name."""
        return timm.models._registry._model_entrypoints[self.name].__module__.rpartition(".")[2]

    @property
    def is_vit(self) -> bool:
        return issubclass(self.cls, vit.VisionTransformer)

    @property
    def stem(self) -> nn.Module | None:
        """The convolutions before the tokens of a hybrid model."""
        return getattr(self.args.get("embed_layer"), "keywords", {}).get("backbone")

    @property
    def structure(self) -> str:
        """Equal for models that differ in size alone."""
        args = {key: value for key, value in self.args.items() if key not in _SIZES | _BUILDER}
        args["embed_layer"] = type(self.stem).__name__
        args["init_values"] = bool(args.get("init_values"))
        return f"{self.cls.__qualname__} {sorted((key, str(value)) for key, value in args.items())}"


def recipes(files: set[str] | None = None) -> list[TimmModel]:
    """What every name in `files` of timm (default: all) stands for, in timm's order."""
    out = []
    with _recording() as record, torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in timm.list_models():
            entry = timm.models._registry._model_entrypoints[name]
            if files is None or entry.__module__.rpartition(".")[2] in files:
                with contextlib.suppress(_Recorded):
                    entry(pretrained=False)
                out.append(TimmModel(name, *record.pop()))
    return out


def relatives() -> set[str]:
    """The files of timm that use `Block` or `VisionTransformer` of its vision_transformer.py."""
    return {
        module.__name__.rpartition(".")[2]
        for module in _files()
        if any(value in (vit.Block, vit.VisionTransformer) for value in _classes(module))
        and hasattr(module, "register_model")
    }


def tiny(recipe: TimmModel) -> nn.Module:
    """A model of the structure of a `VisionTransformer` recipe: 2 blocks, width 32, 16 patches, 5
    classes; after a stem, which fixes the width, that width and the patches of 64 pixels."""
    sizes: dict[str, Any] = _TINY if recipe.stem is None else {"img_size": _HYBRID_SIZE}
    return timm.create_model(recipe.name, num_classes=5, depth=_DEPTH, **sizes).eval()


def smallest(group: list[TimmModel]) -> TimmModel:
    """The narrowest of models of one structure."""
    return min(group, key=lambda recipe: recipe.args.get("embed_dim", 0))


def by_structure(models: list[TimmModel]) -> dict[str, list[TimmModel]]:
    """Models in groups of one structure, in the order in which the structures come."""
    groups: dict[str, list[TimmModel]] = {}
    for recipe in models:
        groups.setdefault(recipe.structure, []).append(recipe)
    return groups


def verdict(model: nn.Module) -> str | None:
    """None if the timm adapter takes `model`, else its reason."""
    try:
        needed = adapt(model, model).reads_all
    except UnsupportedModelError as problem:
        return re.sub(r"^cannot patch[^:]*: ", "", str(problem))
    return f"{needed}; with `dense=True`" if needed else None


def tables() -> dict[str, str]:
    """The tables of the page for the installed timm, by their names in its markers."""
    related = relatives()
    all_recipes = recipes()
    patched: dict[tuple[str, ...], list[str]] = defaultdict(list)
    refused: dict[str, list[str]] = defaultdict(list)
    for group in by_structure([recipe for recipe in all_recipes if recipe.is_vit]).values():
        with torch.device("meta"):
            model = tiny(smallest(group))
        reason, names = verdict(model), [recipe.name for recipe in group]
        if reason is None:
            patched[_features(model)] += names
        else:
            refused[_code(reason)] += names
    near: dict[str, list[str]] = defaultdict(list)
    far: Counter[str] = Counter()
    for recipe in all_recipes:
        if recipe.file in related and not recipe.is_vit:
            near[recipe.cls.__qualname__].append(recipe.name)
        elif not recipe.is_vit:
            far[recipe.file] += 1
    total = [timm.__version__, str(len(all_recipes)), str(sum(map(len, patched.values())))]
    features = ["protected tokens", "output", "parts", "closed form of the cost", "names"]
    reasons = [(reason, names) for reason, names in sorted(refused.items())] + [
        (f"`{cls}`: uses `Block` in a model that is no `VisionTransformer`", names)
        for cls, names in sorted(near.items())
    ]
    return {
        "timm": markdown_table(["timm", "names", "of them patched"], [total]),
        "patched": markdown_table(
            features, [[*key, _names(names)] for key, names in sorted(patched.items())]
        ),
        "arguments": markdown_table(
            ["argument", "patched"], [[f"`{text}`", verdict_of(args)] for text, args in _ARGUMENTS.items()]
        ),
        "refused": markdown_table(
            ["reason", "names"], [[reason, _names(names)] for reason, names in reasons]
        ),
        "others": ", ".join(f"`{file}` ({count})" for file, count in sorted(far.items())),
    }


def verdict_of(args: dict[str, Any]) -> str:
    """What becomes of a tiny `VisionTransformer` with these arguments, in a cell of the page."""
    with torch.device("meta"):
        reason = verdict(vit.VisionTransformer(depth=1, **_TINY, **args))
    return "yes" if reason is None else f"no: {_code(reason)}"


_ARGUMENTS: dict[str, dict[str, Any]] = {
    "dynamic_img_size=True": {"dynamic_img_size": True},
    "dynamic_img_size=True, dynamic_img_pad=True": {"dynamic_img_size": True, "dynamic_img_pad": True},
    'global_pool="token"': {"global_pool": "token"},
    'global_pool="avg"': {"global_pool": "avg"},
    'global_pool="map"': {"global_pool": "map"},
    'global_pool="max"': {"global_pool": "max"},
    'global_pool="avgmax"': {"global_pool": "avgmax"},
    'global_pool="prr"': {"global_pool": "prr"},
    'global_pool=""': {"global_pool": ""},
    "pool_include_prefix=True": {"pool_include_prefix": True},
    "class_token=False": {"class_token": False, "global_pool": "avg"},
    "reg_tokens=4": {"reg_tokens": 4},
    "no_embed_class=True": {"no_embed_class": True},
    'pos_embed="none"': {"pos_embed": "none"},
    "qk_norm=True": {"qk_norm": True},
    "scale_attn_norm=True, scale_mlp_norm=True": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "pre_norm=True": {"pre_norm": True},
    "fc_norm=True": {"fc_norm": True},
    "init_values=1e-5": {"init_values": 1e-5},
    "drop_path_rate=0.1": {"drop_path_rate": 0.1},
    "patch_drop_rate=0.5": {"patch_drop_rate": 0.5},
    "mlp_layer=SwiGLU": {"mlp_layer": SwiGLU},
    "mlp_layer=SwiGLUPacked": {"mlp_layer": SwiGLUPacked},
    'attn_layer="diff"': {"attn_layer": "diff"},
}


def _features(model: Any) -> tuple[str, ...]:
    """Protected tokens, output, parts and whether the cost has a closed form, in words."""
    prefix = ["class"] if model.has_class_token else []
    distilled = isinstance(model, VisionTransformerDistilled)
    prefix += ["distillation"] if distilled else []
    registers = model.num_reg_tokens
    prefix += [f"{registers} register" + "s" * (registers > 1)] if registers else []
    pooled = "of all tokens" if model.pool_include_prefix else "of the patches"
    read = "class and distillation tokens" if distilled else "class token"
    output = {"token": read, "avg": f"mean {pooled}", "map": f"attention pool {pooled}"}
    block = model.blocks[0]
    parts = {
        "LayerScale": not isinstance(block.ls1, nn.Identity),
        "norm of queries and keys": not isinstance(block.attn.k_norm, nn.Identity),
        "norm inside attention and MLP": not isinstance(block.attn.norm, nn.Identity),
        "norm before the blocks": not isinstance(model.norm_pre, nn.Identity),
        "RMSNorm": isinstance(block.norm1, RmsNorm),
        f"`{type(block.mlp).__name__}`": type(block.mlp) is not Mlp,
        "no position embeddings": model.pos_embed is None,
        "convolutional stem": type(model.patch_embed) is not PatchEmbed,
    }
    return (
        ", ".join(prefix) or "none",
        output[model.global_pool],
        ", ".join(part for part, there in parts.items() if there) or "none",
        "yes" if type(model.patch_embed) is PatchEmbed else "no",
    )


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _code(reason: str) -> str:
    """A reason as a cell of a table."""
    return reason.replace("|", "\\|").replace("_", "\\_")


class _Recorded(Exception):
    pass


@contextlib.contextmanager
def _recording() -> Iterator[list[tuple[Any, dict[str, Any]]]]:
    """Within it, timm's builder notes class and arguments instead of building, but for the feature
    extractor that is another model's stem."""
    record: list[tuple[Any, dict[str, Any]]] = []
    builder = timm.models._builder.build_model_with_cfg

    def note(cls: Any, variant: str, pretrained: bool, **args: Any) -> nn.Module:
        if args.get("features_only"):
            stem: nn.Module = builder(cls, variant, pretrained, **args)
            return stem
        record.append((cls, args))
        raise _Recorded

    files = [module for module in _files() if vars(module).get("build_model_with_cfg") is builder]
    try:
        for module in files:
            module.build_model_with_cfg = note  # type: ignore[attr-defined]
        yield record
    finally:
        for module in files:
            module.build_model_with_cfg = builder  # type: ignore[attr-defined]


def _files() -> list[ModuleType]:
    return [module for name, module in sorted(sys.modules.items()) if name.startswith("timm.models.")]


def _classes(module: ModuleType) -> list[type]:
    return [value for value in vars(module).values() if inspect.isclass(value)]
