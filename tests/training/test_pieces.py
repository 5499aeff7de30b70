"""The loss in pieces: the same gradients however a mesh splits the tokens, and no more sent than needed."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.models import TransformerConfig
from jaxllm.sharding import MeshConfig, make_mesh, use_mesh
from jaxllm.training import LossConfig
from jaxllm.training.loss import token_loss

B, T, D, V = 4, 16, 32, 64
rng = np.random.default_rng(0)
HIDDEN, KERNEL = rng.normal(size=(B, T, D)).astype(np.float32), rng.normal(size=(D, V)).astype(np.float32)
TARGETS, WEIGHTS = rng.integers(0, V, (B, T)).astype(np.int32), rng.random((B, T)).astype(np.float32)
CONFIG = TransformerConfig(vocab_size=V, embed_dim=D, tie_embeddings=False)


def gradient(chunk, scale=1.0, out=None):
    """By hidden states and the output matrix."""

    def total(hidden, kernel):
        arrays = (hidden, jnp.asarray(TARGETS), jnp.asarray(WEIGHTS))
        return scale * token_loss(CONFIG, LossConfig(chunk=chunk), {"kernel": kernel}, *arrays).total

    return jax.jit(jax.grad(total, argnums=(0, 1)), out_shardings=out)


@functools.cache
def whole():
    return jax.device_get(gradient(None)(HIDDEN, KERNEL))


@pytest.mark.parametrize("explicit", [False, True], ids=["auto", "explicit"])
@pytest.mark.parametrize("mesh", [{"context": 8}, {"fsdp": 2, "context": 4}, {"context": 2, "tensor": 2}], ids=str)
@pytest.mark.parametrize("chunk", [4, 8])
def test_pieces_are_the_whole(mesh, explicit, chunk):
    """Also where a device has fewer time steps than there are pieces."""
    with use_mesh(make_mesh(MeshConfig(**{"data": 1, **mesh}, explicit=explicit))):
        got = jax.device_get(gradient(chunk)(HIDDEN, KERNEL))
    for one, other in zip(got, whole(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_what_a_gradient_is_scaled_by_is_not_rounded():
    """1/3 in bfloat16 would be off by 1 in 1,000."""
    hidden = HIDDEN.astype(jnp.bfloat16)
    one, third = (jax.device_get(gradient(4, scale)(hidden, KERNEL.astype(jnp.bfloat16)))[0] for scale in (1.0, 1 / 3))
    expected = (one.astype(np.float32) * np.float32(1 / 3)).astype(jnp.bfloat16)
    assert one.dtype == jnp.bfloat16 and (third == expected).all()


def test_the_output_matrix_is_not_gathered_for_its_gradient():
    """Each device adds up its part of the vocabulary, and of that is sent its part of the width."""
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2))
    with use_mesh(mesh):
        kernel = jax.NamedSharding(mesh, jax.P(None, "tensor"))
        hidden = jax.NamedSharding(mesh, jax.P("fsdp"))
        given = (jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at) for x, at in ((HIDDEN, hidden), (KERNEL, kernel)))
        stored = jax.NamedSharding(mesh, jax.P("fsdp", "tensor"))
        program = gradient(4, out=(hidden, stored)).lower(*given).compile().as_text()
    sent = re.findall(r"= \(?(\S+?)\{\S* (all-gather|all-reduce|reduce-scatter)(?:-start)?\(", program)
    assert (f"f32[{D // 2},{V // 2}]", "reduce-scatter") in sent
    assert not [shape for shape, _ in sent if shape == f"f32[{D},{V}]"], sent
