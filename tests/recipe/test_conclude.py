"""What is told at the end of a fine-tune: classes, forgetting, answers, memory and speed, in results.json and on the page."""

import dataclasses
import json
import re
import shutil
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxllm
from jaxllm.data.subword import SubwordTokenizer
from jaxllm.data.tokenizer import ByteTokenizer
from jaxllm.recipe import base, find_recipe, open_for_evaluation
from jaxllm.recipe.forgetting import HIDDEN, TEXT, text_rows
from jaxllm.recipe.job import Job
from jaxllm.recipe.measure import on_one_device
from jaxllm.recipe.recipe import FromPretrained
from jaxllm.training import read_metrics
from tests.finetune.tasks.chats import tokenizer
from tests.recipe.fitted import chatter, classifier, decoder, folder, plain_loss  # noqa: F401
from tests.recipe.test_classify import trained  # noqa: F401

measure_module = import_module("jaxllm.recipe.measure")


def results_of(run):
    return json.loads((Path(run) / "results.json").read_text())


def test_parameters_that_have_no_room_on_one_device_stay_where_they_are(monkeypatch):
    (first, second), job = jax.local_devices()[:2], Job.__new__(Job)
    monkeypatch.setattr(measure_module, "_fit_one_device", lambda params: False)
    assert on_one_device(job, {"kernel": jax.device_put(np.ones(4), second)}) is None
    here = on_one_device(job, {"kernel": jax.device_put(np.ones(4), first)})
    assert here is not None and here["kernel"].devices() == {first}


def test_a_classifier_by_class(classifier):  # noqa: F811
    results, page = results_of(classifier), (Path(classifier) / "report.html").read_text()
    job, params, step = open_for_evaluation(classifier)
    for split in ("validation", "test"):
        _, _, found = job.predict_split(params, split)
        counts = np.zeros((2, 2), int)
        np.add.at(counts, (found["targets"], found["logits"].argmax(axis=1)), 1)
        there = counts.sum(axis=0) + counts.sum(axis=1) > 0
        report = results[split]["report"]
        assert report["confusion"]["counts"] == counts[np.ix_(there, there)].tolist() and counts.sum() == 20
        assert report["accuracy"] == results[split]["metrics"]["accuracy"]["value"] == np.trace(counts) / 20
        assert results[split]["step"] == step
        assert f"<h2>Classes, {split}</h2>" in page
    assert page.count("<h3>Confusion matrix</h3>") == 2


def test_memory_speed_and_what_learns(classifier):  # noqa: F811
    results, page = results_of(classifier), (Path(classifier) / "report.html").read_text()
    job, _, _ = open_for_evaluation(classifier)
    speed = np.median([line["examples_per_second"] for line in read_metrics(classifier) if line.get("examples_per_second")])
    tokens = [min(len(job.tokenizer.encode(record["text"])) + 1, 64) for record in job.data.records("train")]
    assert results["tokens_per_second"] == pytest.approx(speed * np.mean(tokens))
    assert 2**26 < results["peak_memory_bytes"] < 2**40
    m = jaxllm.load(classifier)
    learned = sum(x.size for x in [*lora_leaves(m.params), *m.params["head"]["classifier"].values()])
    assert results["trainable_parameters"] == learned < results["parameters"]
    assert f"<b>{learned:,}</b><span>parameters that learn</span>" in page and "<span>peak memory</span>" in page


def lora_leaves(tree, inside=False):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from lora_leaves(value, inside or name == "lora")
        elif inside and name in ("a", "b"):
            yield value


@pytest.mark.parametrize("run", ["classifier", "chatter"])
def test_forgetting(run, decoder, request):  # noqa: F811
    """By LoRA with another head, and of a whole model that learns: as the hidden states say, with the right output matrix."""
    run = request.getfixturevalue(run)
    found = results_of(run)["forgetting"]
    assert found["of"] == "next tokens" and found["tokens"] == len(TEXT.read_bytes()) - 1
    assert found["before"] == pytest.approx(plain_loss(decoder, decoder), abs=1e-4)
    assert found["after"] == pytest.approx(plain_loss(run, run if "chatter" in run else decoder), abs=1e-4)
    assert abs(found["after"] - found["before"]) > 1e-3
    assert f"{found['after'] - found['before']:+.4f}" in (Path(run) / "report.html").read_text()


def test_no_forgetting_without_a_pretrained_model(decoder):  # noqa: F811
    assert "forgetting" not in results_of(decoder)
    assert "Forgetting" not in (Path(decoder) / "report.html").read_text()


def test_answers_before_and_after(chatter, decoder):  # noqa: F811
    results, page = results_of(chatter), (Path(chatter) / "report.html").read_text()
    answers = results["validation"]["written"]["answers"]
    job, params, _ = open_for_evaluation(chatter)
    base, rows = jaxllm.load(decoder), job.rows("validation")
    for name, model, own in (("before", base.model, base.params), ("after", job.model, params)):
        written = job.recipe.objective.write(model, own, rows, job.data, examples=4)
        assert [answer[name] for answer in answers] == written.texts
    assert len(answers) == 4 and all(answer["wanted"] for answer in answers)
    assert re.findall("<b>(asked|wanted|before|after)</b>", page) == ["asked", "wanted", "before", "after"] * 4


