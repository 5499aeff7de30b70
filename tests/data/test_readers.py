import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jaxllm.data.readers import ReadConfig, Skipped, find_files, read_documents
from tests.data.conftest import unchecked


def read(path: Path, content: str | bytes, **config: object) -> list[tuple[str, str]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_documents([path], ReadConfig(**config), Skipped()))


TEXT = "One.\nTwo.\n\n\nThree.\r\n"


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("file", [("a.txt", "One.\nTwo.\n\n\nThree.\n")]),
        ("line", [("a.txt:1", "One."), ("a.txt:2", "Two."), ("a.txt:5", "Three.")]),
        ("blank-line", [("a.txt:1", "One.\nTwo."), ("a.txt:5", "Three.")]),
    ],
)
def test_text(tmp_path: Path, documents: str, expected: list):
    assert read(tmp_path / "a.txt", TEXT, documents=documents) == expected


def test_text_by_separator(tmp_path: Path):
    texts = read(tmp_path / "a.txt", "a\n\nb\n<end>\nc\n<end>\n", documents="separator", separator="<end>")
    assert [text for _, text in texts] == ["a\n\nb", "c"]


def test_text_by_article(tmp_path: Path):
    content = " \n = First = \n \n x \n = = Part = = \n y \n = Second = \n z \n"
    documents = read(tmp_path / "a.txt", content, documents="article")
    assert [i for i, _ in documents] == ["a.txt:2", "a.txt:7"]
    assert documents[0][1].startswith(" = First =") and " = = Part = = " in documents[0][1]


def test_jsonl(tmp_path: Path):
    lines = '{"text": "a\\nb", "n": 1}\n\n{"text": ["c", "d"]}\n"bare"\n'
    expected = [("a.jsonl:1", "a\nb"), ("a.jsonl:3", "c\nd"), ("a.jsonl:4", "bare")]
    assert read(tmp_path / "a.jsonl", lines) == expected
    assert read(tmp_path / "a.json", lines) == [(i.replace("jsonl", "json"), t) for i, t in expected]


def test_json_list_joins_paragraphs(tmp_path: Path):
    poems = [{"title": "静夜思", "paragraphs": ["床前明月光，", "疑是地上霜。"]}]
    content = json.dumps(poems, ensure_ascii=False)
    assert read(tmp_path / "p.json", content, column="paragraphs") == [("p.json:1", "床前明月光，\n疑是地上霜。")]


def test_csv_and_tsv(tmp_path: Path):
    csv = 'label,text\n1,"two\nlines, ""quoted"""\n0,plain\n'
    assert [t for _, t in read(tmp_path / "a.csv", csv)] == ['two\nlines, "quoted"', "plain"]
    assert read(tmp_path / "a.tsv", 'sentence\tlabel\nsay "hi\t1\n', column="sentence") == [("a.tsv:2", 'say "hi')]
    assert read(tmp_path / "b.csv", "1,a\n2,b\n", header=False, column="2") == [("b.csv:1", "a"), ("b.csv:2", "b")]
    assert [t for _, t in read(tmp_path / "c.csv", b"\xef\xbb\xbftext\nx\n")] == ["x"]  # byte order mark


