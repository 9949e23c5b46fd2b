"""Texts from files and from the package; every complaint is one line that names the place."""

import io
import json
import tarfile
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from pitome.errors import DataError
from pitome.sources.checksums import checksum_of_texts
from pitome.tasks.text import files as text_files
from pitome.tasks.text import sets as text_sets
from pitome.tasks.text.files import assign, find_files, read_file, read_rows
from pitome.tasks.text.sets import SETS, package_rows
from pitome.tasks.text.split import SPLITS, hash_split, normalise, official_split

ROWS = [("good film", 1), ("bad, bad film", 0), ('a "quoted"\nline', 1)]
SST2 = SETS["sst2"]


def write(path, rows=ROWS, column="text"):
    if path.suffix == ".parquet":
        table = pyarrow.table({column: [t for t, _ in rows], "label": [label for _, label in rows]})
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({column: t, "label": label}) + "\n" for t, label in rows))
    else:
        import csv

        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([(column, "label"), *rows])
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
@pytest.mark.parametrize("column", ["text", "sentence"])
def test_every_form_of_file_gives_the_same(tmp_path, suffix, column):
    texts, labels = read_file(write(tmp_path / f"train{suffix}", column=column), SST2)
    assert list(zip(texts, labels, strict=True)) == ROWS


def test_labels_may_be_names_and_texts_long_or_in_any_script(tmp_path):
    rows = [("x" * 100_000, "negative"), ("🙂 漢字 مرحبا\u2028ñ", "positive"), ("", "1")]
    texts, labels = read_file(write(tmp_path / "train.csv", rows), SST2)
    assert texts == [text for text, _ in rows] and labels == [0, 1, 1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "words,label\nx,1\n", "has no column sentence in row 1, it has words, label"),
        ("a.jsonl", '{"text": "x"}\n', "has no column label in row 1"),
        (
            "a.csv",
            "text,label\nx,1\ny,2\n",
            r"row 2: label '2' is none of the classes 0 \(negative\), 1 \(positive\)",
        ),
        ("a.csv", "text,label\nx,1.5\n", "row 1: label '1.5' is none"),
        ("a.jsonl", '{"text": "x", "label": -1}\n', "label -1 is none"),
        ("a.jsonl", '{"text": "x", "label": "maybe"}\n', "label 'maybe' is none"),
        ("a.jsonl", '{"text": null, "label": 1}\n', "the text is None, not a string"),
        ("a.jsonl", '{"text": "x"\n', "cannot be read"),
        ("a.jsonl", "[1]\n", "entry 1 is not an object"),
        ("a.csv", "text,label\nx\n", "line 2 has 1 fields and the header 2"),
        ("a.parquet", "no parquet", "cannot be read"),
    ],
    ids=[
        "column",
        "label-column",
        "class",
        "fraction",
        "unlabelled",
        "bool",
        "null",
        "cut",
        "list",
        "short",
        "damaged",
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        read_file(path, SST2)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"a\.csv is not in UTF-8 .*iconv -f ISO-8859-1"):
        read_file(tmp_path / "a.csv", SST2)


def local(name, kind, root):
    return read_rows(name, kind, source="local", root=str(root), repository="", revision="")


def test_splits_of_a_folder(tmp_path):
    write(tmp_path / "train.csv")
    write(tmp_path / "validation.csv", [("a", 1)])
    write(tmp_path / "test.jsonl", [("b", 0)])
    rows = local("imdb", "official", tmp_path)
    assert rows.splits == ["test", *["train"] * 3, "validation"] and rows.source == "local"
    rows = local("sst2", "official", tmp_path)
    assert rows.splits == [*["train"] * 3, "test"], "SST-2 is tested on its validation split"


