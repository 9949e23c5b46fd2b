"""Merge schedules in files, and how `diffrate` takes them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pitome.errors import UsageError
from pitome.merge import registry
from pitome.sources.schedule_file import (
    find_schedule,
    made_names,
    made_path,
    published_names,
    read_schedule,
)


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


# `schedule=`: a list, a file, a published one

THEIRS = {
    "ViT-S-DeiT": {
        "2.9": {"prune_kept_num": "[197,190,180]", "merge_kept_num": "[196, 192, 150]"},
        "3.1": {"prune_kept_num": [197, 196, 190], "merge_kept_num": [197, 195, 189]},
    },
    "CAFormer-S36": {"5.2": {"prune_kept_num": "None", "merge_kept_num": "[196, 193, 137]"}},
}


def test_a_list_and_files_of_every_form(tmp_path):
    assert find_schedule([9, 7]).kept == (9, 7)
    for content, kept in (
        ([9, 7], (9, 7)),
        ({"merge_kept": [9, 7]}, (9, 7)),
        ({"prune_kept": [9, 7]}, (9, 7)),
        ({"prune_kept": [9, 9], "merge_kept": [8, 7]}, (8, 7)),
    ):
        path = tmp_path / "kept.json"
        path.write_text(json.dumps(content))
        assert find_schedule(str(path)).kept == kept


def test_their_own_file_as_it_is(tmp_path):
    path = tmp_path / "compression_rate.json"
    path.write_text(json.dumps(THEIRS))
    found = find_schedule(f"{path}@ViT-S-DeiT@2.9")
    # Layer 1 keeps 190 by pruning, so a merge count of 192 does not merge.
    assert found.options() == {"prune_kept": [197, 190, 180], "merge_kept": [196, 190, 150]}
    assert found.tokens == 197
    assert find_schedule(f"{path}@ViT-S-DeiT@3.1").kept == (197, 195, 189)
    for choice, says in (
        ("", "no model ''"),
        ("@ViT-S", "did you mean ViT-S-DeiT"),
        ("@ViT-S-DeiT", r"available: .*@ViT-S-DeiT@2\.9"),
        ("@ViT-S-DeiT@3", r"available: .*@ViT-S-DeiT@2\.9"),
        ("@CAFormer-S36@5.2", "no prune_kept_num and merge_kept_num"),
    ):
        with pytest.raises(UsageError, match=says) as error:
            find_schedule(f"{path}{choice}")
        assert "\n" not in str(error.value)


def test_the_published_ones():
    names = published_names()
    assert len(names) == 28
    found = {name: find_schedule(name) for name in names}
    assert sum(len(one.kept) for one in found.values()) == 19 * 12 + 5 * 24 + 4 * 32
    for one in found.values():
        assert one.prune_kept and one.merge_kept
        before = one.tokens
        for prune, merge in zip(one.prune_kept, one.merge_kept, strict=True):
            assert before >= prune >= merge
            before = merge
    # As in the repository: a merge count above the prune count does not merge, more than enter do not stay.
    assert found["published/mae_l@34.7"].kept[13] == found["published/mae_l@34.7"].prune_kept[13] == 95
    assert found["published/deit_t@1.0"].kept[5:9] == (154, 148, 148, 145)


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ([9, 10], "keeps 10 tokens in layer 1 after 9 in layer 0"),
        ([], "whole numbers above 0"),
        ([9, 0], "whole numbers above 0"),
        ("published/deit_s@2.8", r"available: published/deit_s@2\.3"),
        ("published/deit_s", "at no GFLOPs"),
        ("published/deit", "did you mean"),
        ("absent.json", "cannot be read"),
    ],
)
def test_schedules_that_cannot_be_used(schedule, says):
    with pytest.raises(UsageError, match=says) as error:
        find_schedule(schedule)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", made_names())
def test_every_schedule_that_was_made_says_what_for_and_has_its_card(name):
    kind, model, rest = name.split("/")
    method, _, target = rest.partition("@")
    made = find_schedule(name).made_for
    assert made is not None and (made.model, made.method, f"{made.flops:g}") == (model, method, target)
    card = made_path(name).with_suffix(".md")
    assert card.is_file() is (kind != "scaled")
    if card.is_file():
        text = card.read_text()
        assert f"schedule=uniform,{name} flops={target}" in text and "/tmp" not in text
        assert f"flops={target}" in text and "results/search/" in text


def test_one_that_was_not_made():
    with pytest.raises(UsageError, match=r"schedule=searched/vit_fmnist/tme@0.6 is not there; did you mean "):
        find_schedule("searched/vit_fmnist/tme@0.6")
