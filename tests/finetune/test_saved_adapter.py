"""A run's adapter by itself: kept, loaded onto its base, converted for PEFT, and trained further."""

import dataclasses
import json
import shutil
from importlib import import_module

import jax
import numpy as np
import pytest

from jaxllm.finetune import Freeze, LoRA, VeRA, adapt, begin_params
from jaxllm.finetune.tasks import PreferenceTuning
from jaxllm.models import HeadConfig, make_model, path_of
from jaxllm.recipe import convert, fit, load, load_adapter, save_adapter
from jaxllm.recipe.recipe import FromPretrained
from jaxllm.sharding import MeshConfig
from jaxllm.training import OptimizerConfig
from tests.recipe import tiny

load_module = import_module("jaxllm.recipe.load")
FINAL = Freeze(patterns=("embed/*", "layers/*"))
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
    with pytest.raises(ValueError, match="is an adapter, not a model: .*load_adapter"):
        load(folder)


def test_a_loaded_adapter_is_known_by_its_method_and_the_base_it_is_on(runs, tmp_path):
    """Also one that adds nothing to the model; and on a base that was itself fine-tuned, not that one's base."""
    place, _ = runs
    base = dataclasses.replace(load(place / "base"), recipe=tiny.config(pretrained="published"))
    biases = dataclasses.replace(base, recipe=tiny.config(method=FINAL, pretrained=str(place / "base")))
    for source, name in ((load(place / "tuned"), "lora"), (biases, "norms")):
        back = load_adapter(base, save_adapter(source, tmp_path / name))
        again = json.loads((save_adapter(back, tmp_path / f"{name}-again") / "adapter.json").read_text())
        assert again["base"] == str(place / "base")
        with pytest.raises(ValueError, match="has one already; load its base, or where the adapter was made for the two"):
            load_adapter(back, tmp_path / name)


def test_converted_for_peft_it_is_the_same_model(runs, tmp_path):
    place, _ = runs
    folder = convert(place / "tuned", tmp_path / "peft", to="peft")
    back, tuned = load_adapter(load(place / "base"), folder), load(place / "tuned")
    tokens = np.arange(24).reshape(2, 12) % 60
    np.testing.assert_allclose(back(tokens).logits, tuned(tokens).logits, atol=1e-5)
    with pytest.raises(ValueError, match="is an adapter, not a model: .*load_adapter"):
        load(folder)


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
    with pytest.raises(ValueError, match="as it was, adapter included: name as `pretrained` the run that has learnt it"):
        dataclasses.replace(more, objective=PreferenceTuning())


@pytest.mark.slow
def test_what_an_adapter_gives_that_does_not_learn_must_stay(runs, tmp_path):
    """VeRA's matrices are read from the adapter's folder each time: another adapter there is found out."""
    place, tuned = runs
    method, folder = VeRA(rank=4, targets=("query",)), tmp_path / "adapter"
    first = dataclasses.replace(tuned, method=method, run_dir=str(tmp_path / "first"), steps=1)
    fit(first)
    save_adapter(tmp_path / "first", folder)
    more = dataclasses.replace(first, adapter=str(folder), run_dir=str(tmp_path / "more"))
    fit(more)
    assert load(tmp_path / "more").step == 1
    fit(dataclasses.replace(first, run_dir=str(tmp_path / "other"), seed=7))
    shutil.rmtree(folder)
    save_adapter(tmp_path / "other", folder)
    with pytest.raises(ValueError, match="the adapter .* must be the one that the checkpoint of step 1 was trained with"):
        load(tmp_path / "more")


@pytest.mark.slow
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


@pytest.mark.slow
def test_learnt_on_two_devices_it_is_read_on_one(runs, tmp_path):
    """The base is laid out as asked for, not as it was while the run learned, and found to be the same."""
    place, tuned = runs
    spread = dataclasses.replace(tuned, mesh=MeshConfig(data=1, fsdp=2), run_dir=str(tmp_path / "spread"))
    fit(spread)
    alone = dataclasses.replace(spread, mesh=MeshConfig(data=1), steps=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: jax.local_devices()[:1])
        assert len(load(tmp_path / "spread").params["layers"]["ffw"]["up"]["kernel"].sharding.device_set) == 1
        assert fit(alone).step == 5
    fit(dataclasses.replace(spread, mesh=MeshConfig(data=1, tensor=2, explicit=True), steps=6))


@pytest.mark.slow
def test_another_base_is_refused(runs, tmp_path):
    """The folder's model changes in a number; a checkpoint that does not say which it was is taken."""
    place, tuned = runs
    shutil.copytree(place / "base", tmp_path / "base")
    named = dataclasses.replace(tuned, pretrained=str(tmp_path / "base"), run_dir=str(tmp_path / "run"))
    fit(named)
    found = load(tmp_path / "run", dtype="bfloat16")
    assert found.params["layers"]["ffw"]["up"]["kernel"].dtype == "bfloat16"
    fit(tiny.config(steps=8, run_dir=str(tmp_path / "base")))
    for again in (lambda: load(tmp_path / "run"), lambda: fit(dataclasses.replace(named, steps=6))):
        with pytest.raises(ValueError, match="pretrained model .*base must be the one that the checkpoint of step 4 was"):
            again()
    shutil.rmtree(tmp_path / "base")
    shutil.copytree(place / "base", tmp_path / "base")
    assert fit(dataclasses.replace(named, steps=6)).step == 6


@pytest.mark.slow
def test_a_checkpoint_that_does_not_say_its_base(runs, tmp_path, monkeypatch):
    _, tuned = runs
    older = dataclasses.replace(tuned, run_dir=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(load_module, "base_identity", lambda base, wanted: {})
        fit(older)
    assert load(tmp_path / "run").step == 4
    assert fit(dataclasses.replace(older, steps=5)).step == 5


@pytest.mark.slow
def test_a_base_that_has_an_adapter_itself(runs, tmp_path):
    """What it has learnt counts, and is the same on two devices as on one."""
    place, tuned = runs
    more = dataclasses.replace(tuned, pretrained=str(place / "tuned"), run_dir=str(tmp_path / "run"), steps=1)
    fit(more)
    assert fit(dataclasses.replace(more, mesh=MeshConfig(data=1, fsdp=2), steps=2)).step == 2
