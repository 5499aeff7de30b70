"""A recipe as a value: JSON there and back, types checked, every shipped recipe built and stepped at tiny size."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from jaxllm.recipe import find_recipe, load_json, save_json
from jaxllm.recipe.assemble import assemble
from jaxllm.recipe.serialize import check_types, differences
from jaxllm.training import init_state
from tests.recipe import tiny

CONFIGS = sorted(Path("configs").glob("*.py"))


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


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_steps_at_tiny_size(path):
    """Its own architecture, optimizer and loss, with narrow layers and the text that ships with the package."""
    recipe = find_recipe(str(path))
    heads = dict(num_heads=4, num_kv_heads=2 if recipe.model.num_kv_heads else None)
    model = dataclasses.replace(
        recipe.model, vocab_size=None, num_layers=2, embed_dim=16, ffw_dim=24, context_len=32, layer_loop="scan", **heads
    )
    kind = "bytes" if recipe.data.tokenizer.kind == "pretrained" else recipe.data.tokenizer.kind
    tokenizer = dataclasses.replace(recipe.data.tokenizer, kind=kind, path=None)
    data = dataclasses.replace(
        recipe.data, dataset="tiny_shakespeare", seq_len=32, tokenizer=tokenizer, num_workers=0,
        train_split="train", validation_split="validation",
    )  # fmt: skip
    chunk = dataclasses.replace(recipe.loss, chunk=recipe.loss.chunk and 8)
    small = dataclasses.replace(
        recipe,
        model=model,
        data=data,
        loss=chunk,
        batch_size=8 * recipe.accumulate,
        mesh=dataclasses.replace(recipe.mesh, data=2),
    )
    job = assemble(small)
    state = init_state(job.model, job.optimizer[0], job.mesh, job.key, job.abstract)
    state, metrics = job.compile_step()(state, next(job.batches(0)))
    assert abs(float(metrics["loss"]) - np.log(job.model.config.vocabulary)) < 0.5
    assert int(state.step) == 1


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
    """One recipe is under about 150 fields, so that a person can read them all."""
    from jaxllm.cli.overrides import field_names

    assert len(list(field_names(tiny.config()))) < 150