def test_a_folder_without_splits_or_files(tmp_path):
    (tmp_path / "read.me").touch()
    with pytest.raises(DataError, match="holds no parquet, jsonl, csv or tsv file"):
        local("imdb", "hash", tmp_path)
    write(tmp_path / "reviews.csv")
    rows = local("imdb", "hash", tmp_path)
    assert rows.splits is None
    assert assign(rows, "hash", "imdb") == [hash_split(text) for text, _ in ROWS]
    with pytest.raises(DataError, match=r"name no splits.*data\.split=hash"):
        assign(rows, "official", "imdb")


def test_the_hash_looks_at_letters_and_digits_only():
    same = ["The film's GOOD!", "the film ' s good !", "  \uff34\uff28\uff25 film-s good"]
    assert len({normalise(text) for text in same}) == 1 and len({hash_split(text) for text in same}) == 1
    assert normalise("!?") == "!?" and normalise(" 🙂 ") == "🙂", "nothing else to go by"
    counts = [sum(hash_split(f"text {i}") == split for i in range(2000)) for split in SPLITS]
    assert all(abs(count / 2000 - share) < 0.03 for count, share in zip(counts, (0.7, 0.1, 0.2), strict=True))


def test_no_text_stands_on_two_sides_of_the_official_split():
    texts = ["A film.", "a film", "b film", "b film!", "c", "c", "d"]
    given = ["train", "test", "train", "validation", "test", "test", "train"]
    assert official_split(texts, given) == [None, "test", None, "validation", "test", "test", "train"]


def test_a_validation_split_is_taken_from_the_training_texts():
    texts = [f"text {i}" for i in range(1000)]
    out = official_split([*texts, texts[0]], ["train"] * 1000 + ["test"])
    assert out[0] is None and out[-1] == "test"
    assert 70 < out.count("validation") < 130 and out.count("train") > 850


def test_the_checksum_names_texts_labels_and_order():
    sets = [(["a", "b"], [0, 1]), (["b", "a"], [0, 1]), (["a", "b"], [1, 1])]
    sums = {checksum_of_texts(*data) for data in sets}
    assert len(sums) == 3 and all(value.startswith("sha256:") for value in sums)


@pytest.fixture
def sdist(tmp_path, monkeypatch):
    """A pretended download of the package, cut to six rows."""
    monkeypatch.setenv("PITOME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(text_sets, "_POSITIVE", 2)
    monkeypatch.setattr(text_sets, "_LABELLED", 5)

    def make(rows):
        inner, outer = io.BytesIO(), tmp_path / "vader.tar.gz"
        for where, name, content in [
            (
                inner,
                f"hutto_ICWSM_2014/{text_sets._SNIPPETS}",
                "".join(f"{i}\t0.5\t{row}\r\n" for i, row in enumerate(rows)).encode(),
            ),
            (outer, "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", inner),
        ]:
            content = content.getvalue() if isinstance(content, io.BytesIO) else content
            target = {"fileobj": where} if where is inner else {"name": where}
            with tarfile.open(mode="w:gz", **target) as archive:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))

        def fetch(archive, unpack, target, *, otherwise):
            if not target.is_dir():
                target.mkdir(parents=True)
                unpack(outer, target)
            return target

        monkeypatch.setattr(text_sets, "fetch_archive", fetch)

    return make


def test_the_package(sdist):
    sdist(["good", "fine \u2013 é", "bad", "worse\u2028still", "dull", "of other origin"])
    texts, labels = package_rows("or walk")
    assert texts == ["good", "fine \u2013 é", "bad", "worse\u2028still", "dull"] and labels == [1, 1, 0, 0, 0]
    rows = read_rows("rotten_tomatoes", "hash", source="package", root=None, repository="", revision="")
    assert (rows.source, rows.texts) == ("package", texts)
    rows = read_rows("rotten_tomatoes", "hash", source="auto", root=None, repository="", revision="")
    assert rows.source == "package", "the cached package comes before the hub"


def test_a_package_with_other_contents(sdist):
    sdist(["good"])
    with pytest.raises(DataError, match="has 2 rows; delete its folder"):
        package_rows("or walk")