def test_a_base_that_is_gone_at_the_end(chatter, decoder, tmp_path):  # noqa: F811
    """The run ends with its results all the same."""
    shutil.copytree(decoder, tmp_path / "base")
    changes = {"run_dir": str(tmp_path / "run"), "pretrained": str(tmp_path / "base"), "model": FromPretrained()}
    jaxllm.fit(
        dataclasses.replace(find_recipe(chatter), **changes),
        on_evaluation=lambda step, metrics: shutil.rmtree(tmp_path / "base"),
    )
    results, page = results_of(tmp_path / "run"), (tmp_path / "run" / "report.html").read_text()
    assert results["forgetting"] is None and "Not measured: the pretrained model could not be read again (" in page
    answers = results["validation"]["written"]["answers"]
    assert len(answers) == 4 and all(answer["before"] is None for answer in answers)


@pytest.mark.parametrize("lacks", ["the other process", "this one"])
def test_processes_agree_that_there_is_no_base(lacks, chatter, monkeypatch):  # noqa: F811
    """Where one process has no base none goes on, and each says its part before that, so that none is waited for."""
    job, _, _ = open_for_evaluation(chatter)
    other, asked = "there is no room on the other" if lacks == "the other process" else "", []

    def gather(text):
        asked.append(text)
        return [text, other if len(asked) == 2 else ""]  # first the config of the base, then the room

    def full(placed, job):
        raise base.NoBase("there is no room on this one")

    monkeypatch.setattr(base, "gather", gather)
    if not other:
        monkeypatch.setattr(base, "_check_room", full)
    with pytest.raises(base.NoBase, match=other or "there is no room on this one"):
        base.base_of(job, {})
    assert asked == ["", "" if other else "there is no room on this one"]


@pytest.mark.parametrize("length", [7, 64, 10_000])
def test_each_token_of_the_text_is_a_target_once(length):
    text, tok = TEXT.read_text("utf-8")[:700], ByteTokenizer()
    rows = text_rows(text, tok, length, causal=True)
    ids = np.array(tok.encode(text))
    assert np.array_equal(rows["targets"][rows["loss_weights"] > 0], ids[1:])
    read = rows["segment_ids"] > 0
    assert np.array_equal(rows["tokens"][read], ids[:-1]) and np.array_equal(read, rows["loss_weights"] > 0)


def test_hidden_tokens_are_the_same_each_time():
    tok = SubwordTokenizer(tokenizer()._core, {"eos": "<|end|>", "mask": "<|start|>"})
    first, again = (text_rows(TEXT.read_text("utf-8"), tok, 64, causal=False) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    hidden = first["loss_weights"] > 0
    assert np.all(first["tokens"][hidden] == tok.mask_id)
    assert np.array_equal(first["tokens"][~hidden], first["targets"][~hidden])
    assert hidden.sum() / (first["segment_ids"] > 0).sum() == pytest.approx(HIDDEN, abs=0.02)


def test_images(trained, tmp_path):  # noqa: F811
    """Measured on predictions, by class; they have no language to lose."""
    m = jaxllm.load(trained)
    data = dataclasses.replace(m.recipe.data, test_split="validation[:12]")
    changes = {"run_dir": str(tmp_path / "run"), "pretrained": str(trained), "model": FromPretrained(), "data": data}
    evaluate = dataclasses.replace(m.recipe.evaluate, metric="macro_f1")
    recipe = dataclasses.replace(m.recipe, **changes, evaluate=evaluate)
    jaxllm.fit(recipe)
    results, page = results_of(recipe.run_dir), (tmp_path / "run" / "report.html").read_text()
    by_step = {line["step"]: line["macro_f1"] for line in read_metrics(recipe.run_dir) if line["split"] == "validation"}
    assert results["validation"]["metrics"]["macro_f1"]["value"] == pytest.approx(max(by_step.values()))
    assert by_step[results["validation"]["step"]] == max(by_step.values())
    job, params, step = open_for_evaluation(recipe.run_dir, step=results["validation"]["step"])
    evaluated = job.evaluate_params(params, "validation")
    assert results["validation"]["metrics"]["accuracy"]["value"] == pytest.approx(evaluated["accuracy"])
    assert results["validation"]["loss"] == pytest.approx(evaluated["loss"], rel=1e-5)
    assert np.sum(results["validation"]["report"]["confusion"]["counts"]) == 24 == evaluated["images"]
    assert results["test"]["images"] == 12 and not [line for line in read_metrics(recipe.run_dir) if line["split"] == "test"]
    assert results["forgetting"] is None and "Not measured: a model of images has no language to lose." in page
