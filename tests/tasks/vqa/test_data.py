"""Questions and images of every set, from each form of its files; what is wrong with them is one line."""

import io
import json
import os
import shutil
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from pitome.errors import DataError, UsageError
from pitome.tasks.data import Preprocess
from pitome.tasks.vqa import easy_vqa
from pitome.tasks.vqa.data import build_vqa, select
from pitome.tasks.vqa.easy_vqa import held_out
from pitome.tasks.vqa.files import file_questions
from pitome.tasks.vqa.questions import Question
from tests.configs import data_of

TEN = [{"answer": "dog", "answer_id": id} for id in range(1, 11)]


def picture(colour="red", size=(8, 6)):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def vqav2(root):
    questions = [{"image_id": id, "question": f"What {id}?", "question_id": 10 * id} for id in (1, 2)]
    write(root / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    answers = [{"question_id": 10 * id, "answers": TEN} for id in (2, 1)]  # another order
    write(root / "v2_mscoco_val2014_annotations.json", {"annotations": answers})
    test = [{"image_id": 3, "question": "What?", "question_id": 30}]
    write(root / "v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": test})
    for name in ("val2014_000000000001", "val2014_000000000002", "test2015_000000000003"):
        write(root / "images" / f"COCO_{name}.jpg", picture())


def gqa(root):
    entries = {f"q{n}": {"imageId": f"n{n}", "question": "What?", "answer": "dog"} for n in (1, 2)}
    write(root / "testdev_balanced_questions.json", entries)
    for n in (1, 2):
        write(root / "images" / f"n{n}.jpg", picture())


def vizwiz(root):
    names = [f"VizWiz_val_0000000{n}.jpg" for n in (1, 2)]
    write(root / "val.json", [{"image": name, "question": "What?", "answers": TEN} for name in names])
    write(root / "test.json", [{"image": names[0], "question": "What?"}])
    for name in names:
        write(root / "val" / name, picture())


def scienceqa(root):
    entry = {"question": "Which?", "choices": ["a", "b"], "answer": 1, "hint": "", "split": "test"}
    problems = {str(n): entry | {"image": "image.png"} for n in (3, 12)}
    problems |= {"5": entry | {"image": None}, "6": entry | {"image": "image.png", "split": "val"}}
    write(root / "problems.json", problems)
    for n in (3, 12):
        write(root / "test" / str(n) / "image.png", picture())


def textvqa(root):
    entries = [
        {"image_id": f"a{n}", "question": "What?", "question_id": n, "answers": ["stop"] * 10} for n in (1, 2)
    ]
    write(root / "TextVQA_0.5.1_val.json", {"data": entries})
    tokens = [{"image_id": "a1", "ocr_tokens": ["STOP", "24h"]}]
    write(root / "TextVQA_Rosetta_OCR_v0.2_val.json", {"data": tokens})
    for n in (1, 2):
        write(root / "train_images" / f"a{n}.jpg", picture())


def mme(root):
    for category in ("count", "OCR"):
        folder = root / "MME_Benchmark_release_version" / category
        texts, images = (
            (folder, folder) if category == "count" else (folder / "questions_answers_YN", folder / "images")
        )
        write(texts / "0001.txt", b"Is it? Please answer yes or no.\tYes\nIs it not?\tNo\n")
        write(images / "0001.png", picture())


LOCAL = {
    "vqav2": (vqav2, "val", ["10", "20"], ("dog",) * 10),
    "gqa": (gqa, "testdev", ["q1", "q2"], ("dog",)),
    "vizwiz": (vizwiz, "val", ["VizWiz_val_00000001", "VizWiz_val_00000002"], ("dog",) * 10),
    "scienceqa": (scienceqa, "test", ["3", "12"], ("B",)),
    "textvqa": (textvqa, "val", ["1", "2"], ("stop",) * 10),
    "mme": (mme, "test", ["count/0001 0", "count/0001 1", "OCR/0001 0", "OCR/0001 1"], ("Yes",)),
}


