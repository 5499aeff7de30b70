"""Sets of task examples: the label set, the splits, and the same by the command."""

import json
from pathlib import Path

import pytest

from jaxllm.cli.data import run
from jaxllm.data import TaskDataConfig, open_task_data
from jaxllm.data.build_task import build_task_set
from jaxllm.data.splits import SplitConfig
from jaxllm.data.task_files import TaskRead
from jaxllm.data.task_labels import label_names

WHOLE = SplitConfig(validation_fraction=0.0, test_fraction=0.0)
CLASSIFICATION = TaskRead(task="classification")


def table(path: Path, rows: list[tuple[str, object]]) -> Path:
    path.write_text("\n".join(["text,label", *(f"{text},{label}" for text, label in rows)]))
    return path


def words(said: str) -> list[list[str]]:
    return [line.split() for line in said.splitlines()]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return table(tmp_path / "rows.csv", [(f"text {i}", ("10", "9", "x")[i % 3]) for i in range(40)])


def test_splits_are_cut_off_and_labels_counted(rows: Path, tmp_path: Path):
    split = SplitConfig(validation_fraction=0.1, test_fraction=0.25)
    report = build_task_set("cut", [rows], read=CLASSIFICATION, data_dir=tmp_path, split=split)
    assert report.sizes == {"train": 26, "validation": 4, "test": 10}
    data = open_task_data(TaskDataConfig(dataset="cut", data_dir=str(tmp_path), seq_len=8), seed=0)
    assert data.label_names("label") == ("9", "10", "x") and list(report.labels["train"]) == ["9", "10", "x"]
    records = [record for part in report.sizes for record in data.records(part)]
    assert sorted(int(record["text"].split()[1]) for record in records) == list(range(40))
    assert all(record["label"] == (1, 0, 2)[int(record["text"].split()[1]) % 3] for record in records)
    assert sum(sum(counts.values()) for counts in report.labels.values()) == 40
    record = json.loads((report.folder / "task.json").read_text())
    assert record["read"]["task"] == "classification" and record["split"]["test_fraction"] == 0.25


def test_numbers_are_sorted_as_numbers_and_what_only_looks_like_one_by_letter():
    assert label_names({"10", "-2", "9", "--5", "²", "b"}) == ("-2", "9", "10", "--5", "b", "²")


def test_labels_come_from_the_training_files(rows: Path, tmp_path: Path):
    own = {"test": [table(tmp_path / "test.csv", [("a", 9), ("b", "y")])]}
    with pytest.raises(ValueError, match="test.csv, line 3: expected one of the labels 9, 10, x: got 'y'; name all of them"):
        build_task_set("own", [rows], read=CLASSIFICATION, own_files=own, data_dir=tmp_path)
    skip = TaskRead(task="classification", on_error="skip")
    report = build_task_set("own", [rows], read=skip, own_files=own, data_dir=tmp_path)
    assert report.sizes == {"train": 40, "test": 1} and report.skipped.count == 1
    assert report.warnings() == ["test has no example of 10, x; take more rows for it, or another --seed"]
    named = TaskRead(task="classification", labels=("x", "9=nine", "10=ten", "y"))
    report = build_task_set("own", [rows], read=named, own_files=own, data_dir=tmp_path, overwrite=True)
    assert list(report.labels["train"]) == ["x", "nine", "ten", "y"] and report.labels["test"]["nine"] == 1
    assert report.warnings()[0].startswith("train has no example of y;")
    swapped = TaskRead(task="classification", labels=("x", "9=10", "10=9"))  # what files write comes before names
    report = build_task_set("own", [rows], read=swapped, data_dir=tmp_path, overwrite=True)
    counts = {name: sum(part[name] for part in report.labels.values()) for name in ("x", "9", "10")}
    plain = build_task_set("own", [rows], read=CLASSIFICATION, data_dir=tmp_path, overwrite=True)
    there = {name: sum(part[name] for part in plain.labels.values()) for name in ("x", "9", "10")}
    assert counts == {"x": there["x"], "10": there["9"], "9": there["10"]} and there["9"] != there["10"]
    with pytest.raises(ValueError, match="labels are the classes of classification, tokens, pairs: got them for regression"):
        build_task_set("two", [rows], read=TaskRead(task="regression", labels=("a", "b")), data_dir=tmp_path)
    with pytest.raises(ValueError, match="labels must have a name each: got a, a"):
        build_task_set("two", [rows], read=TaskRead(task="classification", labels=("a", "a")), data_dir=tmp_path)


