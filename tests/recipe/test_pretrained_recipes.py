"""Recipes that begin with MiniLM, with a small encoder in its place."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxllm.data import TokenizerConfig
from jaxllm.recipe import assemble, find_recipe
from jaxllm.training import init_state
from tests.finetune.tasks.battery import ENCODER
from tests.finetune.tasks.conftest import sets  # noqa: F401
from tests.quick import some

RECIPES = [find_recipe(str(path)) for path in sorted(Path("configs").glob("minilm_*.py"))]
SETS = {
    "TextClassification": "reviews",
    "Regression": "scores",
    "TokenClassification": "names",
    "QuestionAnswering": "questions",
}
ONE_OF_EACH = {type(recipe.objective).__name__: recipe for recipe in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_it_fits_an_encoder_and_goes_by_a_metric_of_its_task(recipe):
    objective: Any = recipe.objective
    objective.check(objective.headed(dataclasses.replace(ENCODER, context_len=512)), recipe.data, recipe.loss)
    assert recipe.evaluate.metric in objective.metrics


@pytest.mark.parametrize("kind", some(SETS, ["TextClassification", "QuestionAnswering"]))
def test_it_steps_at_tiny_size(kind, sets, monkeypatch):  # noqa: F811
    monkeypatch.setenv("JAXLLM_CACHE", str(sets / "cache"))
    recipe = ONE_OF_EACH[kind]
    data = dataclasses.replace(
        recipe.data,  # type: ignore[arg-type]
        dataset=SETS[kind],
        data_dir=str(sets),
        pair_feature="text_pair" if kind == "Regression" else None,  # type: ignore[call-arg]
        test_split=None,
        tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=300),
    )
    model = recipe.objective.headed(dataclasses.replace(ENCODER, context_len=256))  # type: ignore[union-attr]
    job = assemble(dataclasses.replace(recipe, pretrained=None, model=model, data=data, batch_size=8))
    state = init_state(job.model, job.optimizer[0], job.mesh, job.key, job.abstract)
    state, metrics = job.compile_step()(state, next(job.batches(0)))
    assert np.isfinite(float(metrics["loss"]))
    assert recipe.evaluate.metric in job.evaluate_params(state.params, "validation")
