"""The shell scripts, with stand-ins for pip and jaxllm that write down how they were called, and the benchmarks' arithmetic."""

import dataclasses
import gzip
import importlib
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxllm.data import DataConfig, TokenizerConfig, train_tokenizer
from jaxllm.recipe import find_recipe
from jaxllm.training.objectives import SpanCorruption
from jaxllm.training.objectives.span_corruption import CorruptSpans

ROOT = Path(__file__).parents[1]

PYTHON = f"""#!/bin/bash
if [ "$1 $2" = "-m pip" ]; then echo "pip ${{@: -1}}" >> calls; exit "${{PIP_EXIT:-0}}"; fi
exec {sys.executable} "$@"
"""
JAXLLM = """#!/bin/bash
echo "jaxllm $*" >> calls
if [ "$1" = train ]; then mkdir -p "${@: -1}"; touch "${@: -1}/recipe.json"; fi
"""
ENVIRONMENT = "set -euo pipefail; source scripts/environment.sh; "


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a stand-in environment in .venv."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("benchmark"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, text in (("python", PYTHON), ("jaxllm", JAXLLM)):
        path = tmp_path / ".venv" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return tmp_path


def bash(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", *command], cwd=folder, env=os.environ | variables, capture_output=True, text=True)


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    made = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return made


@pytest.mark.parametrize("path", sorted([*ROOT.glob("scripts/*.sh"), ROOT / ".ci" / "run"]), ids=lambda path: path.name)
def test_scripts_parse(path):
    assert subprocess.run(["bash", "-n", path]).returncode == 0


def test_quickstart_trains_evaluates_and_samples(checkout):
    done = bash(checkout.parent, str(checkout / "scripts" / "quickstart.sh"))
    assert done.returncode == 0, done.stderr
    run_dir = "runs/shakespeare_char"
    assert calls(checkout) == [
        "pip .",
        f"jaxllm train configs/shakespeare_char.py --run-dir {run_dir}",
        f"jaxllm evaluate {run_dir}",
        f"jaxllm generate {run_dir} --prompt ROMEO: --max-tokens 300",
    ]
    assert f"{run_dir}/report.html" in done.stdout


def test_quickstart_again_goes_on_with_the_run_and_installs_nothing(checkout):
    bash(checkout, "scripts/quickstart.sh", "runs/mine")
    calls(checkout)
    done = bash(checkout, "scripts/quickstart.sh", "runs/mine")
    assert calls(checkout)[0] == "jaxllm train runs/mine"
    assert "runs/mine holds an earlier run" in done.stdout and "scripts/quickstart.sh runs/another" in done.stdout


def test_quickstart_stops_where_training_fails(checkout):
    (checkout / ".venv" / "bin" / "jaxllm").write_text("#!/bin/bash\nexit 2\n")
    done = bash(checkout, "scripts/quickstart.sh")
    assert done.returncode == 2 and "evaluating" not in done.stdout


def test_installs_again_when_the_requirements_change(checkout):
    make = ENVIRONMENT + 'make_environment .venv python3 "$0"'
    for expected in (["pip ."], []):
        assert bash(checkout, "-c", make, ".").returncode == 0
        assert calls(checkout) == expected
    assert bash(checkout, "-c", make, ".[test]").returncode == 0
    assert calls(checkout) == ["pip .[test]"]
    with (checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    bash(checkout, "-c", make, ".")
    assert calls(checkout) == ["pip ."]


def test_a_failed_installation_is_loud_and_tried_again(checkout):
    make = ENVIRONMENT + "make_environment .venv python3 .; echo never"
    done = bash(checkout, "-c", make, PIP_EXIT="1")
    assert done.returncode != 0 and "pip could not install . into .venv" in done.stderr and "never" not in done.stdout
    calls(checkout)
    bash(checkout, "-c", make)
    assert calls(checkout) == ["pip ."]


def test_no_python_is_said(checkout):
    (checkout / "nothing").mkdir()
    done = bash(checkout, "-c", f"{ENVIRONMENT} PATH={checkout}/nothing; find_python")
    assert done.returncode != 0 and "no Python 3.11 or later" in done.stderr


def test_an_old_python_is_not_taken(checkout):
    folder = checkout / "path"
    folder.mkdir()
    for name, code in (("python3", "exit 1"), ("python3.12", f'exec {sys.executable} "$@"')):
        (folder / name).write_text(f"#!/bin/bash\n{code}\n")
        (folder / name).chmod(0o755)
    done = bash(checkout, "-c", f"{ENVIRONMENT} PATH={folder}:/bin; find_python")
    assert done.stdout.strip() == str(folder / "python3.12")


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """A script of the benchmark folder by name; records go to a folder of the test's own."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "benchmark"))
    monkeypatch.setattr(importlib.import_module("record"), "RESULTS", tmp_path)
    return importlib.import_module


def test_a_record_holds_what_is_needed_to_measure_again(benchmark):
    record = benchmark("record")
    recipe = find_recipe(str(ROOT / "configs" / "shakespeare_char.py"))
    path = record.write_record("topic", recipe, {"step_ms": record.spread([3.0, 1.0, 8.0])}, "a note")
    topic, name, device, date = path.stem.split("--")
    found = json.loads(path.read_text())
    assert (topic, name, date) == ("topic", "shakespeare_char", found["date"]) and device.startswith("cpu-")
    assert {key: found["results"]["step_ms"][key] for key in ("min", "median", "max", "repeats")} == {
        "min": 1.0,
        "median": 3.0,
        "max": 8.0,
        "repeats": 3,
    }
    assert found["config"]["model"]["embed_dim"] == 128 and found["environment"]["versions"]["jax"] and found["command"]
    assert record.newest_record("topic", "shakespeare_char") == found
    older = path.with_name(path.name.replace(date, "2020-01-01"))
    older.write_text("{}")
    assert record.newest_record("topic", "shakespeare_char") == found
    assert record.newest_record("other", "shakespeare_char") is None


def test_a_record_names_a_model_of_the_machine_without_its_folder(benchmark):
    record = benchmark("record")
    recipe = find_recipe(str(ROOT / "configs" / "smollm2_sst2.py"))
    for name, shown in (("/data/models/smollm2", "smollm2"), (f"{ROOT}/runs/base", "runs/base"), ("org/name", "org/name")):
        path = record.write_record("topic", dataclasses.replace(recipe, pretrained=name), {}, "a note")
        assert json.loads(path.read_text())["config"]["pretrained"] == shown


def test_a_record_does_not_tell_where_folders_of_the_machine_are(benchmark, monkeypatch):
    script = ROOT / "scripts" / "benchmark" / "step.py"
    words = [
        str(script),
        "/data/gpt",
        "--torch-python=/opt/torch/bin/python",
        "--steps",
        "3",
        "../data/a b",
        "runs/tiny",
        "a=b",
    ]
    monkeypatch.setattr("sys.argv", [*words, "~/nano", str(ROOT)])
    record = benchmark("record")
    written = json.loads(record.write_named_record("topic", "name", {}, {}, "").read_text())["command"]
    shown = ["gpt", "--torch-python=python", "--steps", "3", "a b", "runs/tiny", "a=b", "nano", ROOT.name]
    assert shlex.split(written) == ["python", "scripts/benchmark/step.py", *shown]


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/data/gpt=2/model", "model"),
        ("--data=/opt/a=b/c", "--data=c"),
        ("a=b=/opt/c", "a=b=/opt/c"),  # only what is behind the first sign
        ("--lr=3e-4", "--lr=3e-4"),
        ("runs/tiny", "runs/tiny"),
        ("runs/../../other/x", "x"),
        ("--out=../other", "--out=other"),
        (f"--out={ROOT}/runs/tiny", "--out=runs/tiny"),
        ("./runs/tiny", "runs/tiny"),
        ("~", "~"),
        ("~/", "~"),
        ("~/x", "x"),
        ("/", "/"),
        ("--root=/", "--root=/"),
        ("", ""),
    ],
)
def test_only_a_path_is_cut_and_only_outside_the_checkout(word, shown, benchmark, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert shlex.split(benchmark("record").shown_command([word]))[1:] == [shown]


def test_a_run_has_its_size_and_time_and_sometimes_a_sample(benchmark):
    of_training, told = benchmark("run_result").of_training, {"parameters": 3, "seconds": 1.5, "other": 4}
    for sample in ({}, {"sample": None}):
        assert of_training(told | sample) == {"parameters": 3, "seconds": 1.5}
    assert of_training(told | {"sample": "text"})["sample"] == "text"
    for name in ("parameters", "seconds"):
        with pytest.raises(KeyError, match=name):
            of_training({key: value for key, value in told.items() if key != name})


def test_the_table_of_recipes_shows_the_figure_of_each_kind(benchmark):
    record, tables = benchmark("record"), benchmark("readme_tables")
    run = {"steps": 1500, "seconds": 600.0, "validation_loss": 2.0}

    def row(name: str, topic: str | None, found: dict) -> str:
        record.write_named_record("run", name, {}, run | ({} if topic else found), "")
        if topic:
            record.write_named_record(topic, name, {}, found, "")
        before, _, after = tables._run(name).partition(" after 1,500 steps, 10.0 min on ")
        assert after.endswith(" CPU cores")
        return before

    assert row("plain", None, {}) == "validation loss 2.000"
    text = {"validation_perplexity": 7.389, "validation_bits_per_byte": 0.914}
    assert row("text", None, text) == "validation loss 2.000: perplexity 7.4, 0.91 bits a byte;"
    bleu = {"bleu": 33.24, "bleu_interval_95": 1.36, "chrf": 55.51, "sentences": 1000, "beams": 4}
    assert row("pairs", "translation_bleu", bleu) == "BLEU 33.2 ± 1.4, chrF 55.5 on 1,000 test sentences, beam 4"
    masked = {"test_loss": 3.456, "test_unigram_entropy_nats": 6.41, "test_accuracy": 0.4}
    masked["without_unknown_words"] = {"test_loss": 4.5, "test_accuracy": 0.35}
    assert row("words", "masked_words", masked) == (
        "test loss 3.46 nats a hidden token (4.50 without `<unk>`) where the unigram entropy is 6.41; "
        "40.0% of them guessed (35.0%)"
    )
    assert row("spans", "span_filling", {"test_loss": 4.0, "test_accuracy": 0.25}) == (
        "test loss 4.00 nats a token, 25.0% of tokens right"
    )
    images = {"test_accuracy": 0.7, "interval_95": [0.6796, 0.7197], "test_images": 2000}
    assert row("images", "image_accuracy", images) == "accuracy 70.0% (68.0% to 72.0%) on 2,000 test images"
    assert tables._run("nothing") == "not run"
    record.write_named_record("run", "beside", {}, run | {"shared_machine": True}, "")
    assert tables._run("beside").endswith(" CPU cores, shared with other work")


def test_sentences_are_translated_in_batches_of_like_length_and_few_shapes(benchmark):
    calls = []

    def write(texts: list[str], most: int) -> list[str]:
        calls.append((texts, most))
        return [f" {text.upper()}" for text in texts]

    sources = ["a" * 40, "b", "c" * 3, "d" * 100, "e" * 2]
    written = benchmark("translation_bleu").translate(write, sources, [len(text) for text in sources], (128, 120), 2)
    assert written == [text.upper() for text in sources]
    assert [(sorted(map(len, texts)), most) for texts, most in calls] == [([1, 2], 63), ([3, 40], 119), ([100, 100], 119)]


def test_lines_of_a_file_end_with_the_last_one(benchmark, tmp_path):
    for text, expected in (("a\n\nb\n", ["a", "", "b"]), ("a\nb", ["a", "b"])):
        (tmp_path / "text.gz").write_bytes(gzip.compress(text.encode()))
        assert benchmark("translation_bleu").lines(tmp_path / "text.gz") == expected


def test_an_interval_of_a_share_is_wilsons(benchmark):
    wilson = benchmark("image_accuracy").wilson
    np.testing.assert_allclose(wilson(5, 10), [0.2366, 0.7634], atol=1e-4)
    np.testing.assert_allclose(wilson(0, 10), [0.0, 0.2775], atol=1e-4)
    np.testing.assert_allclose(wilson(10, 10), [0.7225, 1.0], atol=1e-4)


def test_a_class_without_images_has_no_accuracy(benchmark, tmp_path, monkeypatch):
    """In the record, which stays JSON, and in the picture."""
    accuracy, figures = benchmark("image_accuracy"), []
    assert accuracy.share(5, 10) == {"accuracy": 0.5, "interval_95": accuracy.wilson(5, 10)}
    assert json.dumps(accuracy.share(0, 0), allow_nan=False) == '{"accuracy": null, "interval_95": null}'
    monkeypatch.setattr(accuracy, "Figure", lambda **options: figures.append(Figure(**options)) or figures[0])
    accuracy.draw(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), ("cat", "dog", "none"), tmp_path / "record.png")
    assert [text.get_text() for text in figures[0].axes[0].texts] == ["75", "25", "0", "0", "100", "0", "-", "-", "-"]


def test_hidden_words_are_compared_with_counts_of_words(benchmark):
    masked = benchmark("masked_words")
    assert masked.entropy(np.array([5, 0, 5, 5, 5])) == pytest.approx(math.log(4))
    guesses = masked.Guesses(np.array([0, 1, 1, 2]), np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, False, True, True]))
    found = masked.measured(guesses, np.array([1, 5, 0]), np.array([True, True, True, False]))
    assert found == {
        "hidden_tokens": 3,
        "test_loss": 2.0,
        "test_accuracy": pytest.approx(2 / 3),
        "train_unigram_loss": pytest.approx(-(math.log(2 / 9) + 2 * math.log(6 / 9)) / 3),
        "train_unigram_accuracy": pytest.approx(2 / 3),
    }


def test_a_text_with_gaps_is_shown_up_to_its_end(benchmark):
    tokenizer, corrupt = train_tokenizer(TokenizerConfig(), []), CorruptSpans(SpanCorruption(), 9, 9, (257, 258), 256, 256)
    marked = benchmark("span_filling").marked
    assert marked(tokenizer, [*b"ab ", 257, *b" c", 258, 256, *b"after"], corrupt) == "ab <0> c <1>"
    assert marked(tokenizer, [258, *b"no end"], corrupt) == "<1> no end"


def test_a_loss_is_told_as_bits_of_a_byte(benchmark):
    recipe = find_recipe(str(ROOT / "configs" / "shakespeare_char.py"))
    config = DataConfig(dataset="tiny_shakespeare", seq_len=64)
    found = benchmark("run_result").of_text(recipe, config, train_tokenizer(config.tokenizer, []), 3 * math.log(2))
    size = 111_540
    assert found["validation_bits_per_byte"] == pytest.approx(3 * (size + 1) / size)  # one end mark
    assert found["validation_bits_per_character"] == found["validation_bits_per_byte"]
    assert found["validation_perplexity"] == pytest.approx(8.0)
    assert found["validation_texts"] == 1 and found["texts_that_come_back"] == {"bytes": 1}