def build(name, root, **changes):
    config = {
        "name": name,
        "root": root and str(root),
        "repository": "none/none",
        "revision": "0",
        "split": None,
    }
    limit, source = changes.pop("limit", None), changes.pop("source", "auto")
    return build_vqa(data_of({**config, **changes}), source=source, limit=limit)


@pytest.mark.parametrize("name", LOCAL)
def test_the_official_files_of_a_set(name, tmp_path):
    make, split, ids, answers = LOCAL[name]
    make(tmp_path)
    data = build(name, tmp_path)
    assert [question.id for question in data.questions] == ids
    assert data.questions[0].answers == answers and data.scored
    assert all(data.image(question).size == (8, 6) for question in data.questions)
    info = data.info.record()
    assert (info["split"], info["source"], info["n_samples"], info["n_skipped"]) == (
        split,
        "local",
        len(ids),
        0,
    )
    assert info["revision"].startswith("sha256:") and build(name, tmp_path).info.revision == info["revision"]
    assert data.settings == {"benchmark": f"{name} 1"}
    assert data.benchmark.metrics(
        data.questions, [data.benchmark.score(q, q.answers[0]) for q in data.questions]
    ) == {"accuracy": 1.0}


def test_a_revision_follows_texts_and_images(tmp_path):
    gqa(tmp_path)
    before = build("gqa", tmp_path).info.revision
    write(tmp_path / "images" / "n1.jpg", picture(size=(99, 99)))
    after = build("gqa", tmp_path).info.revision
    entries = {"q1": {"imageId": "n1", "question": "What?", "answer": "cat"}}
    write(tmp_path / "testdev_balanced_questions.json", entries)
    assert len({before, after, build("gqa", tmp_path).info.revision}) == 3


def test_splits_whose_answers_are_not_public(tmp_path):
    vqav2(tmp_path)
    vizwiz(tmp_path)
    for name, split, id in [("vqav2", "testdev", "30"), ("vizwiz", "test", "VizWiz_val_00000001")]:
        data = build(name, tmp_path, split=split)
        assert [q.id for q in data.questions] == [id] and not data.scored and not data.info.skipped
        assert data.image(data.questions[0]) is not None


def test_ocr_tokens_stand_in_the_prompt_where_they_are_asked_for(tmp_path):
    textvqa(tmp_path)
    plain, asked = build("textvqa", tmp_path), build("textvqa", tmp_path, ocr=True)
    prompts = [data.benchmark.prompt(data.questions[0]) for data in (plain, asked)]
    assert "OCR" not in prompts[0] and "\nReference OCR token: STOP, 24h\n" in prompts[1]
    assert asked.settings["ocr"] is True and plain.info.revision != asked.info.revision
    assert "OCR" not in asked.benchmark.prompt(asked.questions[1]), "an image without any"
    (tmp_path / "TextVQA_Rosetta_OCR_v0.2_val.json").unlink()
    with pytest.raises(DataError, match="holds no TextVQA_Rosetta"):
        build("textvqa", tmp_path, ocr=True)


