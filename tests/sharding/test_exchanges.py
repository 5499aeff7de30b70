"""What a mesh sends for a model's parts: tokens move, tables do not, and gradients are summed into the parts that are kept."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxllm.models import ExpertsConfig, Transformer, TransformerConfig, abstract_params, init_cache, init_params
from jaxllm.models.layers import look_up
from jaxllm.sharding import MeshConfig, make_mesh, shardings_for, spec, use_mesh
from tests.quick import some

B, T, V, D = 16, 32, 64, 64


def sent(program: str) -> list[tuple[str, int]]:
    """Each collective of a compiled program that moves floats: its kind, and the elements of its result."""
    found = re.findall(r"= (.*?) (all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(", program)
    shapes = [(kind, re.findall(r"f32\[([0-9,]*)\]", result)) for result, kind in found]
    return [
        (kind, sum(math.prod(map(int, filter(None, shape.split(",")))) for shape in given)) for kind, given in shapes if given
    ]


@pytest.mark.parametrize(
    "axes",
    [
        {"fsdp": 8},
        {"fsdp": 4, "context": 2},
        {"fsdp": 2, "context": 4},
        {"fsdp": 4, "expert": 2},
        {"fsdp": 2, "context": 2, "expert": 2},
        {"data": 2, "fsdp": 2, "context": 2},
    ],
    ids=str,
)
def test_a_look_up_exchanges_no_more_than_its_result(axes):
    mesh = make_mesh(MeshConfig(**{"data": 1, **axes}))
    stored = spec(("vocab", "embed"), (V, D), mesh, stored=True)
    rows = spec(("batch", "time"), (B, T), mesh)
    table = jax.ShapeDtypeStruct((V, D), jnp.float32, sharding=NamedSharding(mesh, stored))
    ids = jax.ShapeDtypeStruct((B, T), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec(rows[0])))
    gradient = jax.grad(lambda table, ids: jnp.sum(jnp.square(look_up(table, ids, "vocab", "float32"))))
    with use_mesh(mesh):
        found = sent(jax.jit(gradient, out_shardings=table.sharding).lower(table, ids).compile().as_text())
    assert not [kind for kind, _ in found if kind in ("all-gather", "reduce-scatter")]
    assert max(size for kind, size in found if kind != "all-reduce") <= B * T * D // 8
    assert all(size <= V * D // 4 for kind, size in found if kind == "all-reduce")  # copies of a part of the table


@pytest.mark.parametrize("explicit", [False, True], ids=["auto", "explicit"])
def test_a_look_up_is_that_of_one_device(explicit):
    table = np.random.default_rng(0).normal(size=(V, D)).astype(np.float32)
    ids = np.random.default_rng(1).integers(0, V, (B, T)).astype(np.int32)
    for axes in ({"fsdp": 2, "context": 2, "tensor": 2}, {"fsdp": 2, "context": 2, "expert": 2}):
        with use_mesh(make_mesh(MeshConfig(**{"data": 1, **axes}, explicit=explicit))):
            got = jax.jit(lambda table, ids: look_up(table, ids, "vocab", "float32"))(table, ids)
        np.testing.assert_array_equal(np.asarray(got), table[ids])


SIZE = dict(vocab_size=V, context_len=T, num_layers=1, embed_dim=D, num_heads=4, init_std=0.1, layer_loop="scan")


def test_gradients_of_experts_are_summed_into_their_parts():
    """Three kernels, whose gradients all devices but those of other experts have a share of."""
    config = TransformerConfig(**SIZE, experts=ExpertsConfig(num_experts=4, exchange="padded"), activation="swiglu")
    model, mesh = Transformer(config), make_mesh(MeshConfig(data=1, fsdp=2, context=2, expert=2))
    params, axes = abstract_params(model)
    placed = shardings_for(params, axes, mesh)
    params = jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), params, placed)
    tokens = jnp.zeros((B, T), jnp.int32)
    with use_mesh(mesh):
        program = jax.jit(jax.grad(lambda p: jnp.sum(model.apply({"params": p}, tokens).logits))).lower(params).as_text()
    assert program.count('"stablehlo.reduce_scatter"') == 3
    groups = re.findall(r'"stablehlo.all_reduce".*?replica_groups = dense<\[(\[.*?\])\]>', program)
    assert all("," not in group for each in groups for group in each.split("], ["))  # of one device each: nothing is sent


DENSE = {"fsdp": 2, "context": 2, "tensor": 2}


@pytest.mark.parametrize("axes", some([DENSE, {"expert": 4, "tensor": 2}], [DENSE]), ids=str)
@pytest.mark.parametrize("explicit", [False, True], ids=["auto", "explicit"])
def test_decoding_on_a_mesh_equals_the_full_forward(axes, explicit):
    experts = ExpertsConfig(num_experts=4, exchange="padded") if "expert" in axes else None
    config = TransformerConfig(**SIZE, position="rotary", num_kv_heads=2, experts=experts)
    model = Transformer(config)
    params, rows = init_params(model, jax.random.key(0)), 2
    tokens = np.random.default_rng(0).integers(0, V, (rows, 12)).astype(np.int32)

    @jax.jit
    def step_by_step(params, tokens):
        out = model.apply({"params": params}, tokens[:, :8], cache=init_cache(config, rows, 16))

        def one(cache, token):
            out = model.apply({"params": params}, token[:, None], cache=cache)
            return out.cache, out.logits[:, 0]

        cache, logits = jax.lax.scan(one, out.cache, jnp.moveaxis(tokens[:, 8:], 1, 0))
        return out.logits, logits, cache.length

    want = np.asarray(jax.jit(lambda params, tokens: model.apply({"params": params}, tokens).logits)(params, tokens))
    with use_mesh(make_mesh(MeshConfig(**{"data": 1, **axes}, explicit=explicit))):
        prefill, decoded, length = jax.device_get(step_by_step(params, tokens))
    np.testing.assert_allclose(prefill, want[:, :8], atol=1e-5)
    np.testing.assert_allclose(np.moveaxis(decoded, 0, 1), want[:, 8:], atol=1e-5)
    assert length == 12
