import json
from pathlib import Path

import pytest

from jaxllm.data.build import build_text_set
from jaxllm.data.clean import CleanConfig
from jaxllm.data.readers import ReadConfig
from jaxllm.data.source import find_text_set
from jaxllm.data.splits import SplitConfig

LINES = ReadConfig(documents="line")


def texts(folder: Path, split: str) -> list[str]:
    return list(find_text_set(str(folder)).open(split))


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"line {i} 月" for i in range(100)))
    return path


def test_splits_are_exact_seeded_and_in_order(lines: Path, tmp_path: Path):
    def built(name: str, seed: int) -> dict[str, list[str]]:
        split = SplitConfig(validation_fraction=0.1, test_fraction=0.2, seed=seed)
        folder = build_text_set(name, [lines], data_dir=tmp_path, read=LINES, split=split).folder
        return {part: texts(folder, part) for part in ("train", "validation", "test")}

    first, same, other = built("a", 1), built("b", 1), built("c", 2)
    assert {part: len(documents) for part, documents in first.items()} == {"train": 70, "validation": 10, "test": 20}
    assert sorted(sum(first.values(), [])) == sorted(lines.read_text().split("\n"))
    assert first == same and first != other
    numbers = [int(text.split()[1]) for text in first["train"]]
    assert numbers == sorted(numbers)


