"""Remat changes what is recomputed and nothing else."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.models import ExpertsConfig, TransformerConfig, init_params, make_model
from jaxllm.plan.topology import topology_devices, uncached
from jaxllm.sharding import MeshConfig, make_mesh, use_mesh

B, T = 4, 16
CONFIG = TransformerConfig(
    vocab_size=32, context_len=256, num_layers=2, embed_dim=32, num_heads=4, init_std=0.1, layer_loop="scan"
)
POLICIES = ("none", "minimal", "dots", "block", "offload")
TOKENS = np.random.default_rng(0).integers(0, 32, (B, T)).astype(np.int32)


def gradient(config, tokens=TOKENS):
    """Of a loss of the logits, and parameters to take it at."""
    model = make_model(config)
    params = init_params(model, jax.random.key(0))
    return jax.grad(lambda p: jnp.sum(jnp.sin(model.apply({"params": p}, jnp.asarray(tokens)).logits))), params


def products(config, primitive="dot_general", tokens=TOKENS):
    function, params = gradient(config, tokens)
    return len(re.findall(rf"= {primitive}\[", str(jax.make_jaxpr(function)(params))))


def test_each_policy_recomputes_what_it_says():
    """Of one layer: q, k, v, output, up and down are six products with weights; attention has two more."""
    of = {policy: products(dataclasses.replace(CONFIG, remat=policy)) for policy in POLICIES}
    assert of["minimal"] == of["none"]
    assert of["dots"] == of["none"] + 2
    assert of["block"] == of["offload"] > of["dots"] + 3


def test_minimal_keeps_what_experts_multiply():
    config = dataclasses.replace(CONFIG, experts=ExpertsConfig(num_experts=4))
    of = {policy: products(dataclasses.replace(config, remat=policy), "ragged_dot_general") for policy in POLICIES[:3]}
    assert of["minimal"] == of["none"] < of["dots"]


@pytest.mark.slow
def test_minimal_keeps_what_a_kernel_hands_out():
    """One kernel forward and two backward; the other policies run the first twice."""
    config = dataclasses.replace(CONFIG, attention_kernel="splash", position="rotary")
    tokens, of = np.zeros((1, 128), np.int32), {}
    there = jax.sharding.SingleDeviceSharding(topology_devices("v5e:2x2")[0])
    for policy in POLICIES[:3]:  # compiled: the traced program still holds what nobody reads
        function, params = gradient(dataclasses.replace(config, remat=policy), tokens)
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there), params)
        with uncached():
            of[policy] = jax.jit(function).lower(shapes).compile().as_text().count('custom_call_target="tpu_custom_call"')
    assert of == {"none": 3, "minimal": 3, "dots": 4}


@functools.cache
def without_remat():
    function, params = gradient(CONFIG)
    return jax.device_get(jax.jit(function)(params))


@pytest.mark.parametrize("policy", POLICIES[1:])
def test_gradients_are_the_same(policy):
    function, params = gradient(dataclasses.replace(CONFIG, remat=policy))
    with use_mesh(make_mesh(MeshConfig(data=1, fsdp=2, context=2, tensor=2))):
        got = jax.jit(function)(params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-4), got, without_remat())


def test_offload_moves_block_inputs_to_the_host():
    function, params = gradient(dataclasses.replace(CONFIG, remat="offload"))
    program = jax.jit(function).trace(params).lower(lowering_platforms=("tpu",)).as_text()
    assert "annotate_device_placement" in program and "pinned_host" in program
