"""`jaxllm sweep` from the command line: a real search and a real repetition of the tiny recipe, and what is refused."""

import json
import shlex

import pytest

from jaxllm.cli import run

TINY = ["tests/recipe/tiny.py", "--steps", "4", "--evaluate.every", "2", "--evaluate.batches", "1"]
TINY += ["--model.num-layers", "1", "--sample.sampling.max-tokens", "2"]
SEARCH = ["--search", "optimizer.learning-rate=0.001,0.01"]


def test_a_search_trains_runs_that_can_be_used(tmp_path, capsys):
    folder = tmp_path / "sweep"
    assert run(["sweep", *TINY, *SEARCH, "--trials", "1", "--sweep-dir", str(folder)]) == 0
    assert "trial 0 complete, loss" in capsys.readouterr().out
    assert run(["sweep", str(folder), "--trials", "9"]) == 0
    said, results = capsys.readouterr().out, json.loads((folder / "results.json").read_text("utf-8"))
    assert "all 2 combinations have been tried" in said and f"report: {folder}/report.html" in said
    assert [trial["values"] for trial in results["trials"]] == [{"optimizer.learning_rate": rate} for rate in (0.001, 0.01)]
    best = results["best"]
    assert best["value"] == min(trial["value"] for trial in results["trials"]) < max(t["value"] for t in results["trials"])
    assert best["command"].startswith("jaxllm train tests/recipe/tiny.py --steps 4") and best["command"] in said
    for trial in results["trials"]:
        assert (folder / f"trial-{trial['number']}" / "report.html").is_file()
    again = tmp_path / "again"
    assert run([*shlex.split(best["command"])[1:], "--run-dir", str(again)]) == 0
    losses = [json.loads(line).get("loss") for line in (again / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert best["value"] in losses


def test_seeds_are_run_and_spread(tmp_path, capsys):
    folder = tmp_path / "seeds"
    assert run(["sweep", *TINY, "--seeds", "0,1", "--sweep-dir", str(folder)]) == 0
    results = json.loads((folder / "results.json").read_text("utf-8"))
    values = [run["measures"]["validation loss"] for run in results["runs"]]
    assert results["spreads"]["validation loss"]["mean"] == pytest.approx(sum(values) / 2) and values[0] != values[1]
    assert "mean and deviation of 2 runs" in capsys.readouterr().out and "±" in (folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a sweep needs --search FIELD=..., --seeds 0,1,2 or --folds K: got none"),
        ([*SEARCH], "--search needs --trials N, how many runs to make: got none"),
        ([*SEARCH, "--trials", "0"], "--trials must be at least 1: got 0"),
        ([*SEARCH, "--trials", "two"], "--trials must be a whole number: got 'two'"),
        ([*SEARCH, "--trials"], "--trials needs a value: got none"),
        ([*SEARCH, "--trials", "2", "--prune", "mean"], "--prune must be median, hyperband or none: got 'mean'"),
        ([*SEARCH, "--trials", "2", "--seeds", "0,1"], "--search and --seeds or --folds are two sweeps"),
        (["--search", "lr=1..2", "--trials", "2"], "unknown field --lr: did you mean --optimizer.learning-rate?"),
        (["--search", "model.num-layer=1,2", "--trials", "2"], "did you mean --model.num-layers?"),
        (["--search", "batch-size=4,x", "--trials", "2"], "batch_size must be a whole number: got 'x'"),
        ([*SEARCH, "--trials", "2", "--metric", "f1"], "evaluate.metric must be one of loss: got 'f1'"),
        ([*SEARCH, "--trials", "2", "--run-dir", "x"], "give --sweep-dir instead of --run-dir"),
        ([*SEARCH, "--trials", "2", "--data.validation-split", "None"], "a sweep compares runs on the validation split"),
        ([*SEARCH, "--trials", "2", "--sweep-dir", "gs://bucket/x"], "--sweep-dir must be on a disk"),
        ([*SEARCH, "--trials", "2", "--sweep-dir", "tests"], "tests exists and is not the folder of a sweep"),
        (["--seeds", "0,one"], "--seeds must be whole numbers, such as 0,1,2: got '0,one'"),
        (["--seeds", "0"], "--seeds must be two or more, such as 0,1,2: got 0"),
        (["--seeds", "0,1", "--trials", "3"], "--trials is for a --search"),
        (["--folds", "3"], "--folds must be at most the 1 records of 'train': got 3"),
    ],
)
def test_bad_input_is_told_in_a_line(words, message, capsys, monkeypatch):
    monkeypatch.setattr("jaxllm.sweep.attempt.fit", lambda *_, **__: pytest.fail("nothing may run"))
    assert run(["sweep", *TINY, *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


def test_help_needs_no_recipe(capsys):
    assert run(["sweep", "--help"]) == 0 and run(["sweep", *TINY, "-h"]) == 0 and run(["sweep"]) == 2
    assert capsys.readouterr().out.count("usage: jaxllm sweep") == 3
