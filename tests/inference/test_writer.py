"""Parameters as decoding wants them, and what is made of them before they exist."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxllm.inference.writer import abstract_decode_params, decode_params, write_tokens
from jaxllm.models import Transformer, TransformerConfig, abstract_params, init_cache, init_params
from jaxllm.sharding import MeshConfig, make_mesh, shardings_for

CONFIG = TransformerConfig(
    vocab_size=32, context_len=16, num_layers=3, embed_dim=16, num_heads=2, layer_loop="scan", compute_dtype="bfloat16"
)
MODEL = Transformer(CONFIG)


@pytest.mark.parametrize("mesh", [{"data": 1}, {"data": 1, "fsdp": 2, "tensor": 2}], ids=str)
def test_what_is_planned_is_what_is_made(mesh):
    """Shapes, types and layouts, of parameters in both forms."""
    abstract, axes = abstract_params(MODEL)
    shardings = shardings_for(abstract, axes, make_mesh(MeshConfig(**mesh)))
    made = decode_params(MODEL, jax.device_put(init_params(MODEL, jax.random.key(0)), shardings))
    described = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
    planned = abstract_decode_params(MODEL, described)
    assert jax.tree.structure(made) == jax.tree.structure(planned)
    for one, other in zip(jax.tree.leaves(made), jax.tree.leaves(planned), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert one.sharding.is_equivalent_to(other.sharding, one.ndim)
    assert isinstance(planned.prompts["layers"], tuple) == (len(mesh) > 1)  # on one CPU device the stack is shown, not copied


@pytest.mark.parametrize("loop", ["scan", "unroll"])
def test_layers_that_come_apart_are_neither_scanned_nor_fenced(loop):
    """Whatever the config says of stacked ones: a scan would copy the whole cache for each token, and a fence keeps XLA from
    joining one layer's end with the next one's beginning."""
    model = Transformer(dataclasses.replace(CONFIG, layer_loop=loop))
    params = decode_params(model, init_params(model, jax.random.key(0)))
    cache = init_cache(CONFIG, 1, 16, stacked=False)
    tokens = jnp.ones((1, 1), jnp.int32)
    program = str(jax.make_jaxpr(lambda params, cache: write_tokens(model, params, tokens, cache))(params.tokens, cache))
    assert "scan[" not in program and "optimization_barrier" not in program and "dot_general" in program
