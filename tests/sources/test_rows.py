"""Tables as people have them: every row of the file is read, or one line says what the file is. Every table
here takes a new case as one line."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from pitome.errors import DataError
from pitome.sources.rows import read_rows

ROWS = [{"text": "good film", "label": "1"}, {"text": 'a, "b"', "label": "0"}]


def written(rows: list[list[str]], **options: object) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, **options).writerows(rows)  # type: ignore[arg-type]
    return file.getvalue()


TEXTS = [["s", "y"], ["good", "1"], ['a "b" c', "0"], ["x,y;z", "1"]]
TABBED = [*TEXTS, ["with\ttab", "0"], ["two\nlines", "1"]]
GLUE = (
    "sentence\tlabel\n\"it 's charming .\t1\nbleak\t0\n"
    'the " performance " is fine\t1\n" good " but no more\t0\n'
)

# name -> file name, content, the rows without the header
READ: dict[str, tuple[str, str, list[list[str]]]] = {
    "SST-2, lone quotation marks": (
        "dev.tsv",
        GLUE,
        [
            ["\"it 's charming .", "1"],
            ["bleak", "0"],
            ['the " performance " is fine', "1"],
            ['" good " but no more', "0"],
        ],
    ),
    "marks around a whole text": ("a.tsv", 's\ty\n"wow"\t1\nno\t0\n', [['"wow"', "1"], ["no", "0"]]),
    "marks that pair up over lines": ("a.tsv", 's\ty\n"a\t1\nb"\t0\n', [['"a', "1"], ['b"', "0"]]),
    "tsv that a writer quoted": ("a.tsv", written(TABBED, delimiter="\t"), TABBED[1:]),
    "tsv, marks doubled only": ("a.tsv", written(TEXTS, delimiter="\t"), TEXTS[1:]),
    "tsv, all quoted": ("a.tsv", written(TEXTS, delimiter="\t", quoting=csv.QUOTE_ALL), TEXTS[1:]),
    "csv": ("a.csv", written(TEXTS), TEXTS[1:]),
    "csv, rows over several lines": ("a.csv", written(TABBED), TABBED[1:]),
    "csv, all quoted": ("a.csv", written(TABBED, quoting=csv.QUOTE_ALL), TABBED[1:]),
    "csv, lone marks and no commas": ("a.csv", 's,y\n"a b,1\nc "d e,0\n', [['"a b', "1"], ['c "d e', "0"]]),
    "line ends of Windows": ("a.csv", "s,y\r\na,1\r\nb,0\r\n", [["a", "1"], ["b", "0"]]),
    "no line end at the end": ("a.tsv", "s\ty\na\t1", [["a", "1"]]),
    "other line ends in a text": ("a.tsv", "s\ty\na\u2028b\x0bc\t1\n", [["a\u2028b\x0bc", "1"]]),
    "byte order mark": ("a.csv", "\ufeffs,y\na,1\n", [["a", "1"]]),
    "words that are not missing values": (
        "a.csv",
        "s,y\nNA,1\n007,0\nnull,1\n",
        [["NA", "1"], ["007", "0"], ["null", "1"]],
    ),
    "json lines": (
        "a.jsonl",
        '{"s": "a", "y": "1"}\n\n{"s": "b\u2028", "y": "0"}\n',
        [["a", "1"], ["b\u2028", "0"]],
    ),
    "json lines in .json": ("a.json", '{"s": "a", "y": "1"}\n{"s": "b", "y": "0"}', [["a", "1"], ["b", "0"]]),
    "json list": ("a.json", json.dumps([{"s": "a", "y": "1"}], indent=1), [["a", "1"]]),
    "json list in an object": ("a.json", '{"version": 1, "data": [{"s": "a", "y": "1"}]}', [["a", "1"]]),
    "json list in .jsonl": (
        "a.jsonl",
        '[{"s": "a", "y": "1"},\n{"s": "b", "y": "0"}]',
        [["a", "1"], ["b", "0"]],
    ),
    "semicolons": ("a.csv", 's;y\n"a;b, c";1\nd;0\n', [["a;b, c", "1"], ["d", "0"]]),
    "tabs in .csv": ("a.csv", "s\ty\na, b\t1\n", [["a, b", "1"]]),
    "commas in .tsv": ("a.tsv", 's,y\n"a, b",1\n', [["a, b", "1"]]),
    "marks after a backslash": ("a.csv", 's,y\n"a \\"b, c\\" d",1\n', [['a "b, c" d', "1"]]),
    "header alone": ("a.csv", "s,y\n", []),
}


@pytest.mark.parametrize("case", READ)
def test_every_row_is_read(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, content, want = READ[case]
    (tmp_path / name).write_bytes(content.encode())
    rows = read_rows(tmp_path / name)
    assert [list(row.values()) for row in rows] == want
    assert capsys.readouterr().err == ""


def test_parquet_is_read_by_column(tmp_path: Path) -> None:
    folder = tmp_path / "a [1], b"
    folder.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "train-00000-of-00001.parquet")
    assert read_rows(folder / "train-00000-of-00001.parquet") == ROWS


def test_empty_lines_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("s,y\na,1\n\n  \nb,0\n\n")
    assert len(read_rows(tmp_path / "a.csv")) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'a.csv'}: 2 rows read, 2 empty lines left out\n"


# name -> file name, content, words of the message
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "a short row": ("a.csv", b"s,y\na,1\nb\n", "line 3 has 1 fields and the header 2"),
    "a long row": ("a.tsv", b"s\ty\na\t1\t2\n", "line 2 has 3 fields and the header 2"),
    "lone marks among commas": ("a.csv", b's,y\n"a, b,1\nc "d,0\n', "do not enclose whole fields"),
    "nothing": ("a.csv", b"", "it is empty"),
    "one name twice": ("a.csv", b"s,y,s\na,1,b\n", "two of its columns are called s"),
    "a number": ("a.json", b"3", "expected a list of objects"),
    "a text": ("a.json", b'"s"', "expected a list of objects"),
    "a cut list": ("a.json", b'[{"s": "a"}, {"s":', "not valid JSON"),
    "a cut line": ("a.jsonl", b'{"s": "a"}\n{"s":\n', "line 2: not valid JSON"),
    "no objects": ("a.json", b"[1, 2]", "entry 1 is not an object"),
    "UTF-16": (
        "a.csv",
        "s,y\nä,1\n".encode("utf-16"),
        "probably in UTF-16; convert it: iconv -f UTF-16 -t UTF-8 a.csv",
    ),
    "UTF-16 without a mark": ("a.csv", "s,y\na,1\n".encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8 a.csv"),
    "Chinese": ("a.csv", "s,y\n你好世界,1\n".encode("gbk"), "probably in GB18030 (or SHIFT_JIS, EUC-KR"),
    "Latin": ("a b.csv", "s,y\ncafé,1\n".encode("latin-1"), "iconv -f ISO-8859-1 -t UTF-8 'a b.csv' > NEW"),
    "Windows": ("a.tsv", "s\ty\n“a”\t1\n".encode("cp1252"), "iconv -f WINDOWS-1252"),
    "damaged parquet": ("a.parquet", b"PAR1 no parquet", "a.parquet cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_one_line(tmp_path: Path, case: str) -> None:
    name, content, words = REFUSED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read_rows(tmp_path / name)
    assert words in str(error.value)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name} cannot be read \(it is a device or pipe\)"):
        read_rows(tmp_path / name)
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="No such file"):
        read_rows(tmp_path / "gone.csv")