def test_parquet(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x", "y"], "body": ["p", None]}), path)
    assert list(read_documents([path], ReadConfig(), Skipped())) == [("a.parquet:1", "x"), ("a.parquet:2", "y")]
    with pytest.raises(ValueError, match="no column 'content': it has text, body"):
        list(read_documents([path], ReadConfig(column="content"), Skipped()))
    skipped = Skipped()
    kept = list(read_documents([path], ReadConfig(column="body", on_error="skip"), skipped))
    assert (kept, skipped.count) == ([("a.parquet:1", "p")], 1)
    with pytest.raises(ValueError, match="not a Parquet file"):
        read(tmp_path / "b.parquet", "text")


def test_gzip_and_encoding(tmp_path: Path):
    assert read(tmp_path / "a.txt.gz", gzip.compress("夜".encode("gb18030")), encoding="gb18030") == [("a.txt.gz", "夜")]
    assert read(tmp_path / "b.jsonl.gz", gzip.compress(b'{"text": "x"}'))[0][1] == "x"
    with pytest.raises(ValueError, match="not a gzip file"):
        read(tmp_path / "c.txt.gz", "plain")


@pytest.mark.parametrize("before", [5, (1 << 20) - 1, (1 << 20) + 7])
def test_wrong_encoding_names_file_and_byte(tmp_path: Path, before: int):
    content = b"a" * (before - 2) + "é".encode() + b"\xe8 more"
    with pytest.raises(ValueError, match=rf"a\.txt is not utf-8: byte {before} is 0xe8; name.*--encoding"):
        read(tmp_path / "a.txt", content)
    assert len(read(tmp_path / "a.txt", content, encoding="latin-1")[0][1]) == before + 6


def test_a_character_across_blocks(tmp_path: Path):
    text = "a" * ((1 << 20) - 1) + "夜\nb"
    assert read(tmp_path / "a.txt", text)[0][1] == text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": \n', r"a\.jsonl, line 2: expected one JSON object.*--on-error skip"),
        ("a.jsonl", '{"body": "x"}\n', "line 1: expected the key 'text': the object has body; choose with --column"),
        ("a.jsonl", '{"text": 3}\n', "line 1: expected text under 'text': got int"),
        ("a.jsonl", '{"text": "\\ud800"}', "line 1: expected one JSON object: .*surrogates not allowed"),
        ("a.json", '[{"text": "\\ud800"}]', "object 1: expected one JSON object: .*surrogates not allowed"),
        ("a.jsonl", "[" * 100_000, "line 1: expected one JSON object: maximum recursion depth"),
        ("a.jsonl", "[1]\n", "line 1: expected a JSON object: got list"),
        ("a.json", '[{"text": "x"},\n 3,]', r"a\.json, line 2"),
        ("a.json", '{"text": "x"}', "expected a list of JSON objects: got one dict"),
        ("a.csv", "a,b\n1,2\n", "no column 'text': it has a, b"),
        ("a.csv", "n,text\n1,x\n2\n", "line 3: expected at least 2 columns: got 1"),
        ("a.csv", 'text\n"x"y\n', "line 2: expected a row of a table"),
        ("a.txt", "", r"a\.txt is empty"),
    ],
)
def test_malformed_files(tmp_path: Path, name: str, content: str, message: str):
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name, content)


def test_skipping_counts(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n{bad\n{"other": 1}\n{"text": "y"}\n')
    skipped = Skipped()
    kept = list(read_documents([path], ReadConfig(on_error="skip"), skipped))
    assert [text for _, text in kept] == ["x", "y"]
    assert skipped.count == 2 and "line 2" in skipped.examples[0]


def test_find_files(tmp_path: Path):
    (tmp_path / "inner").mkdir()
    for name in ("b.txt", "a.jsonl.gz", "inner/c.csv", "README", "d.png"):
        (tmp_path / name).touch()
    assert [p.name for p in find_files([tmp_path])] == ["a.jsonl.gz", "b.txt", "c.csv"]
    assert find_files([tmp_path / "README"]) == [tmp_path / "README"]
    with pytest.raises(FileNotFoundError, match="there is nothing there"):
        find_files([tmp_path / "nope"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected files ending in \.txt"):
        find_files([tmp_path / "empty"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"documents": "page"}, "got 'page'"),
        ({"encoding": "klingon"}, "such as utf-8, latin-1 or gb18030: got 'klingon'"),
        ({"header": False}, "must be the number of the text's column, from 1: got None"),
        ({"separator": "x"}, "go together"),
        ({"on_error": "ignore"}, "stop or skip: got 'ignore'"),
    ],
)
def test_impossible_options(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        unchecked(ReadConfig, **fields)
