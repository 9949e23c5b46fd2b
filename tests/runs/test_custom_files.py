"""Files of a user's own conf/ with a mistake: one line that names the file and what to do."""

from dataclasses import replace
from pathlib import Path

import pytest

from pitome.config import CONF, PARTS, ModelConfig, choices, custom_model, model_label
from pitome.errors import UsageError
from pitome.runs.custom_files import check_custom_files, check_file

DATA = """# Flowers: photographs (folder)
name: flowers
task: classification
root: flowers
classes: [rose, tulip]
"""
MISTAKES = {
    DATA.replace("task:", "\ttask:"): "tab character",
    DATA.replace("root", "name"): "the key name stands twice line 2",
    DATA.replace("[rose, tulip]", "rose"): "classes=rose is not a list of texts",
    DATA.replace("[rose, tulip]", "[no, yes]"): "classes[0]=False is not text",
    DATA.replace("classes", "clases"): "unknown key clases; did you mean classes?",
    DATA.replace("task: classification\n", ""): "task is missing",
    DATA.replace("classification", "clasification"): "did you mean classification",
    DATA.replace("name: flowers", "name: imagenet"): "has the name imagenet; it must be that of the file",
    DATA.replace("[rose, tulip]", "[rose, tulip"): "expected ',' or ']'",
    "": "it holds nothing, expected lines of `key: value`",
    "- rose\n": "it holds a list",
    "rose": "it holds one value",
    "\udcff": "is not text in UTF-8",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for group in ("model", "data"):
        (tmp_path / "conf" / group).mkdir(parents=True)
    (tmp_path / "conf" / "data" / "flowers.yaml").write_text(DATA)
    return tmp_path / "conf"


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_a_mistake_is_one_line(number: int, own: Path) -> None:
    text, told = list(MISTAKES.items())[number]
    (own / "data" / "flowers.yaml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError) as raised:
        check_custom_files({"data": ["flowers"]})
    line = str(raised.value)
    assert told in line and "\n" not in line and line.startswith("conf/data/flowers.yaml")


def test_what_is_right_and_what_is_not_the_users_passes(own: Path) -> None:
    (own / "data" / "imagenet.yaml").write_text("of the user, and not read")
    (own / "data" / "folder.yaml").mkdir()
    check_custom_files({"data": ["flowers", "imagenet", "folder", "none such"], "trainer": ["flowers"]})
    assert "flowers" in choices("data") and "folder" not in choices("data")


def test_a_copy_of_any_file_of_the_project_passes() -> None:
    for group in set(PARTS) - {"task"}:  # a task's files choose other groups by Hydra's own words
        for name in choices(group):
            check_file(group, CONF / group / f"{name}.yaml")


def test_a_model_of_ones_own_goes_by_what_its_file_says(own: Path) -> None:
    """Two runs under one name are not the same once the file has changed; the project's have no entry."""
    path = own / "model" / "mine.yaml"
    path.write_text("# Mine\nname: mine\ntask: classification\narch: vit_tiny_patch16_224\n")
    model = ModelConfig(name="mine", task="classification", arch="vit_tiny_patch16_224")
    assert model_label(model) == "mine"
    first = custom_model(model)
    assert custom_model(replace(model, checkpoint="hub:a/b")) == first
    changed = replace(model, args={"depth": 2})
    assert custom_model(changed) != first and set(first) == {"model file"}
    assert custom_model(ModelConfig(name="deit_s", task="classification", arch="anything")) == {}
