"""Batches that cannot pass through the stages of a mesh are computed all the same, and it is said."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.models import Transformer, TransformerConfig, init_params
from jaxllm.sharding import MeshConfig, make_mesh, use_mesh

MODEL = Transformer(TransformerConfig(vocab_size=32, context_len=8, num_layers=2, embed_dim=16, num_heads=2, layer_loop="scan"))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_rows_that_stages_do_not_divide_are_warned_of(rows):
    params = init_params(MODEL, jax.random.key(0))
    tokens = jnp.arange(rows * 4).reshape(rows, 4)
    want = MODEL.apply({"params": params}, tokens)
    with use_mesh(make_mesh(MeshConfig(data=1, stage=2))), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        got = jax.jit(MODEL.apply)({"params": params}, tokens)
    np.testing.assert_allclose(got.logits, want.logits, atol=1e-5)  # type: ignore[union-attr]
    expected = "3 rows do not pass through the 2 stages of the mesh, which do not divide them: each device gathers"
    assert [str(warning.message).startswith(expected) for warning in said] == ([True] if rows == 3 else [])
