"""What a record keeps of the configuration names no place on the machine."""

from __future__ import annotations

import json
from pathlib import Path

from pitome.config import portable
from tests.test_conf import ROOT, config_of


def test_files_and_folders_are_names() -> None:
    kept = portable(
        config_of("results=/home/me/results", "weights=/home/me/own.safetensors", "data.root=/data/idx")
    )
    assert kept["weights"] == "own.safetensors" and kept["data"]["root"] == "idx"
    assert "results" not in kept and "/home" not in json.dumps(kept) and "/data" not in json.dumps(kept)


def test_words_stay_as_they_are() -> None:
    kept = portable(config_of("weights=random"))
    assert kept["weights"] == "random" and kept["data"]["root"] is None


def test_published_records_name_no_path() -> None:
    published = sorted((ROOT / "results" / "published").glob("*.json"))
    assert published
    for path in published:
        config = json.loads(path.read_text())["config"]
        places = [config.get("results"), config["weights"], config["data"]["root"]]
        assert all(place is None or Path(place).name == place for place in places), path.name