def test_split_by_characters(tmp_path: Path):
    (tmp_path / "long.txt").write_text("0123456789" * 10)
    split = SplitConfig(by="characters", validation_fraction=0.1, test_fraction=0.2)
    report = build_text_set("long", [tmp_path / "long.txt"], data_dir=tmp_path, split=split)
    parts = [texts(report.folder, part)[0] for part in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [70, 10, 20] and "".join(parts) == "0123456789" * 10
    assert report.splits == {"train": (1, 70), "validation": (1, 10), "test": (1, 20)}


def test_own_files(lines: Path, tmp_path: Path):
    (tmp_path / "test.txt").write_text("line 7 月\nnew")
    clean = CleanConfig(exact_duplicates=True)
    own = {"test": [tmp_path / "test.txt"]}
    report = build_text_set("own", [lines], own_files=own, data_dir=tmp_path, read=LINES, clean=clean)
    assert texts(report.folder, "test") == ["line 7 月", "new"]  # the copy for evaluation stays, that for training goes
    assert list(report.splits) == ["train", "test"] and report.splits["train"][0] == 99
    with pytest.raises(ValueError, match="test must have a fraction.*got both"):
        build_text_set("two", [lines], own_files=own, data_dir=tmp_path, split=SplitConfig(test_fraction=0.1))


def test_counts_are_kept_beside_the_data(lines: Path, tmp_path: Path):
    report = build_text_set("kept", [lines], data_dir=tmp_path, read=LINES, clean=CleanConfig(min_chars=9))
    record = json.loads((report.folder / "cleaning.json").read_text())
    assert record["counts"]["documents_kept"] == 90
    assert [s["documents_removed"] for s in record["counts"]["steps"]] == [0, 10]
    assert record["clean"]["min_chars"] == 9 and record["read"]["documents"] == "line"


def test_no_earlier_set_is_lost(lines: Path, tmp_path: Path):
    build_text_set("mine", [lines], data_dir=tmp_path, read=LINES)
    before = texts(tmp_path / "mine", "train")
    with pytest.raises(ValueError, match="mine is already in .*; choose another name, or replace it with --overwrite"):
        build_text_set("mine", [lines], data_dir=tmp_path, read=LINES)
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(ValueError, match="line 1: expected one JSON object"):
        build_text_set("mine", [tmp_path / "bad.jsonl"], data_dir=tmp_path, overwrite=True)
    assert texts(tmp_path / "mine", "train") == before
    build_text_set("mine", [lines], data_dir=tmp_path, read=LINES, split=SplitConfig(seed=5), overwrite=True)
    assert texts(tmp_path / "mine", "train") != before


@pytest.mark.parametrize("content", ["{", '{"text": " "}'])
def test_nothing_half_written(tmp_path: Path, content: str):
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(ValueError, match="line 1|no document is left for train: 1 were read.*empty 1"):
        build_text_set("bad", [tmp_path / "bad.jsonl"], data_dir=tmp_path / "sets")
    assert list(tmp_path.rglob("*")) == [tmp_path / "bad.jsonl"]


def test_failure_while_writing_leaves_nothing(lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxllm.data.tfds_builder._prepare", full)
    with pytest.raises(OSError, match="No space left"):
        build_text_set("full", [lines], data_dir=tmp_path / "sets", read=LINES)
    assert list((tmp_path / "sets").iterdir()) == []


def test_too_few_documents(tmp_path: Path):
    (tmp_path / "one.txt").write_text("one")
    with pytest.raises(ValueError, match="3 documents or more are needed for the splits: there are 1; .*--split-by"):
        build_text_set("one", [tmp_path / "one.txt"], data_dir=tmp_path)


def test_names(lines: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="got 'My-Set'; try 'my_set'"):
        build_text_set("My-Set", [lines], data_dir=tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"test_fraction": 1.0}, "below 1: got 1.0"), ({"test_fraction": 0.6, "validation_fraction": 0.5}, "add up to 1.1")],
)
def test_impossible_fractions(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SplitConfig(**fields)


def test_pairs_from_aligned_files(tmp_path: Path):
    (tmp_path / "a.de").write_text("eins\nzwei\n\nvier\n")
    (tmp_path / "a.en").write_text("one\ntwo\nthree\nfour\n")
    (tmp_path / "b.de").write_text("fünf")
    (tmp_path / "b.en").write_text("five")
    read = ReadConfig(column="de", second="en")
    none = SplitConfig(validation_fraction=0.0, test_fraction=0.0)
    report = build_text_set("pairs", sorted(tmp_path.glob("*.[de]*")), data_dir=tmp_path, read=read, split=none)
    data_set = find_text_set(str(report.folder), text_feature="de")
    assert data_set.features == ("de", "en", "id") and report.cleaning.documents_read == 5
    pairs = zip(*(find_text_set(str(report.folder), text_feature=name).open("train") for name in ("de", "en")), strict=True)
    assert list(pairs) == [("eins", "one"), ("zwei", "two"), ("vier", "four"), ("fünf", "five")]  # none with a half missing
    with pytest.raises(ValueError, match="a.de and .*b.en must have as many lines: .*b.en has 1"):
        build_text_set("bad", [tmp_path / "a.de", tmp_path / "b.en"], data_dir=tmp_path, read=read)
    with pytest.raises(ValueError, match="need two files, line by line: got .*a.de alone"):
        build_text_set("bad", [tmp_path / "a.de"], data_dir=tmp_path, read=read)
    with pytest.raises(ValueError, match="stay whole: split by documents"):
        build_text_set("bad", [tmp_path / "a.de"], data_dir=tmp_path, read=read, split=SplitConfig(by="characters"))


@pytest.mark.parametrize("kind", ["jsonl", "tsv", "csv", "json"])
def test_labels_and_pairs_from_columns(tmp_path: Path, kind: str):
    rows = [(f"text {i}", ("10", "9", "x")[i % 3]) for i in range(12)]
    content = {
        "jsonl": "\n".join(json.dumps({"s": s, "y": int(y) if y != "x" else y}) for s, y in rows),
        "json": json.dumps([{"s": s, "y": y} for s, y in rows]),
        "tsv": "\n".join(["y\ts", *(f"{y}\t{s}" for s, y in rows)]),
        "csv": "\n".join(["s,y", *(f'"{s}",{y}' for s, y in rows)]),
    }
    path = tmp_path / f"rows.{kind}"
    path.write_text(content[kind])
    read, none = ReadConfig(column="s", second="y"), SplitConfig(validation_fraction=0.0, test_fraction=0.25)
    report = build_text_set("labelled", [path], data_dir=tmp_path, read=read, split=none, labelled=True)
    data_set = find_text_set(str(report.folder))
    assert data_set.features == ("id", "label", "text") and data_set.label_names("label") == ("9", "10", "x")
    assert report.splits["train"][0] == 9 and report.splits["test"][0] == 3
    report = build_text_set("pairs", [path], data_dir=tmp_path, read=read, split=none)
    assert find_text_set(str(report.folder), text_feature="y").features == ("id", "s", "y")
    with pytest.raises(ValueError, match="(key|column) 'z'"):
        build_text_set("bad", [path], data_dir=tmp_path, read=ReadConfig(column="s", second="z"), labelled=True)
    with pytest.raises(ValueError, match="labelled=True needs read.second"):
        build_text_set("bad", [path], data_dir=tmp_path, labelled=True)


def test_the_first_encoding_that_fits_the_whole_file(tmp_path: Path):
    (tmp_path / "a.txt").write_text("Grüße")
    (tmp_path / "b.txt").write_bytes(b"x" * 3_000_000 + "Grüße".encode("latin-1"))
    read = ReadConfig(encoding="utf-8,latin-1")
    none = SplitConfig(validation_fraction=0.0, test_fraction=0.0)
    report = build_text_set("both", [tmp_path / "a.txt", tmp_path / "b.txt"], data_dir=tmp_path, read=read, split=none)
    assert [text[-5:] for text in texts(report.folder, "train")] == ["Grüße", "Grüße"]
    with pytest.raises(ValueError, match="b.txt is not utf-8: byte 3000002 is 0xfc"):
        build_text_set("one", [tmp_path / "b.txt"], data_dir=tmp_path, split=none)
    with pytest.raises(ValueError, match="got 'klingon'"):
        ReadConfig(encoding="utf-8,klingon")