@pytest.mark.parametrize("name", LOCAL)
def test_a_folder_without_annotations(name, tmp_path):
    write(tmp_path / "images" / "a.jpg", picture())
    with pytest.raises(DataError, match="holds no ") as error:
        build(name, tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
PROBLEM = {"question": "?", "choices": ["a"], "answer": 0, "hint": "", "split": "test", "image": "image.png"}


@pytest.mark.parametrize(
    ("name", "file", "content", "says"),
    [
        ("vqav2", QUESTIONS, b"{", "not valid JSON"),
        ("vqav2", QUESTIONS, [], 'an object with the list "questions"'),
        (
            "vqav2",
            QUESTIONS,
            {"questions": [{"question": "?"}]},
            "entry 0 lacks 'question_id', it has question",
        ),
        ("vqav2", QUESTIONS, {"questions": [{"question_id": 1, "question": "?"}]}, "lacks 'image_id'"),
        (
            "vqav2",
            QUESTIONS,
            {"questions": [{"question_id": 1, "question": 5, "image_id": 1}]},
            "the question of entry 0 is 5, not a text",
        ),
        (
            "vqav2",
            QUESTIONS,
            {"questions": [{"question_id": 1, "question": "?", "image_id": 1}] * 2},
            "two questions with the id 1",
        ),
        ("vqav2", QUESTIONS, {"questions": []}, "no questions of the split val of vqav2"),
        (
            "vqav2",
            "v2_mscoco_val2014_annotations.json",
            {"annotations": [{"question_id": 10, "answers": "dog"}]},
            "the answers of entry 0 are 'dog', not a list",
        ),
        (
            "vqav2",
            "v2_mscoco_val2014_annotations.json",
            {"annotations": [{"question_id": 10, "answers": [word]} for word in ("dog", "cat")]},
            "entry 1 has other answers to question 10",
        ),
        ("gqa", "testdev_balanced_questions.json", ["q1"], "an object of questions by their ids"),
        ("gqa", "testdev_balanced_questions.json", {"q1": {"question": "?"}}, "entry q1 lacks 'imageId'"),
        ("vizwiz", "val.json", [{"image": "a.jpg", "question": "?"}], "entry 0 lacks 'answers'"),
        ("vizwiz", "val.json", [5], "entry 0 is not an object"),
        ("scienceqa", "problems.json", {"1": {"question": "?"}}, "entry 1 lacks 'choices'"),
        ("textvqa", "TextVQA_0.5.1_val.json", {"data": [{"question_id": 1}]}, "entry 0 lacks 'image_id'"),
        ("mme", "MME_Benchmark_release_version/count/0001.txt", b"Is it?", "line 1 is not a question, a tab"),
    ],
)
def test_what_is_wrong_with_a_file(name, file, content, says, tmp_path):
    LOCAL[name][0](tmp_path)
    write(tmp_path / file, content)
    with pytest.raises(DataError, match=says) as error:
        build(name, tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_samples_that_cannot_be_asked_are_counted_named_and_scored_wrong(tmp_path):
    gqa(tmp_path)
    names = {"1": "n1", "2": "", "3": "n1", "4": "gone", "5": "cut", "6": "text"}
    entries = {
        id: {"imageId": name, "question": "  " if id == "3" else "?", "answer": "dog"}
        for id, name in names.items()
    }
    write(tmp_path / "testdev_balanced_questions.json", entries)
    write(tmp_path / "images" / "cut.jpg", picture(size=(99, 99))[:-30])
    write(tmp_path / "images" / "text.jpg", b"no image")
    data = build("gqa", tmp_path)
    assert [data.image(question) is not None for question in data.questions] == [True] + [False] * 5
    info = data.info.record()
    assert (info["n_samples"], info["n_skipped"]) == (6, 5), "they stay in the denominator"
    reasons = {entry["id"]: entry["reason"] for entry in info["skipped"]}
    assert reasons["1"] == "question 2: no image" and reasons["2"] == "question 3: empty question"
    assert reasons["3"] == "question 4: gone.jpg: no such file"
    assert "cut.jpg: damaged" in reasons["4"] and "text.jpg: no image" in reasons["5"]
    assert not any(str(tmp_path) in reason or "\n" in reason for reason in reasons.values())
    assert [data.reason(question) for question in data.questions[:3]] == [None, "no image", "empty question"]


def as_downloaded(name, root):
    """The archives of a set's own site, each unpacked into a folder of its name."""
    info = {"info": {"year": 2017}, "license": {}, "data_subtype": "val2014", "task_type": "Open-Ended"}
    answers = [{"answer": "dog", "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)]
    if name == "vqav2":
        asked = [{"image_id": 42, "question": "What?", "question_id": 42000}]
        given = [{"question_id": 42000, "image_id": 42, "answer_type": "other", "answers": answers}]
        kind = "mscoco_val2014"
        write(
            root / f"v2_Questions_Val_mscoco/v2_OpenEnded_{kind}_questions.json", info | {"questions": asked}
        )
        write(root / f"v2_Annotations_Val_mscoco/v2_{kind}_annotations.json", info | {"annotations": given})
        return write(root / "val2014/val2014/COCO_val2014_000000000042.jpg", picture())
    if name == "gqa":
        entry = {"imageId": "n42", "question": "What?", "answer": "dog", "isBalanced": True, "types": {}}
        write(root / "questions1.2/testdev_balanced_questions.json", {"07333408": entry})
        write(root / "questions1.2/testdev_all_questions.json", {"07333408": entry, "1": entry})
        return write(root / "images/images/n42.jpg", picture())
    if name == "vizwiz":
        entry = {"image": "VizWiz_val_00000042.jpg", "question": "What?", "answers": answers, "answerable": 1}
        write(root / "Annotations/val.json", [entry | {"answer_type": "other"}])
        write(root / "Annotations/train.json", [])
        return write(root / "val/VizWiz_val_00000042.jpg", picture())
    if name == "textvqa":
        entry = {
            "image_id": "003a8ae2ef43b901",
            "question": "What?",
            "question_id": 34602,
            "answers": ["dog"] * 10,
        }
        write(root / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": [entry | {"set_name": "val"}]})
        return write(root / "train_val_images/train_images/003a8ae2ef43b901.jpg", picture())
    if name == "scienceqa":
        problem = {
            "question": "?",
            "choices": ["a"],
            "answer": 0,
            "hint": "",
            "split": "test",
            "image": "image.png",
        }
        write(root / "ScienceQA-main/data/scienceqa/problems.json", {"42": problem | {"grade": "grade2"}})
        return write(root / "ScienceQA-main/data/scienceqa/images/test/42/image.png", picture())
    folder = root / "MME_Benchmark_release_version/MME_Benchmark"
    write(folder / "artwork/questions_answers_YN/1.txt", b"Is it?\tYes\r\nIs it not?\tNo")
    write(root / "eval_tool/LLaVA/artwork.txt", b"1.jpg\tIs it?\tYes\tYes\n")
    return write(folder / "artwork/images/1.jpg", picture())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", LOCAL)
def test_archives_as_downloaded(name, packed, tmp_path):
    """Unpacked next to each other or, but for MME, not at all."""
    as_downloaded(name, tmp_path)
    for folder in [path for path in tmp_path.iterdir() if path.is_dir()] if packed and name != "mme" else ():
        shutil.make_archive(str(folder), "zip", folder)
        shutil.rmtree(folder)
    write(tmp_path / "README.md", b"about")
    write(tmp_path / "._val.json", b"not JSON")
    data = build(name, tmp_path)
    assert len(data.questions) == (2 if name == "mme" else 1) and not data.info.skipped
    assert data.image(data.questions[0]).size == (8, 6) and not data.info.skipped
    data.image(data.questions[-1])
    assert data.benchmark.score(data.questions[0], data.questions[0].answers[0]) == 1


@pytest.mark.parametrize("name", LOCAL)
def test_images_that_are_missing_are_counted_and_named(name, tmp_path):
    as_downloaded(name, tmp_path).unlink()
    data = build(name, tmp_path)
    if name != "mme":  # whose texts without an image end beside those that have one
        assert all(data.image(question) is None for question in data.questions)
    assert data.info.n_skipped == len(data.questions)
    assert all("no such file" in why or "no image" in why for why in data.info.skipped.values())


def test_two_images_of_one_text_of_mme_are_named(tmp_path):
    mme(tmp_path)
    write(tmp_path / "MME_Benchmark_release_version/OCR/images/0001.jpg", picture())
    with pytest.raises(DataError, match=r"holds 0001\.jpg and 0001\.png; remove one"):
        build("mme", tmp_path)


def test_images_are_decoded_once_for_all_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "gqa"
    gqa(root)
    write(root / "images" / "n2.jpg", b"no image")
    preprocess = Preprocess(4)
    data = build("gqa", root)
    images = [data.prepared(preprocess)(question) for question in data.questions]
    assert images[0].shape == (3, 4, 4) and images[0][0].min() > 250 and images[1] is None
    assert data.info.skipped == {1: "question q2: n2.jpg: no image that can be read"}
    again = build("gqa", root)
    monkeypatch.setattr("pitome.sources.image_files.decode", None)
    assert np.array_equal(again.prepared(preprocess)(again.questions[0]), images[0])
    assert again.prepared(preprocess)(again.questions[1]) is None and again.info.skipped == data.info.skipped
    monkeypatch.undo()
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PITOME_CACHE_GB", "0")
    assert np.array_equal(build("gqa", root).prepared(preprocess)(data.questions[0]), images[0])
    monkeypatch.delenv("PITOME_CACHE_GB")
    os.utime(root / "images" / "n1.jpg", ns=(1, 1))
    Image.new("RGB", (8, 6), "blue").save(root / "images" / "n1.jpg", "PNG")
    assert build("gqa", root).prepared(preprocess)(data.questions[0])[0].max() < 5, "a changed file"


def test_scienceqa_from_the_root_of_its_repository(tmp_path):
    scienceqa(tmp_path / "data" / "scienceqa")
    (tmp_path / "README.md").write_text("about")
    data = build("scienceqa", tmp_path)
    assert len(data.questions) == 2 and data.image(data.questions[0]) is not None


def test_a_text_beside_the_questions_of_mme_is_named(tmp_path, capsys):
    mme(tmp_path)
    folder = next(path.parent for path in sorted(tmp_path.rglob("0001.txt")))
    (folder / "README.txt").write_text("about\n")
    assert len(build("mme", tmp_path).questions) == 4
    assert (
        f"{folder / 'README.txt'} is not read: it has neither an image nor questions"
        in capsys.readouterr().err
    )


def test_options_out_of_range_and_questions_without_answers(tmp_path):
    scienceqa(tmp_path)
    write(tmp_path / "problems.json", {str(n): PROBLEM | {"answer": n} for n in (0, 1, -1, 7)})
    write(tmp_path / "test" / "0" / "image.png", picture())
    data = build("scienceqa", tmp_path)
    assert [q.answers for q in data.questions] == [("A",), (), (), ()]
    assert data.info.record()["skipped"][0]["reason"] == "question 1: answer 1 is none of the 1 options"
    assert data.info.n_skipped == 3 and data.image(data.questions[0]) is not None
    vizwiz(tmp_path)
    write(tmp_path / "val.json", [{"image": "VizWiz_val_00000001.jpg", "question": "?", "answers": []}])
    assert build("vizwiz", tmp_path).info.skipped == {0: "question VizWiz_val_00000001: no answers"}


def table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    # groups of one row, so that reading has to look for the right one
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=1)


def image_of(n):
    return {"bytes": picture(size=(n, n)), "path": None}


def hub(root):
    """The layout of the hub's repositories, two images each, in two files where there may be several."""
    rows = [
        {"question_id": n, "image_id": 100 + n, "question": "What?", "image": image_of(n)} for n in (5, 6)
    ]
    for at, row in enumerate(rows):
        table(root / "vqav2" / "data" / f"validation-0000{at}-of-00002.parquet", [row | {"answers": TEN}])
    table(root / "vqav2" / "data" / "testdev-00000-of-00001.parquet", [rows[0] | {"answers": None}])
    texts = [row | {"answers": ["stop"] * 10, "ocr_tokens": ["STOP"], "image_id": "a"} for row in rows]
    table(root / "textvqa" / "data" / "validation-00000-of-00001.parquet", texts)
    ids = [{"question_id": f"VizWiz_val_{n}", "answers": ["dog"] * 10} for n in (5, 6)]
    table(
        root / "vizwiz" / "data" / "val-00000-of-00001.parquet",
        [{"question": "What?", "image": row["image"]} | id for row, id in zip(rows, ids, strict=True)],
    )
    table(
        root / "scienceqa" / "ScienceQA-IMG" / "test-00000-of-00001.parquet",
        [
            {"image": image_of(n), "question": "Which?", "choices": ["a", "b"], "answer": 1, "hint": ""}
            for n in (5, 6)
        ],
    )
    table(
        root / "mme" / "data" / "test-00000-of-00001.parquet",
        [
            {
                "question_id": "count/1.png",
                "question": "?",
                "answer": a,
                "category": "count",
                "image": image_of(n),
            }
            for n, a in ((5, "Yes"), (6, "No"))
        ],
    )
    table(
        root / "gqa" / "testdev_balanced_instructions" / "testdev-00000-of-00001.parquet",
        [{"id": f"q{n}", "imageId": f"n{n}", "question": "What?", "answer": "dog"} for n in (5, 6)],
    )
    table(
        root / "gqa" / "testdev_balanced_images" / "testdev-00000-of-00001.parquet",
        [{"id": f"n{n}", "image": image_of(n)} for n in (6, 5)],
    )


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    hub(folder)
    return folder


@pytest.mark.parametrize("name", LOCAL)
def test_the_hubs_files_of_a_set(name, hub_folder, monkeypatch):
    asked = []

    def fetch(repository, *wanted, kind, revision, error, otherwise):
        asked.append((repository, kind, revision))
        return hub_folder / name

    monkeypatch.setattr("pitome.tasks.vqa.files.fetch_folder", fetch)
    data = build(name, None, source="hub", repository="lmms-lab/x", revision="1234")
    assert set(asked) == {("lmms-lab/x", "dataset", "1234")}
    assert [data.image(question).size for question in data.questions] == [(5, 5), (6, 6)]
    assert [data.image(question).size for question in reversed(data.questions)] == [(6, 6), (5, 5)]
    assert data.questions[0].answers == LOCAL[name][3]
    assert data.info.source == "hub" and data.info.revision == name, "the commit, which names the folder"
    local = build(name, hub_folder / name)
    assert local.questions == data.questions and local.info.source == "local"


def test_ocr_tokens_and_hidden_answers_of_the_hub(hub_folder):
    asked = build("textvqa", hub_folder / "textvqa", ocr=True)
    assert "Reference OCR token: STOP" in asked.benchmark.prompt(asked.questions[0])
    plain = build("textvqa", hub_folder / "textvqa")
    assert "OCR" not in plain.benchmark.prompt(plain.questions[0])
    data = build("vqav2", hub_folder / "vqav2", split="testdev")
    assert not data.scored and data.questions[0].answers == () and not data.info.skipped


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "?", "answers": TEN, "image_id": 1, "image": None}, "has no column question_id"),
        (
            {"question_id": 1, "question": None, "answers": TEN, "image_id": 1, "image": None},
            "is None, not a text",
        ),
        ({"question_id": 1, "question": "?", "answers": TEN, "image_id": 1}, "has no column image"),
    ],
)
def test_what_is_wrong_with_a_parquet_file(row, says, tmp_path):
    table(tmp_path / "data" / "validation-0.parquet", [row])
    with pytest.raises(DataError, match=says) as error:
        build("vqav2", tmp_path)
    assert "\n" not in str(error.value)


