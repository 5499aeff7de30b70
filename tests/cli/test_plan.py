"""`jaxllm plan` from the command line, for the devices here."""

import json

import pytest

from jaxllm.cli import run
from tests.plan.conftest import two_cores  # noqa: F401

pytestmark = pytest.mark.usefixtures("two_cores")
TINY = ["tests/recipe/tiny.py", "--model.vocab-size", "64"]


def test_figures_and_report_are_written(tmp_path, capsys):
    path = tmp_path / "plan.json"
    assert run(["plan", *TINY, "--json", str(path), "--price", "1.5"]) == 0
    said, found = capsys.readouterr().out, json.loads(path.read_text("utf-8"))
    assert "fits" in said and "(estimate" in said and f"report: {tmp_path / 'report.html'}" in said
    assert found["fits"] is True and found["estimated_step_seconds"] > 0 and found["estimated_dollars_per_billion_tokens"] > 0
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<svg" in page and "jaxllm plan tests/recipe/tiny.py --model.vocab-size 64 --json" in page


def test_a_report_alone_and_another_phase(tmp_path, capsys):
    path = tmp_path / "page.html"
    assert run(["plan", *TINY, "--phase", "decode", "--length", "16", f"--report={path}"]) == 0
    assert path.is_file() and ", decode on here" in capsys.readouterr().out
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


def test_a_search_prints_options_that_can_be_used(tmp_path, capsys):
    path = tmp_path / "search.json"
    assert run(["plan", *TINY, "--search", "--compile", "1", "--price", "2", "--json", str(path)]) == 0
    (row,), said = json.loads(path.read_text("utf-8"))["search"], capsys.readouterr().out
    assert row["options"] in said and row["fits"] is True
    assert "$ a billion" in said and f"{row['estimated_dollars_per_billion_tokens']:,.2f}" in said
    assert run(["plan", *TINY, *row["options"].split()]) == 0
    mesh = json.loads(path.read_text("utf-8"))["search"][0]["mesh"]
    assert all(f"{axis} {size}" in capsys.readouterr().out for axis, size in list(mesh.items())[:1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json"], "--json needs a value: got none; see jaxllm plan --help"),
        (["--topology", "--json", "x"], "--topology needs a value: got none"),
        (["--slices", "two"], "--slices must be a number: got 'two'"),
        (["--phase", "evaluate"], "--phase must be one of train, prefill, decode: got 'evaluate'"),
        (["--search", "--phase", "decode"], "--search is for training: got --phase decode"),
        (["--search", "--report", "page.html"], "--report is of one plan: leave it out of a --search"),
        (["--compile", "2"], "--compile is how many layouts a search compiles: got it without --search"),
        (["--length", "16"], "--length is for --phase prefill or decode: got train"),
        (["--price", "-1"], "--price must be dollars per chip and hour, above 0: got -1.0"),
        (["--price", "nan"], "--price must be dollars per chip and hour, above 0: got nan"),
        (["--json", "no/such/folder/plan.json"], "--json must be a file in a folder that exists: got no/such/folder/plan.json"),
        (["--report", "tests"], "--report must be a file in a folder that exists: got tests"),
        (["--topology", "v5e:3x5"], "there is no v5e:3x5: near it are v5e:4x4 (v5e-16), v5e:2x4 (v5e-8), v5e:4x8 (v5e-32)"),
        (["--slices", "2"], "slices are those of a topology: got slices=2 and none; name one, as in --topology v5e:4x4"),
        (["--search", "--compile", "0"], "--compile must be at least 1: got 0"),
        (["--model.num-layer", "2"], "unknown field --model.num-layer: did you mean --model.num-layers?"),
    ],
)
def test_bad_input_is_told_in_a_line(words, message, capsys):
    assert run(["plan", *TINY, *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


def test_help_needs_no_recipe(capsys):
    assert run(["plan", "--help"]) == 0 and run(["plan", *TINY, "-h"]) == 0 and run(["plan"]) == 2
    assert capsys.readouterr().out.count("usage: jaxllm plan") == 3