def test_no_package_where_there_is_none():
    for name, kind, message in [
        ("imdb", "hash", "no package holds imdb"),
        ("rotten_tomatoes", "official", "holds no official split"),
    ]:
        with pytest.raises(DataError, match=message):
            read_rows(name, kind, source="package", root=None, repository="", revision="")


def test_the_hub_is_read_by_split(tmp_path, monkeypatch):
    asked = []

    def fetch(repo, *wanted, **options):
        asked.append((repo, wanted, options["revision"]))
        return tmp_path

    monkeypatch.setattr(text_files, "fetch_folder", fetch)
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train-00000-of-00001.parquet", column="sentence")
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", [("c", 1)], column="sentence")
    rows = read_rows("sst2", "official", source="auto", root=None, repository="r/s", revision="abc")
    assert rows.source == "hub" and rows.splits == ["train"] * 3 + ["test"]
    assert asked == [("r/s", ("data/train-*.parquet", "data/validation-*.parquet"), "abc")]


def test_without_hub_and_package(monkeypatch):
    def refuse(repo, *wanted, otherwise, **options):
        raise DataError(f"out of reach, {otherwise}")

    monkeypatch.setattr(text_files, "fetch_folder", refuse)
    with pytest.raises(DataError, match=r"out of reach, give a folder with data\.root"):
        read_rows("imdb", "official", source="auto", root=None, repository="r/s", revision="abc")


def test_what_systems_leave_behind_is_no_file_of_texts(tmp_path):
    for name in ("train.csv", "more/test.csv", "._train.csv", ".ipynb_checkpoints/train-checkpoint.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "train.csv").touch()
    assert find_files(tmp_path, SST2) == [
        (tmp_path / "more" / "test.csv", "test"),
        (tmp_path / "train.csv", "train"),
    ]


LABELS = {
    "number": (1, 1),
    "digits": ("0", 0),
    "float": (1.0, 1),
    "text of a float": ("1.0", 1),
    "spaces": (" 1 ", 1),
    "bool": (True, 1),
    "text of a bool": ("False", 0),
    "class": ("negative", 0),
    "class in capitals": ("Positive", 1),
    "beginning of a class": ("pos", 1),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_are_understood_in_every_form(tmp_path, case):
    given, label = LABELS[case]
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "x", "label": given}))
    assert read_file(tmp_path / "train.jsonl", SST2) == (["x"], [label])


def test_a_bool_is_a_class_of_that_name_first(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "x", "label": true}')
    assert read_file(tmp_path / "train.jsonl", text_sets.text_set("mine", ("true", "false")))[1] == [0]


# name -> data set, its split, files and contents, the rows (text, label, split)
PUBLISHED = {
    "GLUE": (
        "sst2",
        "official",
        {
            "train.tsv": 'sentence\tlabel\n" a\t1\n',
            "dev.tsv": 'sentence\tlabel\n"b\t0\n',
            "test.tsv": "index\tsentence\n0\tc\n",
        },
        [('"b', 0, "test"), ('" a', 1, "train")],
    ),
    "aclImdb": (
        "imdb",
        "official",
        {
            "test/pos/0_8.txt": "good",
            "test/neg/0_1.txt": "bad",
            "train/pos/0_9.txt": "fine",
            "train/unsup/0_0.txt": "unlabelled",
            "train/urls_pos.txt": "an address",
            "README": "about",
            "imdb.vocab": "the",
            "test/neg/.hidden.txt": "no",
        },
        [("bad", 0, "test"), ("good", 1, "test"), ("fine", 1, "train")],
    ),
    "aclImdb, folder above": (
        "imdb",
        "official",
        {"aclImdb/test/pos/0_8.txt": "good"},
        [("good", 1, "test")],
    ),
    "Kaggle's IMDB": (
        "imdb",
        "hash",
        {"IMDB Dataset.csv": 'review,sentiment\n"A, b<br />",positive\nc,negative\n'},
        [("A, b<br />", 1, None), ("c", 0, None)],
    ),
    "a hub's folder": (
        "imdb",
        "official",
        {"data/test.jsonl": '{"text": "a", "label": 1}', "dataset_info.json": '{\n "features": {}\n}'},
        [("a", 1, "test")],
    ),
    "strays": (
        "imdb",
        "official",
        {
            "test.csv": "text,label\na,1\n",
            "vocab.json": '["a"]',
            "notes.csv": "who,when\nme,now\n",
            "README.md": "about",
            ".ipynb_checkpoints/test-checkpoint.csv": "text,label\na,1\n",
        },
        [("a", 1, "test")],
    ),
}