def test_no_context_is_in_two_splits(tmp_path: Path):
    lines = [{"context": f"Context {i // 5} of it.", "question": f"q{i}", "answers": ["of"]} for i in range(100)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    split = SplitConfig(validation_fraction=0.1, test_fraction=0.2)
    report = build_task_set("qa", [tmp_path / "a.jsonl"], read=TaskRead(task="qa"), data_dir=tmp_path, split=split)
    assert report.sizes == {"train": 70, "validation": 10, "test": 20} and report.labels == {}
    data = open_task_data(TaskDataConfig(dataset="qa", data_dir=str(tmp_path), seq_len=8), seed=0)
    contexts = [{record["context"] for record in data.records(part)} for part in report.sizes]
    assert sum(map(len, contexts)) == 20 == len(set.union(*contexts))
    assert data.records("test")[0]["answers"] == {"start": [10], "text": ["of"]}


def test_own_questions_stay_whole(tmp_path: Path):
    for name, count in (("a", 10), ("b", 4)):
        lines = [{"context": "Context of it.", "question": f"{name}{i}", "answers": []} for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    own = {"test": [tmp_path / "b.jsonl"]}
    report = build_task_set("qa", [tmp_path / "a.jsonl"], read=TaskRead(task="qa"), own_files=own, data_dir=tmp_path)
    assert report.sizes == {"train": 10, "test": 4}


def test_tools_are_there_when_a_row_has_some(tmp_path: Path):
    chat = [{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "d", "tools": [{"name": "add"}]}]
    for name, lines in (("plain", chat[:1]), ("tools", chat)):
        (tmp_path / f"{name}.json").write_text(json.dumps(lines))
        read = TaskRead(task="chat")
        build_task_set(name, [tmp_path / f"{name}.json"], read=read, data_dir=tmp_path, split=WHOLE)
    config = TaskDataConfig(dataset="tools", data_dir=str(tmp_path), seq_len=8, validation_split=None)
    records = open_task_data(config, seed=0).records("train")
    assert records[0]["tools"] == "" and json.loads(records[1]["tools"])[0]["function"]["name"] == "add"
    plain = TaskDataConfig(dataset="plain", data_dir=str(tmp_path), seq_len=8, validation_split=None)
    assert set(open_task_data(plain, seed=0).records("train")[0]) == {"id", "messages"}


def test_nothing_is_left(tmp_path: Path):
    path = table(tmp_path / "a.csv", [(" ", 1)])
    skip = TaskRead(task="classification", on_error="skip")
    with pytest.raises(ValueError, match="no example is left for train: .*a.csv; 1 rows could not be used, first .*line 2"):
        build_task_set("none", [path], read=skip, data_dir=tmp_path / "sets")
    with pytest.raises(ValueError, match="stay whole: split by documents"):
        build_task_set("none", [path], read=skip, data_dir=tmp_path, split=SplitConfig(by="characters"))
    assert not (tmp_path / "sets" / "none").exists()


def test_commands(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sets, test = str(tmp_path / "sets"), table(tmp_path / "test.csv", [("a", 9), (" ", 9)])
    argv = ["build", "reviews", str(rows), "--task", "classification", "--test", str(test), "--on-error", "skip"]
    labels = ["--labels", "9=bad", "10=good", "x=none"]
    columns = ["--columns", "text=text", "label=label", "--test-columns", "text=1", "label=label"]
    assert run([*argv, *labels, *columns, "--data-dir", sets]) == 0
    said = capsys.readouterr()
    assert "read 41 examples of classification" in said.out and "skipped 1 rows, the first of them:" in said.out
    assert ["good", "14", "0"] in words(said.out) and "warning: test has no example of good, none" in said.err
    assert run(["show", "reviews", "--data-dir", sets, "--num", "1"]) == 0
    said = capsys.readouterr().out
    assert "label (3 classes: bad, good, none)" in said and ["bad", "13", "1"] in words(said)
    assert "rows.csv:2  label: good  text: text 0" in said
    with pytest.raises(ValueError, match="--column does not go with --task: name the columns with --columns"):
        run([*argv, "--column", "text"])
    with pytest.raises(ValueError, match="--columns needs --task, or leave it out"):
        run(["build", "reviews", str(rows), "--columns", "text=text"])
    with pytest.raises(ValueError, match="--columns must be ROLE=COLUMN, such as text=sentence: got 'rows.csv'"):
        run([*argv, "--columns", "text=1", "rows.csv"])


def test_a_set_of_tags_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.conll").write_text("Rome\tI-LOC\nis\tO\n\n" * 4)
    argv = ["build", "tags", str(tmp_path / "a.conll"), "--task", "tokens", "--data-dir", str(tmp_path / "sets")]
    assert run([*argv, "--validation-fraction", "0", "--test-fraction", "0"]) == 0
    capsys.readouterr()
    assert run(["show", "tags", "--data-dir", str(tmp_path / "sets"), "--num", "1"]) == 0
    said = capsys.readouterr().out
    assert "tags (list (2 classes: I-LOC, O)), tokens (list)" in said and ["I-LOC", "4"] in words(said)
    assert "a.conll:1  tags: I-LOC O  tokens: Rome is" in said
