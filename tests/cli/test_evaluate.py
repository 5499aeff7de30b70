"""`jaxllm evaluate`: the numbers of a run, alone and on other data, of models and adapters; and what is refused."""

import json
from pathlib import Path

import pytest

from jaxllm.cli import run
from jaxllm.recipe import save_adapter
from jaxllm.recipe.convert import convert
from tests.recipe.fitted import classifier, decoder, folder  # noqa: F401


@pytest.fixture
def evaluated(capsys):
    def evaluate(*argv):
        code = run(["evaluate", *map(str, argv), "--json"])
        told = capsys.readouterr()
        assert code == 0, told.err
        return json.loads(told.out)

    return evaluate


@pytest.fixture
def refused(capsys):
    def evaluate(*argv):
        assert run(["evaluate", *map(str, argv)]) == 2
        return capsys.readouterr().err

    return evaluate


def test_the_numbers_of_a_run(classifier, folder, evaluated, tmp_path, capsys):  # noqa: F811
    """By itself, as an adapter on its base, and with task and data named: the same."""
    results = json.loads((Path(classifier) / "results.json").read_text())
    named = ("--task", "text-classification", "--data", folder / "reviews", "--split", "test")
    save_adapter(classifier, tmp_path / "adapter")
    convert(classifier, tmp_path / "merged", to="jaxllm")
    found = [
        evaluated(classifier, "--split", "test"),
        evaluated(classifier, *named),
        evaluated(classifier, "--split", "test", "--evaluate.batch-size", "8"),
        evaluated(tmp_path / "adapter", *named, "--data.seq-len", "64"),
        evaluated(tmp_path / "merged", *named, "--data.seq-len", "64"),
    ]
    for each in found:
        assert each["metrics"] == results["test"]["metrics"] and each["report"] == results["test"]["report"]
        assert each["loss"] == pytest.approx(results["test"]["loss"], rel=1e-4)
    for each in (found[0], found[2]):
        assert each["forgetting"] == pytest.approx(results["forgetting"])
    assert "forgetting" not in found[1]
    page = tmp_path / "page.html"
    assert run(["evaluate", classifier, "--report", str(page)]) == 0
    told, value = capsys.readouterr().out, results["validation"]["metrics"]["accuracy"]["value"]
    assert f"accuracy {value:.4f} (" in told and "precision  recall      F1  support" in told
    assert f"<b>{value:.4f}</b>" in page.read_text() and "Confusion matrix" in page.read_text()
    after = f"{results['forgetting']['after']:.4f}"
    assert f" before, {after} after" in told and f"<td>{after}</td>" in page.read_text()


def test_a_language_model(decoder, folder, evaluated):  # noqa: F811
    own = evaluated(decoder, "--split", "test")
    named = evaluated(decoder, "--task", "language-model", "--data", folder / "reviews", "--split", "test")
    numbers = [{name: value for name, value in each.items() if not isinstance(value, str)} for each in (named, own)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-5) and named["split"] == own["split"] == "test"
    first = evaluated(decoder, "--split", "test", "--evaluate.batches", "1")
    assert own["tokens"] > first["tokens"]  # all of it, though the run's own evaluations look at one batch
    prompted = ("--task", "prompt-classification", "--task.prompt", "{text} ", "--task.words", "a", "b")
    found = evaluated(decoder, *prompted, "--data", folder / "reviews", "--split", "test", "--data.seq-len", "64")
    assert found["report"]["confusion"] and found["metrics"]["accuracy"]["value"] == found["report"]["accuracy"]


def test_refused(classifier, decoder, folder, refused):  # noqa: F811
    reviews = ("--data", folder / "reviews")
    told = refused(decoder, "--task", "text-classification", *reviews)
    assert "needs a model with a head of kind 'sequence'" in told and "is 'vocabulary'; fine-tune it first" in told
    told = refused(classifier, "--data", folder / "moods")
    assert "the model has bad, good, the data has sad, glad" in told
    assert "did you mean text-classification?" in refused(classifier, "--task", "text-clasification")
    assert "needs --task.prompt" in refused(decoder, "--task", "prompt-classification", *reviews)
    assert "unknown field --task.severl: did you mean --task.several?" in refused(classifier, "--task.severl", "True")
    assert "or is it a misspelt run? There is no runs/nolora" in refused("runs/nolora")
    assert "--base is for the folder of an adapter" in refused(decoder, "--base", "x", "--task", "language-model")
