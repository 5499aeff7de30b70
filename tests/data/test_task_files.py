"""What the readers of tasks take, and what they refuse."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from jaxllm.cli.data_task import FORMATS, TASKS
from jaxllm.data.readers import find_files
from jaxllm.data.task_files import TaskFormat, TaskKind, TaskRead, TaskReader
from jaxllm.data.task_kinds import KINDS
from tests.data.conftest import unchecked


def read(path: Path, content: str | bytes, **config: Any) -> list[dict[str, Any]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [
        {name: value for name, value in example.items() if name != "id"}
        for example in TaskReader(TaskRead(**config)).read([path], "train")
    ]


def test_the_command_knows_all_kinds_and_formats():
    assert TASKS == TaskKind.__args__ == tuple(KINDS) and FORMATS == TaskFormat.__args__


TWO = [{"text": "good film", "label": "pos"}, {"text": "bad film", "label": "neg"}]


@pytest.mark.parametrize(
    ("name", "content", "config"),
    [
        ("a.jsonl", "\n".join(map(json.dumps, TWO)), {}),
        ("a.json", json.dumps(TWO), {}),
        ("a.json", "\n".join(map(json.dumps, TWO)), {}),
        ("a.unknown", "\n".join(map(json.dumps, TWO)), {}),
        ("a.csv", "\ufefflabel,text\npos,good film\nneg,bad film\n", {}),
        ("a.tsv", "n\tlabel\tsentence\n1\tpos\tgood film\n2\tneg\tbad film\n", {}),
        ("a.txt", "n\tlabel\tsentence\n1\tpos\tgood film\n2\tneg\tbad film\n", {}),
        ("a.csv", "pos,good film\r\nneg,bad film\r\n", {"columns": {"text": "2", "label": "1"}}),
        ("a.csv", "y,t,b\npos,good,film\nneg,bad,film\n", {"columns": {"text": "t+b", "label": "y"}}),
        ("a.csv", "pos,good,film\nneg,bad,film\n", {"columns": {"text": "2+3", "label": "1"}}),
        ("a.all", "pos good film\nneg bad film\n", {"line": "{label} {text}"}),
        ("a.all", "good film@pos\n\nbad film@neg\n", {"line": "{text}@{label}"}),
        (
            "a.csv",
            "y,text\n1,good film\n0,bad film\n",
            {"columns": {"text": "text", "label": "y"}, "labels": ("0=neg", "1=pos")},
        ),
    ],
)
def test_a_classification_in_every_layout(tmp_path: Path, name: str, content: str, config: dict):
    assert read(tmp_path / name, content, task="classification", **config) == TWO


def test_parquet_and_encodings(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x", "y"], "label": [1, 0]}), path)
    examples = list(TaskReader(TaskRead(task="classification")).read([path], "train"))
    assert examples[0] == {"id": "a.parquet:1", "text": "x", "label": "1"}
    line = {"task": "classification", "line": "{label} {text}", "encoding": "latin-1"}
    assert read(tmp_path / "a.all", "0 café".encode("latin-1"), **line) == [{"text": "café", "label": "0"}]


def test_texts_keep_what_stands_between_columns(tmp_path: Path):
    config = {"task": "classification", "line": "{text}@{label}"}
    assert read(tmp_path / "a.txt", "me@work@neg\n", **config) == [{"text": "me@work", "label": "neg"}]


def test_several_labels(tmp_path: Path):
    listed = '{"text": "x", "labels": ["b", "a"]}\n{"text": "y", "labels": []}\n'
    assert [e["labels"] for e in read(tmp_path / "a.jsonl", listed, task="classification")] == [["b", "a"], []]
    written = read(tmp_path / "a.csv", 'text,labels\nx,"2, 5"\n', task="classification")
    assert written[0]["labels"] == ["2", "5"]
    columns = {"text": "text", "labels": "rude+mild"}
    table = "text,rude,mild\nx,1,0\ny,1,1\n"
    assert [e["labels"] for e in read(tmp_path / "b.csv", table, task="classification", columns=columns)] == [
        ["rude"],
        ["rude", "mild"],
    ]
    with pytest.raises(ValueError, match=r"b.csv, line 2: expected 0 or 1 under rude, mild: got \[2.0, 0.0\]"):
        read(tmp_path / "b.csv", "text,rude,mild\nx,2,0\n", task="classification", columns=columns)


def test_scores(tmp_path: Path):
    content = "a,b,5.0\nc,d,3.8\n"
    columns = {"text": "1", "text_pair": "2"}
    expected = [{"text": "a", "text_pair": "b", "label": 5.0}, {"text": "c", "text_pair": "d", "label": 3.8}]
    assert read(tmp_path / "a.csv", content, task="regression", columns={**columns, "label": "3"}) == expected
    assert read(tmp_path / "a.csv", content, task="pairs", columns={**columns, "score": "3"}) == expected
    for wrong in ("high", "nan", ""):
        with pytest.raises(ValueError, match=f"a.csv, line 1: expected a number under 'label': got '{wrong}'; correct it"):
            read(tmp_path / "a.csv", f"a,b,{wrong}\n", task="regression", columns={**columns, "label": "3"})


def test_pairs(tmp_path: Path):
    content = '{"anchor": "a", "positive": "b", "negative": "c"}\n'
    assert read(tmp_path / "a.jsonl", content, task="pairs") == [{"text": "a", "text_pair": "b", "negative": "c"}]
    content = '{"premise": "a", "hypothesis": "b", "label": 2}\n'
    assert read(tmp_path / "a.jsonl", content, task="pairs") == [{"text": "a", "text_pair": "b", "label": "2"}]


def test_conll(tmp_path: Path):
    content = "-DOCSTART- -X- O\n\nRome NNP I-LOC\nis VBZ O\n\n\nOslo NNP B-LOC\n"
    examples = read(tmp_path / "a.train", content, task="tokens")
    assert examples == [{"tokens": ["Rome", "is"], "tags": ["I-LOC", "O"]}, {"tokens": ["Oslo"], "tags": ["B-LOC"]}]
    examples = read(tmp_path / "a.train", content, task="tokens", columns={"tokens": "1", "tags": "2"})
    assert examples[0]["tags"] == ["NNP", "VBZ"]
    tabs = "科0\tO\n技1\tO\n"
    assert read(tmp_path / "b.conll", tabs, task="tokens", token_pattern="(.+)[0-9]")[0]["tokens"] == ["科", "技"]
    with pytest.raises(ValueError, match=r"b.conll, line 1: expected tokens like '\(\.\+\)\[0-9\]': got 'Oslo'"):
        read(tmp_path / "b.conll", "Oslo\tO\n", task="tokens", token_pattern="(.+)[0-9]")
    ids = '{"tokens": ["a", "b"], "ner_tags": [0, 1]}'
    assert read(tmp_path / "a.jsonl", ids, task="tokens", labels=("0=O", "1=B-X"))[0]["tags"] == ["O", "B-X"]


def test_conll_lines_with_the_wrong_columns(tmp_path: Path):
    content = "a O\nb\n\nc O\nd x O\n\ne O\n"
    with pytest.raises(ValueError, match="a.conll, line 2: expected 2 columns, as on other lines: got 1; .*--on-error skip"):
        read(tmp_path / "a.conll", content, task="tokens")
    reader = TaskReader(TaskRead(task="tokens", on_error="skip"))
    assert [e["id"] for e in reader.read([tmp_path / "a.conll"], "train")] == ["a.conll:7"] and reader.skipped.count == 2
    with pytest.raises(ValueError, match="line 1: expected 2 columns"):
        read(tmp_path / "b.conll", "word\n", task="tokens")
    with pytest.raises(ValueError, match="expected tokens and as many tags: got 1 and 2"):
        read(tmp_path / "a.jsonl", '{"tokens": ["a"], "tags": ["O", "O"]}', task="tokens")


CONTEXT = "Rome lies in Italy. Italy is large."


BOTH = {"text": ["Italy"], "answer_start": [13]}


def squad(*answers: dict[str, Any], **question: Any) -> str:
    question = {"question": "Where?", "id": "q1", "answers": list(answers), **question}
    return json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": [question]}]}]})


@pytest.mark.parametrize(
    ("name", "content", "texts", "starts"),
    [
        ("a.json", squad({"text": "Italy", "answer_start": 20}), ["Italy"], [20]),
        ("a.json", squad({"text": "Italy", "answer_start": 18}), ["Italy"], [20]),  # a wrong place: the nearest
        ("a.json", squad(is_impossible=True, plausible_answers=[{"text": "Italy", "answer_start": 20}]), [], []),
        ("a.jsonl", json.dumps({"context": CONTEXT, "question": "Where?", "answers": BOTH}), ["Italy"], [13]),
        ("a.json", json.dumps([{"context": CONTEXT, "question": "Where?", "answer": "large"}]), ["large"], [29]),
        ("a.json", json.dumps({"data": [{"context": CONTEXT, "question": "Where?", "answers": []}]}), [], []),
    ],
)  # fmt: skip
def test_questions(tmp_path: Path, name: str, content: str, texts: list, starts: list):
    expected = [{"context": CONTEXT, "question": "Where?", "answers": {"text": texts, "start": starts}}]
    assert read(tmp_path / name, content, task="qa") == expected


@pytest.mark.parametrize("part", ['{"paragraphs": [{"context": "a", "qas": "x"}]}', '{"paragraphs": 5}', "3"])
def test_articles_of_another_form(tmp_path: Path, part: str):
    with pytest.raises(ValueError, match="a.json, object 1 of data: expected .*: got .*; correct it"):
        read(tmp_path / "a.json", f'{{"data": [{part}]}}', task="qa")


def test_an_answer_that_stands_nowhere(tmp_path: Path):
    path = tmp_path / "a.json"
    wrong = {"text": "Spain", "answer_start": 13}
    with pytest.raises(
        ValueError, match=r"a.json, question 1 \(q1\): expected an answer that stands in its context: got 'Spain'"
    ):
        read(path, squad(wrong), task="qa")
    reader = TaskReader(TaskRead(task="qa", on_error="skip"))
    path.write_text(squad(wrong, {"text": "Italy", "answer_start": 0}))
    (example,) = reader.read([path], "train")
    assert example["answers"] == {"text": ["Italy"], "start": [13]} and example["id"] == "a.json:q1"
    assert reader.skipped.count == 1 and reader.answers_moved == 1
    path.write_text(squad(wrong))  # not turned into a question without an answer
    assert list(reader.read([path], "validation")) == []


def test_text_to_text(tmp_path: Path):
    (tmp_path / "a.de").write_text("eins\nzwei\n")
    (tmp_path / "a.en").write_text("one\ntwo\n")
    reader = TaskReader(TaskRead(task="text-to-text"))
    pairs = [(e["id"], e["text"], e["target"]) for e in reader.read([tmp_path / "a.de", tmp_path / "a.en"], "train")]
    assert pairs == [("a.de:1", "eins", "one"), ("a.de:2", "zwei", "two")]
    sentences = '{"source": ["One.", "Two."], "target": ["a", "b"]}\n'
    columns = {"text": "source", "targets": "target"}
    (example,) = read(tmp_path / "a.jsonl", sentences, task="text-to-text", columns=columns)
    assert example == {"text": "One. Two.", "target": "a", "targets": ["a", "b"]}
    columns = {"text": "dialogue", "targets": "summary1+summary2"}
    several = '{"dialogue": "d", "summary1": "a", "summary2": "b"}'
    assert read(tmp_path / "b.jsonl", several, task="text-to-text", columns=columns)[0]["targets"] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "config", "message"),
    [
        ("a.csv", "text,label\n ,1\n", {}, "a.csv, line 2: expected text under 'text': got an empty one; correct it, or leave"),
        ("a.csv", "text,label\nx,\n", {}, "a.csv, line 2: expected a label: got none"),
        ("a.csv", "text,label\nx,2\n", {"labels": ("0", "1")}, "line 2: expected one of the labels 0, 1: got '2'; name all"),
        ("a.csv", "body,label\nx,1\n", {}, "a.csv: found no column for text: it has body, label; .*--columns text=COLUMN"),
        ("a.csv", "text,label\nx,1\n", {"columns": {"text": "txt"}}, "column 'txt': it has text, label"),
        ("a.csv", "x,1\n", {"columns": {"text": "1", "label": "3"}}, "expected the column '3': it has 1, 2; choose with"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "y"}', {}, "a.jsonl, line 2: found no column for label: it has text"),
        ("a.jsonl", '{"text": 3, "label": 1}', {}, "a.jsonl, line 1: expected text under 'text': got 3"),
        ("a.jsonl", '{"text": "x", "label": [1]}', {}, "expected a label, a name or a whole number: got"),
        ("a.jsonl", '{"text": "x", "label": NaN}', {}, "expected a label, a name or a whole number: got nan"),
        ("a.jsonl", "3", {}, "line 1: expected a JSON object: got int"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "x", "text_pair": "y", "label": 1}', {}, "expected label, text as in"),
        ("a.csv", "text,label\nx\n", {}, "line 2: expected at least 2 columns: got 1"),
        ("a.xyz", "good film\n", {}, "a.xyz: expected a file ending in .jsonl.*its first line is 'good film'; .*--line"),
        ("a.txt", "good\n", {"line": "{label} {text}"}, "line 1: expected a line like '{label} {text}': got 'good'"),
        ("a.csv", "", {}, "a.csv is empty"),
    ],
)  # fmt: skip
def test_bad_rows(tmp_path: Path, name: str, content: str, config: dict, message: str):
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name, content, task="classification", **config)


@pytest.mark.parametrize("content", [b"\x80\x04\x95\x10\x00", b"PK\x03\x04" + b"\0" * 26 + b"archive/data.pkl"])
def test_a_pickle_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match="a.csv is a pickle, which can run any program when it is read.*Parquet"):
        find_files([tmp_path / "a.csv"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "tagging"}, "task must be one of classification, .*: got 'tagging'"),
        ({"task": "tokens", "columns": {"text": "1"}}, "the columns of tokens are tokens, tags: got text"),
        ({"task": "classification", "line": "label text"}, "line must name the roles"),
        ({"task": "tokens", "token_pattern": ".+"}, "token_pattern must have a group"),
        ({"task": "tokens", "token_pattern": "(.+"}, "token_pattern must be a regular expression"),
        ({"task": "classification", "line": "{text} {text}"}, "line must be a regular expression, with each name once"),
        ({"task": "tokens", "encoding": "klingon"}, "got 'klingon'"),
    ],
)
def test_impossible_options(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        unchecked(TaskRead, **({"columns": {}, "own_columns": {}, "encoding": "utf-8"} | fields))
