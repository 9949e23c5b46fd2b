"""The public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pitome


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, pitome, pitome.errors; pitome.errors; dir(pitome); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", pitome.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(pitome, name) is not None
    assert name in dir(pitome)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = pitome.nothing
