"""Pickles of torch read without running their code: the tensors come out, everything else is inert.

A checkpoint often holds more than tensors: settings, paths, scores. Types of that kind, listed here by
name, are read as empty objects (`Inert`), so that their packages are neither needed nor run. A type that is
not listed is refused: unpickling it could run code.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitome.errors import CheckpointError, one_line

if TYPE_CHECKING:
    from torch import Tensor

_HARMLESS = {  # module -> names, separated by spaces
    "argparse": "Namespace",
    "builtins": "bool bytes dict float frozenset int list object range slice str tuple",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "mmengine.logging.history_buffer": "HistoryBuffer",
    "numpy": "dtype ndarray bool_ float16 float32 float64 int8 int16 int32 int64 uint8",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy.dtypes": "BoolDType Float16DType Float32DType Float64DType Int8DType Int16DType Int32DType "
    "Int64DType StrDType UInt8DType",
    "omegaconf.base": "ContainerMetadata Metadata SCMode",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode InterpolationResultNode "
    "PathNode StringNode",
    "operator": "getitem",
    "_operator": "getitem",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "pathlib._local": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "torch.torch_version": "TorchVersion",
    "types": "SimpleNamespace",
    "typing": "Any Dict List Optional Tuple Union",
    "uuid": "UUID",
}
_DICTIONARIES = {  # as plain dictionaries, in which tensors are looked for as well
    "addict.addict": "Dict",
    "easydict": "EasyDict",
    "lightning.fabric.utilities.data": "AttributeDict",
    "lightning.pytorch.utilities.parsing": "AttributeDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "mmcv.utils.config": "ConfigDict",
    "mmengine.config.config": "ConfigDict",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    "yacs.config": "CfgNode",
}


class Inert:
    """Stands for an object of any harmless type, and keeps nothing of it."""

    def __new__(cls, *args: object, **kwargs: object) -> Inert:
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _dictionary(*args: object) -> OrderedDict[Any, Any]:
    return OrderedDict()


def _list(*args: object) -> list[Any]:
    return []


def _names(table: dict[str, str]) -> list[str]:
    return [f"{module}.{name}" for module, names in table.items() for name in names.split()]


def load_pickle(path: Path) -> Any:
    """The content of a file of torch.save, on the CPU. Raises CheckpointError for types that are not known
    to be harmless, naming them, and for a damaged file."""
    import torch

    harmless: list[Any] = [(Inert, name) for name in _names(_HARMLESS)]
    harmless += [(OrderedDict, name) for name in _names(_DICTIONARIES)]
    harmless += [(_dictionary, "collections.defaultdict"), (_list, "collections.deque")]
    with torch.serialization.safe_globals(harmless), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on protocols; what cannot be read is an error
        try:
            with path.open("rb") as file:  # by its content: torch goes by the suffix .safetensors
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as problem:
            raise CheckpointError(f"{path} was not loaded: {_refused(path, problem)}") from None
        except Exception as problem:  # whatever a damaged file leads to
            raise CheckpointError(f"{path} cannot be read: {one_line(problem)[:200]}") from None


def _refused(path: Path, problem: Exception) -> str:
    """What the pickle asks for; called while the harmless types are allowed."""
    import torch

    try:
        unsafe = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (ValueError, RuntimeError, pickle.UnpicklingError):  # of an old file, or another protocol
        unsafe = re.findall(r"GLOBAL ([\w.]+)", str(problem))[:1]
    if not unsafe and "operand" in str(problem):
        return (
            "it was saved with another pickle protocol than torch.save's usual 2; save it again without one"
        )
    asks = f"asks for {', '.join(unsafe[:3])}" if unsafe else "holds more than tensors"
    whole = any(name.startswith(("torch.nn.modules.", "timm.", "transformers.models.")) for name in unsafe)
    what = f"it is a whole pickled model, which {asks}" if whole else f"its pickle {asks}"
    return f"{what}, which could run code; save only the state_dict"


class _Object:
    """A module of a TorchScript archive: attributes only."""


class _Storage(str):
    """Key of a storage; its dtype stands beside it."""


class _ScriptUnpickler(pickle._Unpickler):  # not the one in C, from which a few bytes may ask for any memory
    """data.pkl of a TorchScript archive. Objects become `_Object`; functions that are called: those that
    make a tensor of a storage, or a list."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        import torch

        if module.startswith("__torch__"):
            return _Object
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return torch._utils._rebuild_tensor_v2
        if module == "torch" and name.endswith("Storage"):
            return getattr(torch, name).dtype
        if module == "torch.jit._pickle":  # lists of numbers, and other types' tags
            return lambda value=None, *tags: value
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        import torch

        _, dtype, key, _, _ = pid
        data = torch.frombuffer(bytearray(self._archive.read(f"{self._root}/data/{key}")), dtype=torch.uint8)
        return torch.storage.TypedStorage(wrap_storage=data.untyped_storage(), dtype=dtype, _internal=True)


def load_script(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of a TorchScript archive, as OpenAI published CLIP, by name. Its code is not
    run. Raises CheckpointError for one that cannot be read so."""
    import torch

    tensors: dict[str, Tensor] = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            tensors[prefix] = value
        elif isinstance(value, _Object):
            for name, part in vars(value).items():
                walk(f"{prefix}.{name}" if prefix else name, part)

    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's storages by dtype are deprecated, its files hold them
            root = archive.namelist()[0].partition("/")[0]
            walk("", _ScriptUnpickler(archive, root).load())
    except Exception as problem:  # whatever a damaged file leads to
        raise CheckpointError(
            f"{path} is a TorchScript archive that cannot be read without running its code "
            f"({one_line(problem)[:100]}); save its state_dict: "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
        ) from None
    return tensors
