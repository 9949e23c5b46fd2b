"""Which models of timm can be patched, and why others cannot: python scripts/models.py

Writes docs/models.md. Every name that timm registers is looked at without building it: its
constructor and arguments are recorded. Of names that differ in size alone one is built, tiny and
without weights, and given to the timm adapter.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import timm
import torch
from timm.layers import Mlp, PatchEmbed, RmsNorm, SwiGLU, SwiGLUPacked
from timm.models import vision_transformer as vit
from timm.models.deit import VisionTransformerDistilled
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from pitome.adapters.timm import adapt
from pitome.errors import UnsupportedModelError

PAGE = Path(__file__).parent.parent / "docs" / "models.md"

# What may differ between models of one structure: numbers that change neither what is computed
# nor in which order. The rest (norms, activations, pools, prefix tokens, ...) is the structure.
_SIZES = frozenset(
    {"img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "num_classes", "in_chans"}
)
# Arguments of timm's builder, not of the model.
_BUILDER = frozenset({"pretrained_filter_fn", "feature_cfg", "pretrained_strict", "pretrained_cfg"})
_TINY = {"embed_dim": 32, "num_heads": 2, "patch_size": 4, "img_size": 16}
_DEPTH = 2
_HYBRID_SIZE = 64  # pixels: at least 2 x 2 patches behind every stem of timm


@dataclasses.dataclass(frozen=True)
class Recipe:
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


def recipes(files: set[str] | None = None) -> list[Recipe]:
    """What every name in `files` of timm (default: all) stands for, in timm's order."""
    out = []
    with _recording() as record, torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in timm.list_models():
            entry = timm.models._registry._model_entrypoints[name]
            if files is None or entry.__module__.rpartition(".")[2] in files:
                with contextlib.suppress(_Recorded):
                    entry(pretrained=False)
                out.append(Recipe(name, *record.pop()))
    return out


def relatives() -> set[str]:
    """The files of timm that use `Block` or `VisionTransformer` of its vision_transformer.py."""
    return {
        module.__name__.rpartition(".")[2]
        for module in _files()
        if any(value in (vit.Block, vit.VisionTransformer) for value in _classes(module))
        and hasattr(module, "register_model")
    }


def tiny(recipe: Recipe) -> nn.Module:
    """A model of the structure of a `VisionTransformer` recipe: 2 blocks, width 32, 16 patches, 5
    classes; behind a stem, which fixes the width, that width and the patches of 64 pixels."""
    sizes = _TINY if recipe.stem is None else {"img_size": _HYBRID_SIZE}
    return timm.create_model(recipe.name, num_classes=5, depth=_DEPTH, **sizes).eval()


def smallest(group: list[Recipe]) -> Recipe:
    """The narrowest of models of one structure."""
    return min(group, key=lambda recipe: recipe.args.get("embed_dim", 0))


def by_structure(found: list[Recipe]) -> dict[str, list[Recipe]]:
    """Models in groups of one structure, in the order in which the structures come."""
    groups: dict[str, list[Recipe]] = {}
    for recipe in found:
        groups.setdefault(recipe.structure, []).append(recipe)
    return groups


def verdict(model: nn.Module) -> str | None:
    """None if the timm adapter takes `model`, else its reason."""
    try:
        adapt(model)
    except UnsupportedModelError as problem:
        return re.sub(r"^cannot patch[^:]*: ", "", str(problem))
    return None


def page() -> str:
    """The text of docs/models.md for the installed timm."""
    related = relatives()
    found = recipes()
    vits = [recipe for recipe in found if recipe.is_vit]
    taken: dict[tuple[str, ...], list[str]] = {}
    refused: dict[str, list[str]] = {}
    for group in by_structure(vits).values():
        with torch.device("meta"):
            model = tiny(smallest(group))
        reason, names = verdict(model), [recipe.name for recipe in group]
        if reason is None:
            taken.setdefault(_features(model), []).extend(names)
        else:
            refused.setdefault(reason, []).extend(names)
    others: dict[tuple[str, str], list[str]] = {}
    for recipe in found:
        if not recipe.is_vit:
            others.setdefault((recipe.file, recipe.cls.__qualname__), []).append(recipe.name)
    close = {key: names for key, names in others.items() if key[0] in related}
    far = Counter({file: 0 for file, _ in others if file not in related})
    for (file, _), names in others.items():
        if file in far:
            far[file] += len(names)
    return "\n".join(
        [
            *_HEAD.format(version=timm.__version__, total=len(found)).splitlines(),
            f"\n## Patched: {sum(map(len, taken.values()))} names\n",
            _row("protected tokens", "output", "parts", "closed form of the cost", "names"),
            _row(*["---"] * 5),
            *(_row(*features, _names(names)) for features, names in sorted(taken.items())),
            *_ARGUMENTS_HEAD.split("\n"),
            _row("argument", "patched"),
            _row("---", "---"),
            *(_row(f"`{text}`", verdict_of(args)) for text, args in _ARGUMENTS.items()),
            *_REFUSED_HEAD.split("\n"),
            _row("reason", "names"),
            _row("---", "---"),
            *(_row(_code(reason), _names(names)) for reason, names in sorted(refused.items())),
            *(
                _row(f"`{cls}`: uses `Block` in a model that is no `VisionTransformer`", _names(names))
                for (_, cls), names in sorted(close.items())
            ),
            *_OTHERS_HEAD.split("\n"),
            "",
            ", ".join(f"`{file}` ({count})" for file, count in sorted(far.items())),
            "",
        ]
    )


def verdict_of(args: dict[str, Any]) -> str:
    """What becomes of a tiny `VisionTransformer` with these arguments, in a cell of the page."""
    with torch.device("meta"):
        reason = verdict(vit.VisionTransformer(depth=1, **_TINY, **args))
    return "yes" if reason is None else f"no: {_code(reason)}"


_HEAD = """\
# Models of timm

Made by `python scripts/models.py` for timm {version}, which has {total} names; a test compares.
`pitome.patch` takes a `VisionTransformer` made of `vision_transformer.Block` and refuses every other
model with the reason. Of names that differ in size alone, one was tried.

Protected tokens lead the sequence and never merge. Where the output is a mean or an attention pool,
merged tokens count as often as they stand for patches. Models without a class token take every
method but those that rank by its attention. Without a closed form of the cost, `ratio=` and `r=` work,
`flops=` and the FLOPs of a record do not: the convolutions before the tokens are not counted."""

_ARGUMENTS_HEAD = """
## Arguments

What may be changed in any of them, through `timm.create_model` or `VisionTransformer`.
"""

_REFUSED_HEAD = """
## Refused: models near a VisionTransformer
"""

_OTHERS_HEAD = """
## Refused: every other model

Neither `VisionTransformer` nor `Block` is in these files of timm (with their number of names):"""

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


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


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
            return builder(cls, variant, pretrained, **args)
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


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    print(PAGE)
