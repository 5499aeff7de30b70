import subprocess
import sys
from pathlib import Path

import pytest

from jaxllm.cli.data import run


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    (tmp_path / "stories.txt").write_text("\n\n".join([*(f"Story {i}\nof a 月." for i in range(40)), "Story 3\nof a 月."]))
    return tmp_path


def test_build_and_show(stories: Path, capsys: pytest.CaptureFixture[str]):
    sets = str(stories / "sets")
    argv = ["build", "tales", str(stories / "stories.txt"), "--documents", "blank-line", "--exact-duplicates"]
    assert run([*argv, "--data-dir", sets]) == 0
    printed = capsys.readouterr().out
    assert "read 41 documents, kept 40" in printed and "exact duplicates                   1" in printed
    assert f"jaxllm data show tales --data-dir {sets}" in printed
    assert run(["show", "tales", "--data-dir", sets, "--num", "2", "--tokenizer", "bytes", "--split", "test"]) == 0
    printed = capsys.readouterr().out
    assert "characters a token" in printed and "stories.txt:" in printed and "⏎of a 月." in printed
    assert run(["show", "--data-dir", sets]) == 0
    assert "  tales" in capsys.readouterr().out.splitlines()


def test_skipped_records_are_shown(stories: Path, capsys: pytest.CaptureFixture[str]):
    (stories / "a.jsonl").write_text('{"text": "x"}\n{\n' * 5)
    argv = ["build", "lines", str(stories / "a.jsonl"), "--on-error", "skip", "--data-dir", str(stories / "sets")]
    assert run(argv) == 0
    printed = capsys.readouterr().out
    assert "skipped 5 records" in printed and "a.jsonl, line 2: expected one JSON object" in printed


@pytest.mark.parametrize(
    ("lengths", "options", "warning"),
    [
        ((40, 40, 40), ["--test-fraction", "0"], "of all characters validation has 33% (asked: 5%), since whole documents"),
        ((40, 40, 40), ["--test-fraction", "0", "--split-by", "characters"], ""),
        ((40, 40, 40), ["--test-fraction", "0", "--validation-fraction", "0"], ""),
        ((10,) * 20, [], ""),
    ],
)
def test_splits_far_from_what_was_asked_for_are_told(tmp_path: Path, capsys, lengths, options, warning):
    for number, length in enumerate(lengths):
        (tmp_path / f"{number:02}.txt").write_text("x" * length)
    assert run(["build", "books", str(tmp_path), "--data-dir", str(tmp_path / "sets"), "--seed", "1", *options]) == 0
    said = capsys.readouterr().err
    assert said.count("warning") == bool(warning) and warning in said
    assert not warning or "--split-by characters cuts each document instead" in said


def test_no_sources():
    with pytest.raises(ValueError, match="expected files or folders to build from: got none"):
        run(["build", "tales"])


def test_help_imports_nothing_heavy():
    code = """if True:
        import sys
        from jaxllm.cli.data import run
        for argv in (["--help"], ["build", "--help"], ["show", "--help"]):
            try:
                run(argv)
            except SystemExit:
                pass
        assert not {"jax", "numpy", "tensorflow_datasets", "grain"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_pairs_and_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.de").write_text("\n".join(f"eins {i}" for i in range(40)))
    (tmp_path / "a.en").write_text("\n".join(f"one {i}" for i in range(40)))
    sets = str(tmp_path / "sets")
    files = [str(tmp_path / "a.de"), str(tmp_path / "a.en")]
    assert run(["build", "pairs", *files, "--pair", "de", "en", "--data-dir", sets]) == 0
    assert run(["show", "pairs", "--data-dir", sets, "--num", "1"]) == 0
    assert "a.de:1  de: eins 0  en: one 0" in capsys.readouterr().out
    (tmp_path / "b.csv").write_text("\n".join(["s,y", *(f"text {i},{i % 2}" for i in range(40))]))
    argv = ["build", "labelled", str(tmp_path / "b.csv"), "--column", "s", "--label", "y", "--data-dir", sets]
    assert run(argv) == 0 and run(["show", "labelled", "--data-dir", sets, "--num", "1"]) == 0
    printed = capsys.readouterr().out
    assert "label (2 classes: 0, 1)" in printed and "b.csv:2  label: 0  text: text 0" in printed
    with pytest.raises(ValueError, match="--pair names both texts"):
        run([*argv, "--pair", "s", "y"])
