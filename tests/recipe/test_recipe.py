"""A recipe as a value: JSON there and back, types checked, every shipped recipe built and stepped at tiny size."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxllm.cli.overrides import override
from jaxllm.inference import SamplingConfig
from jaxllm.recipe import find_recipe, load_json, save_json
from jaxllm.recipe.assemble import assemble
from jaxllm.recipe.recipe import SampleConfig
from jaxllm.recipe.resolve import FromData
from jaxllm.recipe.sample import make_sample
from jaxllm.recipe.serialize import check_types, differences
from jaxllm.training import init_state
from jaxllm.training.objectives import CausalLM, ImageClassification, MaskedLM, PrefixLM
from tests.quick import some
from tests.recipe import tiny
from tests.recipe.shrink import shrunk

CONFIGS = sorted(Path("configs").glob("*.py"))
NEW = [path for path in CONFIGS if find_recipe(str(path)).pretrained is None]
"""Those that say all of their model themselves; for others see test_pretrained_recipes.py."""
FEW = ("shakespeare_char", "bert_mini", "t5_mini_span_corruption", "transformer_multi30k_de_en", "gemma3_1b", "mixtral_8x7b",
       "llama_tinystories", "vit_cifar10")  # fmt: skip
"""From which the others differ in sizes, for the most part."""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_survives_json(path, tmp_path):
    recipe = find_recipe(str(path))
    save_json(recipe, tmp_path / "recipe.json")
    assert load_json(tmp_path / "recipe.json") == recipe
    assert recipe.name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_says_what_it_is(path):
    """The header names the command and the hardware, and a result with its record or that there is none."""
    text = path.read_text()
    assert f"jaxllm train configs/{path.name}" in text and "Hardware" in text
    assert "Result" in text


@pytest.mark.parametrize(
    "path",
    some(NEW, lambda path: path.stem in FEW),
    ids=[path.stem for path in NEW],
)
def test_every_recipe_steps_at_tiny_size(path, tmp_path):
    """Its own architecture, objective, optimizer and loss, with narrow layers and a little text or a few images."""
    job = assemble(shrunk(find_recipe(str(path)), tmp_path))
    state = init_state(job.model, job.optimizer[0], job.mesh, job.key, job.abstract)
    state, metrics = job.compile_step()(state, next(job.batches(0)))
    assert abs(float(metrics["loss"]) - np.log(FromData.of(job.recipe.model).size)) < 1.0
    assert int(state.step) == 1
    results = job.evaluate_params(state.params, "test")
    reports = job.recipe.objective.reports
    assert results[reports.unit] > 0 and ("perplexity" in results, "accuracy" in results) == (
        reports.perplexity,
        reports.accuracy,
    )
    if not isinstance(job.recipe.objective, CausalLM):  # whose sample the tests of `fit` see
        sample = make_sample(job, jax.device_put(state.params, jax.devices()[0]))
        assert (sample is None) == isinstance(job.recipe.objective, ImageClassification)


@pytest.mark.parametrize(("objective", "prefix"), [(PrefixLM(), True), (CausalLM(), False)], ids=str)
def test_a_prompt_is_read_from_both_sides_for_the_sample_of_a_prefix_model_only(objective, prefix, monkeypatch):
    asked = []

    def written(*args, **options):
        asked.append((args[3:], options))
        return [" on the mat"]

    monkeypatch.setattr("jaxllm.recipe.sample.generate", written)
    sample = SampleConfig(prompt="the cat", sampling=SamplingConfig(max_tokens=5))
    assert make_sample(assemble(tiny.config(objective=objective, sample=sample)), {}) == "the cat on the mat"
    assert asked == [((["the cat"], sample.sampling), {"prefix": prefix})]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"model": {"num_layer": 2}}, "unknown field model.num_layer; did you mean model.num_layers"),
        ({"steps": "many"}, "steps must be a whole number: got 'many'"),
        ({"optimizer": {"name": "adam"}}, "optimizer.name must be one of adamw, adafactor, lion, muon, sgd: got 'adam'"),
        ({"mesh": {"data": 1.5}}, "mesh.data must be a whole number or null: got 1.5"),
        ({"batch_size": 0}, "batch_size must be at least 1: got 0"),
    ],
)
def test_json_that_does_not_fit_is_refused_by_name(tree, message, tmp_path):
    path = tmp_path / "recipe.json"
    whole = json.loads(json.dumps(dataclasses.asdict(tiny.config())))
    for name, value in tree.items():
        whole[name] = {**whole[name], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=message):
        load_json(path)


def test_one_of_several_kinds_is_named_in_json(tmp_path):
    """The first of them is not: recipes of before there were others mean it."""
    encoder = dataclasses.replace(tiny.config().model, causal=False)
    masked = tiny.config(model=encoder, objective=MaskedLM(fraction=0.3))
    save_json(masked, tmp_path / "recipe.json")
    tree = json.loads((tmp_path / "recipe.json").read_text())
    assert tree["objective"] == {"type": "MaskedLM"} | dataclasses.asdict(masked.objective) and "type" not in tree["model"]
    assert load_json(tmp_path / "recipe.json") == masked
    assert differences(masked, tiny.config())["objective.type"] == ("MaskedLM", "CausalLM")
    del tree["objective"]["type"]
    (tmp_path / "recipe.json").write_text(json.dumps(tree))
    with pytest.raises(ValueError, match="unknown field objective.fraction"):
        load_json(tmp_path / "recipe.json")
    tree["objective"] = {"type": "Masked"}
    (tmp_path / "recipe.json").write_text(json.dumps(tree))
    with pytest.raises(ValueError, match="objective.type must be one of CausalLM, MaskedLM, .*: got 'Masked'"):
        load_json(tmp_path / "recipe.json")
    del tree["objective"]
    tree["model"]["causal"] = True
    (tmp_path / "recipe.json").write_text(json.dumps(tree))
    assert load_json(tmp_path / "recipe.json").objective == CausalLM()


def test_the_command_line_reaches_the_kind_that_the_recipe_has():
    recipe = find_recipe("configs/vit_cifar10.py")
    changed = override(recipe, ["--objective.crop-padding", "2", "--model.encoder.num-layers", "3", "--data.image-size", "32"])
    assert changed.objective == dataclasses.replace(recipe.objective, crop_padding=2)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="unknown field --objective.fraction"):
        override(recipe, ["--objective.fraction", "0.2"])
    with pytest.raises(ValueError, match="model.image_size=32, model.channels=3 and data.image_size=64"):
        override(recipe, ["--data.image-size", "64"])


def test_python_recipes_are_type_checked():
    recipe = dataclasses.replace(tiny.config(), seed=True)
    with pytest.raises(ValueError, match="here: seed must be a whole number: got True"):
        check_types(recipe, "here")


def test_differences_ignore_what_a_resumed_run_may_change():
    recipe = tiny.config()
    other = tiny.config(steps=99, mesh=dataclasses.replace(recipe.mesh, data=4))
    assert differences(recipe, other) == {}
    other = tiny.config(optimizer=dataclasses.replace(recipe.optimizer, b2=0.5))
    assert differences(recipe, other) == {"optimizer.b2": (0.95, 0.5)}


def test_the_command_line_has_few_leaves():
    """One recipe has about 150 fields, those of fine-tuning among them, so that a person can read them all."""
    from jaxllm.cli.overrides import field_names

    assert len(list(field_names(tiny.config()))) < 160
