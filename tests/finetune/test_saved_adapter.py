"""A run's adapter by itself: kept, loaded onto its base, converted for PEFT, and trained further."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxllm.finetune import LoRA, adapt, begin_params
from jaxllm.models import HeadConfig, make_model, path_of
from jaxllm.recipe import convert, fit, load, load_adapter, save_adapter
from jaxllm.recipe.recipe import FromPretrained
from jaxllm.training import OptimizerConfig
from tests.recipe import tiny

METHOD = LoRA(rank=2, targets=("query", "value", "up"), initialization="pissa")


def leaves(tree):
    return {path_of(keys): np.asarray(leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run from nothing, and one that has fine-tuned it."""
    place = tmp_path_factory.mktemp("runs")
    fit(tiny.config(steps=4, run_dir=str(place / "base")))
    tuned = tiny.config(
        steps=4, run_dir=str(place / "tuned"), pretrained=str(place / "base"), model=FromPretrained(), method=METHOD
    )
    fit(tuned)
    return place, tuned


def test_a_saved_adapter_is_the_run(runs, tmp_path):
    place, _ = runs
    tuned = load(place / "tuned")
    folder = save_adapter(tuned, tmp_path / "adapter")
    back = load_adapter(load(place / "base"), folder)
    theirs = leaves(tuned.params)
    for path, leaf in leaves(back.params).items():
        np.testing.assert_array_equal(leaf, theirs[path], err_msg=path)
    assert {file.name for file in folder.iterdir()} == {"adapter.json", "adapter.safetensors"}


def test_converted_for_peft_it_is_the_same_model(runs, tmp_path):
    place, _ = runs
    folder = convert(place / "tuned", tmp_path / "peft", to="peft")
    back, tuned = load_adapter(load(place / "base"), folder), load(place / "tuned")
    tokens = np.arange(24).reshape(2, 12) % 60
    np.testing.assert_allclose(back(tokens).logits, tuned(tokens).logits, atol=1e-5)


def test_training_goes_on_with_a_saved_adapter(runs, tmp_path):
    """The method is the adapter's; so slow a step leaves its numbers where they were, which a new adapter's are not."""
    place, tuned = runs
    folder = save_adapter(place / "tuned", tmp_path / "adapter")
    slow = OptimizerConfig(learning_rate=1e-12)
    more = tiny.config(
        steps=1, run_dir=str(place / "more"), pretrained=str(place / "base"), model=FromPretrained(), adapter=str(folder),
        optimizer=slow, seed=5,
    )  # fmt: skip
    fit(more)
    found, before = load(place / "more"), leaves(load(place / "tuned").params)
    assert found.recipe is not None and found.recipe.method == METHOD
    for path, leaf in leaves(found.params).items():
        np.testing.assert_allclose(leaf, before[path], atol=1e-9, err_msg=path)
    with pytest.raises(ValueError, match="adapter needs `pretrained`"):
        dataclasses.replace(tiny.config(), adapter=str(folder))


def test_an_adapter_of_a_model_that_no_published_class_is(runs, tmp_path):
    """A decoder with labels, whose head the adapter brings along; only PEFT's files need published names."""
    place, _ = runs
    base, tuned = load(place / "base"), load(place / "tuned")
    config = dataclasses.replace(base.config, head=HeadConfig(kind="sequence", num_labels=3, read="last"))
    model = adapt(make_model(config), METHOD)
    headed = dataclasses.replace(tuned, model=model, params=begin_params(model, jax.random.key(1), tuned.params))
    folder = save_adapter(headed, tmp_path / "adapter")
    back = load_adapter(base, folder)
    assert back.config.head == config.head
    for path, leaf in leaves(back.params).items():
        np.testing.assert_array_equal(leaf, leaves(headed.params)[path], err_msg=path)
    with pytest.raises(ValueError, match="no published architecture"):
        save_adapter(headed, tmp_path / "peft", to="peft")