def test_damaged_parquet_files_and_images(tmp_path):
    path = tmp_path / "data" / "validation-0.parquet"
    row = {"question": "?", "answers": TEN, "image_id": 1}
    images = [None, {"bytes": b"", "path": None}, {"bytes": b"no image", "path": None}]
    table(path, [row | {"question_id": n, "image": image} for n, image in enumerate(images)])
    data = build("vqav2", tmp_path)
    assert [data.image(question) for question in data.questions] == [None] * 3
    assert (
        data.info.skipped[0] == "question 0: 1: no image"
        and "1: no image that can be read" in data.info.skipped[2]
    )
    write(path, b"no parquet")
    with pytest.raises(DataError, match=r"validation-0\.parquet cannot be read"):
        build("vqav2", tmp_path)


def test_where_a_set_cannot_be_had(tmp_path):
    with pytest.raises(DataError, match="no package holds gqa"):
        build("gqa", None, source="package")
    with pytest.raises(DataError, match=r"data\.root=.*no such folder"):
        file_questions(
            "gqa", "testdev", ocr=False, source="local", root=str(tmp_path / "x"), repository="", revision=""
        )
    with pytest.raises(UsageError, match="unknown data 'vqa'; did you mean"):
        build("vqa", None)
    with pytest.raises(UsageError, match=r"data\.split=train is not known of data=gqa"):
        build("gqa", tmp_path, split="train")


