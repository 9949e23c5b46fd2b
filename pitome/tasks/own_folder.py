"""The folder of a data set of one's own, looked at before a run starts. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pitome.sources.folders import check_root


def check_folder(data: Mapping[str, Any], *, train: bool) -> None:
    """Look for the files of a set of conf/data that names its `classes` and a `root`; their contents are
    not read. train: for training images as well. Raises DataError."""
    if not data["classes"] or data["root"] is None:
        return
    root = check_root(data["root"])
    if data["task"] == "text":
        from pitome.tasks.text.files import find_files

        find_files(root)
        return
    from pitome.tasks.classification.files import check_files, own_set

    check_files(own_set(data["name"], data["classes"], data["split"]), root, train=train)
