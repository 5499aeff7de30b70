"""Recipes of published architectures are those architectures."""

import math

import jax
import pytest

from jaxllm.interchange import ConfigReader, find_family
from jaxllm.interchange.open import read_config
from jaxllm.models import abstract_params, make_model
from jaxllm.recipe import find_recipe
from tests.interchange.published_configs import PUBLISHED


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("llama2_7b", 6_738_415_616),
        ("llama3_8b", 8_030_261_248),
        ("llama3_8b_131k", 8_030_261_248),
        ("llama3_70b", 70_553_706_496),
        ("mixtral_8x7b", 46_702_792_704),
        ("gemma3_1b", 999_885_952),
        ("gpt3_175b", 174_604_259_328),  # the paper rounds it; 12 x layers x width^2 is 173.9
    ],
)
def test_parameters(name, count):
    params, _ = abstract_params(make_model(find_recipe(f"configs/{name}.py").model))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == count


@pytest.mark.parametrize(
    ("name", "published"),
    [("llama2_7b", "Llama-2-7b-hf"), ("mixtral_8x7b", "Mixtral-8x7B-v0.1"), ("gemma3_1b", "gemma-3-1b-it")],
)
def test_equal_to_the_published_config(name, published):
    """All that its config.json says."""
    model = find_recipe(f"configs/{name}.py").model
    reader = ConfigReader(PUBLISHED[published][1], "config.json")
    family = find_family(reader.architecture)
    assert family.write_config(model) == family.write_config(read_config(family, reader))
