"""Twenty steps of AdamW on LoRA, from the same start and on the same batches as PEFT and torch; the file is what
scripts/oracle/peft_lora_steps.py --make gives."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxllm.finetune import LoRA, adapt, begin_params
from jaxllm.finetune.method import wrapped
from jaxllm.finetune.peft import Layout
from jaxllm.interchange import find_family
from jaxllm.models import overlay, partition
from jaxllm.models.init import abstract_params
from jaxllm.sharding import MeshConfig, make_mesh
from jaxllm.training import LossConfig, OptimizerConfig, TrainState, make_loss, make_optimizer, make_train_step
from jaxllm.training.optimizer import ScheduleConfig
from tests.finetune.test_peft_files import base

GOLDEN = Path(__file__).parent / "golden" / "peft_lora_steps.npz"
STEPS = 20
METHOD = LoRA(rank=3, alpha=7.0, targets=("query", "value", "down"))


def matrices(layout, arrays, word):
    """Our `a` and `b` by the path of their module, of the file's."""
    found = {}
    for name, module in layout.modules.items():
        if f"{word}/A/{name}" in arrays:
            (target,) = module.targets
            a, b = (
                module.order.own_inputs(arrays[f"{word}/A/{name}"]).T,
                module.order.own_outputs(arrays[f"{word}/B/{name}"].T, 0),
            )
            found.setdefault((target.path, "a"), {})[module.layer] = a
            found.setdefault((target.path, "b"), {})[module.layer] = b
    return {key: np.stack([layers[place] for place in sorted(layers)]) for key, layers in found.items()}


def at(tree, path):
    for name in path.split("/"):
        tree = tree[name]
    return tree


def test_twenty_steps_are_those_of_peft():
    plain = base("llama")
    with np.load(GOLDEN) as stored:
        arrays = {name: stored[name] for name in stored.files}
    _, axes = abstract_params(plain.model)
    layout = Layout(lambda: find_family("LlamaForCausalLM"), plain.config, plain.params, axes)
    model = adapt(plain.model, METHOD)
    params = begin_params(model, jax.random.key(0), jax.device_get(plain.params))
    for (path, leaf), values in matrices(layout, arrays, "start").items():
        own = at(params, path)["lora"]
        own[leaf] = values.reshape(own[leaf].shape)
    settings = OptimizerConfig(
        learning_rate=1e-2, schedule=ScheduleConfig(kind="constant"), b2=0.999, weight_decay=0.01, clip_norm=None
    )
    rule, schedule = make_optimizer(settings, STEPS, wrapped(METHOD, STEPS))
    step = make_train_step(make_loss(model, LossConfig()), rule, schedule, key=jax.random.key(0), accumulate=1, dropout=False)
    learnt, frozen = partition(params, METHOD.learns)
    state = TrainState(np.zeros((), np.int32), learnt, rule.init(learnt), frozen)
    with jax.set_mesh(make_mesh(MeshConfig(data=1))):
        program = jax.jit(step)
        for number in range(STEPS):
            mask, tokens = arrays["mask"][number] != 0, arrays["tokens"][number].astype(np.int32)
            targets = np.roll(tokens, -1, axis=1)
            weights = np.concatenate([mask[:, 1:], np.zeros((3, 1), bool)], axis=1).astype(np.float32)
            batch = {"tokens": tokens, "targets": targets, "loss_weights": weights, "segment_ids": mask.astype(np.int32)}
            state, metrics = program(state, batch | {"positions": arrays["positions"][number].astype(np.int32)})
            assert float(metrics["loss"]) == pytest.approx(float(arrays["loss"][number]), rel=1e-4), number
    trained = overlay(state.frozen, state.params)
    for (path, leaf), want in matrices(layout, arrays, "end").items():
        got = np.asarray(at(trained, path)["lora"][leaf]).reshape(want.shape)
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max(), (path, leaf)
