"""Tables of one's own: images with captions or with questions, as people write them down."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from pitome.errors import DataError
from pitome.tasks.data import Preprocess
from pitome.tasks.retrieval.data import RetrievalData
from pitome.tasks.vqa.data import VqaData, build_vqa
from tests.configs import data_of

SHADES = {"1.jpg": 0, "2.jpg": 100, "3.jpg": 200}
CAPTIONS = {name: [f"shade {shade}", f"grey, {shade}"] for name, shade in SHADES.items()}
PAIRS = [(name, text) for name, own in CAPTIONS.items() for text in own]


def png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (shade,) * 3).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own" / "images").mkdir(parents=True)
    for name, shade in SHADES.items():
        (tmp_path / "own" / "images" / name).write_bytes(png(shade))
    return tmp_path / "own"


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=1)
    elif path.suffix in (".csv", ".tsv"):
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = path.suffix == ".jsonl"
        path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))


ONE_A_ROW = [{"image": name, "caption": text} for name, text in PAIRS]
SEVERAL = [{"image": name, "caption": own} for name, own in CAPTIONS.items()]
IN_A_CELL = [{"image": name, "caption": json.dumps(own)} for name, own in CAPTIONS.items()]
EMBEDDED = [{"image": {"bytes": png(SHADES[name]), "path": None}, "caption": text} for name, text in PAIRS]

# the form -> the file, its rows: all say the same
FORMS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "csv": ("test.csv", ONE_A_ROW),
    "tsv": ("test.tsv", ONE_A_ROW),
    "jsonl": ("test.jsonl", ONE_A_ROW),
    "json": ("test.json", SEVERAL),
    "lists in jsonl": ("test.jsonl", SEVERAL),
    "JSON in csv": ("test.csv", IN_A_CELL),
    "Python in csv": (
        "test.csv",
        [{"image": name, "caption": repr(own)} for name, own in CAPTIONS.items()],
    ),
    "parquet with names": ("test.parquet", SEVERAL),
    "parquet with images": ("test-00000-of-00001.parquet", EMBEDDED),
    "one table": ("captions.csv", ONE_A_ROW),
    "a folder of the split": ("test/metadata.csv", ONE_A_ROW),
    "imagefolder": (
        "metadata.jsonl",
        [{"file_name": row["image"], "text": row["caption"]} for row in ONE_A_ROW],
    ),
    "other columns": (
        "test.csv",
        [{"id": 7, "Image": row["image"], "Caption": row["caption"]} for row in ONE_A_ROW],
    ),
    "paths": ("test.csv", [{"image": f"/data/x/images/{n}", "caption": t} for n, t in PAIRS]),
    "Windows": ("test.csv", [{"image": f"images\\{n}", "caption": t} for n, t in PAIRS]),
    "without suffix": ("test.csv", [{"image": n[0], "caption": t} for n, t in PAIRS]),
    "numbers": ("test.jsonl", [{"image_id": int(n[0]), "caption": t} for n, t in PAIRS]),
    "a column of splits": (
        "all.csv",
        [
            *({"image": n, "caption": t, "split": "Test"} for n, t in PAIRS),
            {"image": "1.jpg", "caption": "x", "split": "train"},
        ],
    ),
    "mixed rows": ("test.csv", [ONE_A_ROW[n] for n in (0, 2, 4, 1, 3, 5)]),
}


def pairs(root: Path) -> RetrievalData:
    return RetrievalData(data_of({"name": "mine", "root": str(root)}), Preprocess(4), 5)


@pytest.mark.parametrize("form", FORMS)
def test_captions(form: str, root: Path) -> None:
    name, rows = FORMS[form]
    write(root / name, rows)
    write(root / "train.csv", [{"image": "9.jpg", "caption": "another split"}])
    if form in ("one table", "imagefolder", "a column of splits"):
        (root / "train.csv").unlink()
    test = pairs(root).test
    assert test.captions == [text for _, text in PAIRS] and test.owner.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.abs(test.images[:, 0].max(axis=(1, 2)).astype(int) - [0, 100, 200]).max() < 3
    assert (test.info.n_skipped, test.info.source) == (0, "local")
    assert test.info.revision == pairs(root).info.revision


def both(root: Path) -> None:
    write(root / "test.csv", ONE_A_ROW)
    write(root / "test.jsonl", ONE_A_ROW)


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    raw = content if isinstance(content, bytes) else content.encode()
    return lambda root: (root / name).write_bytes(raw)


# what is wrong -> how the folder becomes so, what the one line says
WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda root: None, "holds no parquet.*columns image, caption"),
    "two formats": (both, r"test\.csv and .*test\.jsonl hold the same rows; remove one"),
    "no caption": (
        text("test.csv", "image,colour\n1.jpg,red\n"),
        "has no column caption, it has image, colour",
    ),
    "no image": (text("test.csv", "caption\nred\n"), "has no column image"),
    "fields": (text("test.csv", "image,caption\n1.jpg,red\n2.jpg,a,b\n"), "line 3 has 3 fields"),
    "latin": (text("test.csv", "image,caption\n1.jpg,caf\xe9\n".encode("latin-1")), "ISO-8859-1.*iconv"),
    "excel": (text("test.csv", "image,caption\n1.jpg,a\n".encode("utf-16")), "UTF-16.*iconv"),
    "a split": (text("a.csv", "image,caption,split\n1.jpg,a,holdout\n"), "the split of row 1 is 'holdout'"),
    "only training": (
        text("train.csv", "image,caption\n1.jpg,a\n"),
        "the test split of mine in .* holds no image",
    ),
    "a truth": (text("test.json", '[{"image": true, "caption": "a"}]'), "id of entry 1 is True"),
    "no text": (
        text("test.json", '[{"image": "1.jpg", "caption": {"a": 1}}]'),
        "row 1: the caption .* not a text",
    ),
    "no JSON": (text("test.jsonl", "{"), "line 1: not valid JSON"),
    "empty": (text("test.csv", ""), "it is empty"),
    "header": (text("test.csv", "image,caption\n"), "holds no image"),
    "no images": (
        text("test.csv", "image,caption\n8.jpg,a\n9.jpg,b\n"),
        r"none of the 2 images .*8\.jpg: no such",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(case: str, root: Path) -> None:
    make, says = WRONG[case]
    make(root)
    with pytest.raises(DataError, match=says) as caught:
        pairs(root).test.ids  # noqa: B018
    assert "\n" not in str(caught.value)


def test_other_files_end_no_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root / "test.csv", ONE_A_ROW)
    (root / "dataset_info.json").write_text('{"features": {}}')
    (root / "test_notes.csv").write_text("a,b\n1,2\n")
    (root / "README.md").write_text("about")
    (root / "._test.csv").write_bytes(b"\0")
    assert len(pairs(root).test.ids) == 3
    said = capsys.readouterr().err
    assert "dataset_info.json is not read" in said and "test_notes.csv is not read" in said


def test_rows_that_cannot_be_used_are_counted_and_named(root: Path) -> None:
    (root / "test.csv").write_text("image,caption\n1.jpg,a\n2.jpg,\n,b\n9.jpg,c\n")
    info = pairs(root).test.info
    assert info.n_selected == 4 and info.skipped == {
        1: "2.jpg: no caption",
        2: "(no image): no such file, left out with its 1 captions",
        3: "9.jpg: no such file, left out with its 1 captions",
    }


def ask(root: Path, **given: Any) -> VqaData:
    return build_vqa(data_of({"name": "mine", "root": str(root), **given}))


QUESTIONS = [{"image": n, "question": f"How dark is {n}?", "answers": [str(s)]} for n, s in SHADES.items()]
# the form -> the file, its rows: all ask the same
ASKED: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "jsonl": ("test.jsonl", QUESTIONS),
    "csv": ("test.csv", [{**row, "answers": row["answers"][0]} for row in QUESTIONS]),
    "JSON in csv": ("test.csv", [{**row, "answers": json.dumps(row["answers"])} for row in QUESTIONS]),
    "annotators": ("test.json", [{**r, "answers": [{"answer": a} for a in r["answers"]]} for r in QUESTIONS]),
    "numbers": ("test.json", [{**row, "answers": int(row["answers"][0])} for row in QUESTIONS]),
    "parquet": (
        "test.parquet",
        [{**r, "image": {"bytes": png(SHADES[r["image"]]), "path": None}} for r in QUESTIONS],
    ),
    "answer": (
        "test.tsv",
        [{"answer": r["answers"][0], "Image": r["image"], "Question": r["question"]} for r in QUESTIONS],
    ),
}


@pytest.mark.parametrize("form", ASKED)
def test_questions(form: str, root: Path) -> None:
    write(root / ASKED[form][0], ASKED[form][1])
    write(root / "val.csv", [{"image": "1.jpg", "question": "?", "answers": "x"}])
    data = ask(root)
    assert [(q.text, list(q.answers)) for q in data.questions] == [
        (row["question"], row["answers"]) for row in QUESTIONS
    ]
    shades = [np.asarray(data.image(question))[0, 0, 0] for question in data.questions]
    assert np.abs(np.array(shades, int) - [0, 100, 200]).max() < 3 and not data.info.skipped
    assert data.benchmark.prompt(data.questions[0]).endswith(
        "\nAnswer the question using a single word or phrase."
    )
    assert [data.benchmark.score(data.questions[1], said) for said in ("100", " 100.", "200")] == [1, 1, 0]
    assert len(ask(root, split="validation").questions) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("image,question\n1.jpg,What?\n", "has no column answers"),
        ("id,image,question,answers\n1,1.jpg,What?,a\n1,1.jpg,Who?,b\n", "two questions with the id 1"),
        ("image,question,answers\n", "holds no questions of the split test"),
    ],
)
def test_what_is_wrong_with_questions_is_one_line(content: str, says: str, root: Path) -> None:
    (root / "test.csv").write_text(content)
    with pytest.raises(DataError, match=says) as caught:
        ask(root)
    assert "\n" not in str(caught.value)


def test_questions_that_cannot_be_asked_stay_and_are_named(root: Path) -> None:
    (root / "test.csv").write_text(
        "image,question,answers\n1.jpg,,a\n,What?,a\n9.jpg,What?,a\n1.jpg,What?,\n"
    )
    data = ask(root)
    assert [data.image(question) for question in data.questions] == [None] * 4
    reasons = ["empty question", "no image", "9.jpg: no such file", "no answers"]
    assert data.info.skipped == {n: f"question {n + 1}: {why}" for n, why in enumerate(reasons)}


def test_another_instruction(root: Path) -> None:
    write(root / "test.jsonl", QUESTIONS)
    data, plain = ask(root, instruction="Give a number."), ask(root)
    prompts = [one.benchmark.prompt(one.questions[0]) for one in (data, ask(root, instruction=""))]
    assert prompts == ["How dark is 1.jpg?\nGive a number.", "How dark is 1.jpg?"]
    assert data.settings != plain.settings and data.settings["instruction"] == "\nGive a number."
