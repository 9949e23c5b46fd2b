"""Where a task merges unless the command says otherwise."""

from __future__ import annotations

import pytest

from pitome.runs.validate import validate
from tests.test_conf import config_of


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        (("task=classification",), None),
        (("task=text",), "first3"),
        (("task=text", "layers=every1"), "every1"),
        (("task=text", "layers=[0,5]"), [0, 5]),
        # a schedule of the method's own names every layer
        (("task=text", "merge=diffrate", "merge.options.merge_kept=[9,8,7,6,5,4]"), None),
    ],
)
def test_layers(words: tuple[str, ...], layers: object) -> None:
    assert validate(config_of(*words, "weights=random")).layers == layers