def lay(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


@pytest.mark.parametrize("case", PUBLISHED)
def test_sets_as_they_are_published(tmp_path, case, capsys):
    name, kind, files, want = PUBLISHED[case]
    lay(tmp_path, files)
    rows = local(name, kind, tmp_path)
    splits = rows.splits or [None] * len(rows.texts)
    assert list(zip(rows.texts, rows.labels, splits, strict=True)) == want
    left = [line.partition(" ")[0] for line in capsys.readouterr().err.splitlines()]
    assert left == {"a hub's folder": ["dataset_info.json"], "strays": ["notes.csv", "vocab.json"]}.get(
        case, []
    )


@pytest.mark.parametrize("other", ["train.jsonl", "train (copy).csv", "train/all.csv"])
def test_the_same_rows_in_two_files_are_an_error(tmp_path, other):
    write(tmp_path / "train.csv")
    (tmp_path / other).parent.mkdir(exist_ok=True)
    write(tmp_path / other)
    with pytest.raises(DataError, match="hold the same rows; remove one of them") as error:
        local("imdb", "hash", tmp_path)
    assert "train.csv" in str(error.value) and other in str(error.value)


def test_a_stray_table_alone_is_an_error(tmp_path):
    (tmp_path / "notes.csv").write_text("who,when\nme,now\n")
    with pytest.raises(DataError, match="has no column text in row 1, it has who, when"):
        local("imdb", "hash", tmp_path)


# what: the files of a folder, and the texts and labels of its test split or the words of the message
FOLDERS: dict[str, tuple[dict[str, str], Any]] = {
    "capital suffix": ({"test/pos/1.TXT": "a", "test/neg/1.TXT": "b"}, [("b", 0), ("a", 1)]),
    "one class is empty": (
        {"test/pos/1.txt": "a", "test/neg/.keep": ""},
        "neg holds no .txt files; add some",
    ),
    "capital columns": ({"test.csv": "Text,LABEL\na,Positive\n"}, [("a", 1)]),
    "beside the texts": (
        {"test/pos/1.txt": "a", "test/pos/notes.md": "x", "test/neg/2.txt": "b"},
        [("b", 0), ("a", 1)],
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders_as_people_have_them(case, tmp_path, capsys):
    files, want = FOLDERS[case]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    def read():
        return read_rows("imdb", "official", source="local", root=str(tmp_path), repository="", revision="")

    if isinstance(want, str):
        with pytest.raises(DataError, match=want):
            read()
        return
    rows = read()
    assert list(zip(rows.texts, rows.labels, strict=True)) == want
    assert ("1 other files are not, e.g. notes.md" in capsys.readouterr().err) == (case == "beside the texts")


def test_a_class_of_ones_own_is_not_known_by_its_beginning(tmp_path):
    (tmp_path / "test.csv").write_text("text,label\na,non\n")
    with pytest.raises(DataError, match="label 'non' is none of the classes"):
        read_rows(
            "mine",
            "official",
            source="local",
            root=str(tmp_path),
            repository="",
            revision="",
            classes=["nonsense", "other"],
        )
