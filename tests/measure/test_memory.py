"""Peak memory of the process."""

from __future__ import annotations

import resource
import types

import pytest
import torch

from pitome.measure.memory import peak_memory


def test_peak_of_the_process_is_of_a_plausible_size():
    assert 2**25 < peak_memory(torch.device("cpu")) < 2**40


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_the_unit_of_the_system_is_turned_into_bytes(monkeypatch, platform, unit):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: types.SimpleNamespace(ru_maxrss=7))
    assert peak_memory(torch.device("cpu")) == 7 * unit