@pytest.fixture
def easy(tmp_path, monkeypatch):
    """A pretended package with the training questions of 60 images and the test questions of two."""
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "easy.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("easy_vqa/__init__.py", "")
        for part, images in (("train", 60), ("test", 2)):
            rows = [[f"is it {colour}?", "yes", n] for n in range(images) for colour in ("red", "blue")]
            archive.writestr(f"easy_vqa/data/{part}/questions.json", json.dumps(rows))
            for n in range(images):
                archive.writestr(f"easy_vqa/data/{part}/images/{n}.png", picture())

    def fetch(archive, unpack, target, *, otherwise):
        assert archive == easy_vqa.ARCHIVE
        if not target.is_dir():
            target.mkdir(parents=True)
            unpack(wheel, target)
        return target

    monkeypatch.setattr(easy_vqa, "fetch_archive", fetch)
    return tmp_path / "cache" / "easy_vqa"


def test_easy_vqa_holds_out_whole_images(easy):
    splits = {split: build("easy_vqa", None, split=split) for split in ("test", "train", "validation")}
    images = {split: {question.image for question in data.questions} for split, data in splits.items()}
    assert not images["train"] & images["validation"] and images["train"] | images["validation"] == {
        f"images/{n}.png" for n in range(60)
    }
    assert images["validation"] == {f"images/{n}.png" for n in range(60) if held_out(n)} != set()
    assert len({data.info.revision for data in splits.values()}) == 3
    test = splits["test"]
    assert test.info.source == "package" and len(test.questions) == 4
    assert test.image(test.questions[0]).size == (8, 6)
    assert test.benchmark.prompt(test.questions[0]) == "is it red?"
    local = build("easy_vqa", easy)
    assert local.questions == test.questions and local.info.revision == test.info.revision
    assert local.info.source == "local"


