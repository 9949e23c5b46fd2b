"""The reader of YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. A key that stands twice is an error: it is mostly a typo.

    Raises yaml.YAMLError, OSError, or UnicodeDecodeError, which is a ValueError.
    """
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)


class _StrictLoader(yaml.CSafeLoader):  # type: ignore[misc]  # yaml has no types
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag[-5:] != "merge"]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} stands twice", node.start_mark
                )
        return dict(super().construct_mapping(node, deep))
