"""Recipes that tune a decoder, or a model of images, with a small one in its place."""

import dataclasses
import json

import numpy as np
import pytest

from jaxllm.data import TokenizerConfig
from jaxllm.data.tfds_builder import write_set
from jaxllm.finetune import LoRA
from jaxllm.models import num_params
from jaxllm.recipe import assemble, find_recipe
from jaxllm.training import init_state
from tests.finetune.tasks.battery import DECODER
from tests.finetune.tasks.conftest import sets  # noqa: F401
from tests.recipe.shrink import shrunk


def of_reviews(recipe, folder):
    data = dataclasses.replace(
        recipe.data, dataset="reviews", data_dir=str(folder), examples=32, validation_split="validation", test_split=None,
        tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=300),
    )  # fmt: skip
    return dataclasses.replace(recipe, pretrained=None, model=recipe.objective.headed(DECODER), data=data)


def of_chats(recipe, folder):
    said = [[{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n}."}] for n in range(40)]
    rows = [(f"c:{number}", json.dumps(messages)) for number, messages in enumerate(said)]
    write_set("chats", {"train": rows, "validation": rows[:8]}, folder, description="", features={"id": None, "messages": None})
    data = dataclasses.replace(
        recipe.data, dataset="chats", data_dir=str(folder), seq_len=64, test_split=None, tokenizer=TokenizerConfig()
    )
    loss = dataclasses.replace(recipe.loss, chunk=16)
    return dataclasses.replace(recipe, pretrained=None, model=dataclasses.replace(DECODER, remat="block"), data=data, loss=loss)


def of_images(recipe, folder):
    return shrunk(dataclasses.replace(recipe, pretrained=None, model=find_recipe("configs/vit_cifar10.py").model), folder)


SMALL = {"smollm2_sst2": of_reviews, "smollm2_alpaca_lora": of_chats, "vit_cifar10_finetune": of_images}


@pytest.mark.parametrize("name", SMALL)
def test_a_recipe_steps_at_tiny_size(name, sets, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("JAXLLM_CACHE", str(sets / "cache"))
    recipe = find_recipe(f"configs/{name}.py")
    assert isinstance(recipe.method, LoRA) and recipe.pretrained is not None
    job = assemble(SMALL[name](recipe, sets if name == "smollm2_sst2" else tmp_path))
    state = init_state(job.model, job.optimizer[0], job.mesh, job.key, job.abstract, recipe.method.learns)
    assert num_params(state.params) < num_params(state.whole) / 2
    _, metrics = job.compile_step()(state, next(job.batches(0)))
    assert np.isfinite(float(metrics["loss"]))
