"""Merge schedules in files, and how `diffrate` takes them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pitome.errors import UsageError
from pitome.merge import registry
from pitome.sources.schedule_file import read_schedule


@pytest.mark.parametrize("content", [{"prune_kept": [9, 7], "merge_kept": [8, 6]}, {"merge_kept": [8, 6]}])
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_both_forms(tmp_path, content, form):
    path = tmp_path / f"rates.{form}"
    lines = [f"{name}: {counts}" for name, counts in content.items()]
    path.write_text(json.dumps(content) if form == "json" else "\n".join(lines))
    assert read_schedule(path) == content


@pytest.mark.parametrize("name", ["diffrate", "diffrate_repo"])
def test_the_options_hold_the_numbers_not_the_path(tmp_path, name):
    path = tmp_path / "rates.json"
    path.write_text('{"prune_kept": [9, 7], "merge_kept": [8, 6]}')
    method = registry.get(name)
    options = method.resolve(method.build_options({"schedule_file": str(path)}), "deit", 2)
    assert options.schedule_file is None
    assert (options.prune_kept, options.merge_kept) == ([9, 7], [8, 6])
    assert method.kept(options) == [8, 6]


def test_lists_in_a_file_are_checked_like_others(tmp_path):
    path = tmp_path / "rates.json"
    path.write_text('{"prune_kept": [7], "merge_kept": [8]}')
    method = registry.get("diffrate")
    with pytest.raises(UsageError, match="exceeds"):
        method.resolve(method.build_options({"schedule_file": str(path)}), "deit", 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[8, 6]",
        "{}",
        "merge_kept: 8",
        "merge_kept: []",
        "merge_kept: [8, 0]",
        "merge_kept: [8.5]",
        "merge_kept: [true]",
        "keep: [8]",
        "merge_kept: [8]\nratio: 0.9",
        "merge_kept: [8",
        "!!python/object/apply:os.system [exit]",
    ],
)
def test_files_that_cannot_be_used(tmp_path, text):
    path = tmp_path / "rates.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"rates\.yaml") as error:
        read_schedule(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_a_folder_and_bytes(tmp_path):
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent.yaml", tmp_path, binary):
        with pytest.raises(UsageError, match="schedule_file="):
            read_schedule(path)


def test_reading_needs_no_torch():
    code = "import sys, pitome.sources.schedule_file; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