def test_one_training_image_in_ten_is_held_out():
    assert 0.08 < sum(held_out(n) for n in range(4000)) / 4000 < 0.12


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"a": 1}, r"expected a list of \[question, answer, image\]"),
        ([["?", "yes"]], "entry 0 is not"),
        ([["?", "yes", "0"]], "the image of entry 0 is '0', not a number"),
        ([["?", 1, 0]], "the answer of entry 0 is 1, not a text"),
        ([], "no questions of the split test"),
    ],
)
def test_what_is_wrong_with_the_questions_of_easy_vqa(rows, says, tmp_path):
    write(tmp_path / "test" / "questions.json", rows)
    with pytest.raises(DataError, match=says) as error:
        build("easy_vqa", tmp_path)
    assert "\n" not in str(error.value)


def test_an_image_of_easy_vqa_that_is_missing(tmp_path):
    write(tmp_path / "test" / "questions.json", [["?", "yes", 0]])
    data = build("easy_vqa", tmp_path)
    assert data.image(data.questions[0]) is None
    assert data.info.skipped == {0: "question 0: images/0.png: no such file"}
    assert data.reason(data.questions[0]) == "images/0.png: no such file"
    (tmp_path / "test" / "questions.json").unlink()
    with pytest.raises(DataError, match=r"holds no test/questions\.json"):
        build("easy_vqa", tmp_path)
    with pytest.raises(DataError, match="not on the hub"):
        build("easy_vqa", None, source="hub")


def test_a_smaller_limit_chooses_a_subset(easy):
    chosen = [
        {question.id for question in build("easy_vqa", None, split="train", limit=n).questions}
        for n in (5, 20)
    ]
    assert [len(ids) for ids in chosen] == [5, 20] and chosen[0] < chosen[1]
    data = build("easy_vqa", None, split="train", limit=5)
    assert (data.info.limit, data.info.n_selected) == (5, 5) and "permutation" in data.info.selection
    whole = build("easy_vqa", None, limit=4)
    assert whole.info.limit is None and whole.info.selection == "all"


def test_limits_keep_the_questions_of_an_image_of_mme_together():
    questions = [Question(f"{n}", f"image {n // 2}", "?", ("yes",)) for n in range(40)]
    for limit, expected in [(1, 2), (2, 2), (9, 8), (39, 38), (40, 40), (None, 40)]:
        rows = select("mme", questions, limit, together=True)
        assert len(rows) == expected and rows == sorted(rows)
        assert {row ^ 1 for row in rows} == set(rows)
    assert len(select("gqa", questions, 9, together=False)) == 9
