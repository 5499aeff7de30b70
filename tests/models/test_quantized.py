"""Products in 8 bits are near those of float32, and gradients are those of the unrounded product, rounded."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.models import TransformerConfig, init_params, make_model
from jaxllm.models.quantized import quantized_einsum
from jaxllm.sharding import MeshConfig, make_mesh, use_mesh

pytest.importorskip("qwix")
EQUATION, OUT = "BTD,DNH->BTNH", ("batch", "time", "heads", "head_dim")
rng = np.random.default_rng(0)
X, KERNEL = rng.normal(size=(4, 8, 32)).astype(np.float32), rng.normal(size=(32, 4, 8)).astype(np.float32)
X[..., 0], KERNEL[0] = 5.0, 5.0  # what is largest in a row is half a step beyond the last integer: below 0 it may go either way


def round_rows(x, axes, kind):
    """Scaled so that the largest of each row fits, and rounded; `axes` are summed over."""
    most = {"int8": 127.5, "fp8": 448.0}[kind]
    scale = np.abs(x).max(axis=axes, keepdims=True) / most
    return scale * (
        np.clip(np.round(x / scale), -128, 127) if kind == "int8" else (x / scale).astype(jnp.float8_e4m3fn).astype(np.float32)
    )


def error(one, other):
    return float(np.sqrt(np.mean(np.square(one - other)) / np.mean(np.square(other))))


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_the_product_is_that_of_rounded_operands(kind):
    got = quantized_einsum(EQUATION, jnp.asarray(X), jnp.asarray(KERNEL), out=OUT, dtype=kind)
    want = np.einsum(EQUATION, round_rows(X, (2,), kind), round_rows(KERNEL, (0,), kind))
    np.testing.assert_allclose(got, want, atol=1e-3)
    assert 1e-3 < error(got, np.einsum(EQUATION, X, KERNEL)) < 0.05


@pytest.mark.parametrize(("kind", "of_x", "of_kernel"), [("int8", 0.02, 1e-6), ("fp8", 0.1, 0.1)])
def test_gradients(kind, of_x, of_kernel):
    def total(x, kernel, product):
        return jnp.sum(jnp.sin(0.1 * product(x, kernel)))

    def eight(x, kernel):
        product = quantized_einsum(EQUATION, x, kernel, out=OUT, dtype=kind)
        return jax.lax.stop_gradient(jnp.einsum(EQUATION, x, kernel) - product) + product  # the same cotangent

    gradient = jax.jit(jax.grad(total, argnums=(0, 1)), static_argnums=2)
    got, want = gradient(X, KERNEL, eight), gradient(X, KERNEL, lambda x, kernel: jnp.einsum(EQUATION, x, kernel))
    assert 1e-4 < error(got[0], want[0]) < of_x
    assert error(got[1], want[1]) < of_kernel


@pytest.mark.slow
def test_a_model_on_a_mesh_is_that_of_one_device():
    config = TransformerConfig(
        vocab_size=32, context_len=16, num_layers=2, embed_dim=32, num_heads=4, init_std=0.1, layer_loop="scan", remat="dots"
    )
    tokens = rng.integers(0, 32, (4, 16)).astype(np.int32)
    plain, model = make_model(config), make_model(dataclasses.replace(config, matmul_dtype="int8"))
    params = init_params(model, jax.random.key(0))

    def gradient(model):
        return jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(model.apply({"params": p}, jnp.asarray(tokens)).logits))))

    one, exact = gradient(model)(params), gradient(plain)(params)
    with use_mesh(make_mesh(MeshConfig(data=1, fsdp=2, tensor=2))):
        split = gradient(model)(params)
    norm = lambda tree: float(jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))))  # noqa: E731
    difference = lambda a, b: norm(jax.tree.map(lambda x, y: x - y, jax.device_get(a), jax.device_get(b)))  # noqa: E731
    assert difference(one, exact) > 1e-3 * norm(exact)
    assert difference(one, split) < 0.5 * difference(one, exact)  # some values are rounded to the other side
    assert difference(one, exact) < 0.1 * norm(exact)


def test_an_explicit_mesh_is_refused():
    with use_mesh(make_mesh(MeshConfig(data=1, tensor=2, explicit=True))):
        with pytest.raises(ValueError, match="model.matmul_dtype=int8 needs mesh.explicit=False"):
            quantized_einsum(EQUATION, jnp.asarray(X), jnp.asarray(KERNEL), out=OUT, dtype="int8")
