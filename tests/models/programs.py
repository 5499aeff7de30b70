"""One compiled program a model, run by several tests: its value, logits and gradients for chosen outputs."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxllm.models import Model, ModelConfig, TransformerConfig, abstract_params, make_model
from jaxllm.sharding import MeshConfig, batch_sharding, make_mesh, replicated, shardings_for, use_mesh

# Two documents in one row of T tokens: the first ends here.
T, SPLIT = 12, 7


@cache
def parameters(config: ModelConfig) -> Any:
    """Numbers that show any parameter left out: biases away from 0, scales from 1, all different."""
    rng = np.random.default_rng(0)

    def numbers(path, leaf):
        name, unit = path[-1].key, not getattr(config, "norm_unit_offset", False)
        center, std = (1.0 if unit else 0.0, 0.3) if name == "scale" else (0.0, 0.2)
        return rng.normal(center, std, leaf.shape).astype(np.float32)

    return jax.device_put(jax.tree_util.tree_map_with_path(numbers, described(config)[0]))


@cache
def described(config: ModelConfig) -> tuple[Any, Any]:
    """Shapes and logical axes of the parameters."""
    return abstract_params(make_model(config))


def exact(tree: Any) -> Any:
    """As the reference computes: NumPy, float64."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def measure(model: Model) -> Callable:
    """`f(params, batch, hidden_weights, logit_weight) -> ((value, output), gradients)`: a weighted sum of one direction of the
    last hidden state, [B, T], and of the logits.
    """

    def value(params, batch: dict[str, Array], hidden_weights: Array, logit_weight: Array):
        output = model.apply({"params": params}, **batch)
        probe = jnp.cos(jnp.arange(output.hidden.shape[-1], dtype=jnp.float32))
        total = jnp.sum(jnp.sum(output.hidden * probe[None, None], axis=-1) * hidden_weights)
        logits = 0.0 if output.logits is None else jnp.mean(jax.nn.logsumexp(output.logits, axis=-1))
        return total + logit_weight * logits, (output.logits, output.hidden)

    return jax.value_and_grad(value, has_aux=True)


@cache
def program(config: ModelConfig) -> Callable:
    """`measure`, compiled."""
    return jax.jit(measure(make_model(config)))


def spread(shape: tuple[int, ...]) -> np.ndarray:
    """Weights that pick every output, each a little differently."""
    return (1.0 + 0.5 * np.sin(np.arange(np.prod(shape)))).reshape(shape).astype(np.float32)


def explicit_mesh_agrees(config: ModelConfig, batch: dict[str, np.ndarray], length: int) -> None:
    """In Explicit mode a layout slip is an error while tracing; heads, widths and batch are all split here."""
    params, weights, one = parameters(config), spread((4, length)), np.float32(1)
    (want, _), want_grad = program(config)(params, batch, weights, one)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2, explicit=True))
    # One block to compile, also where the program without a mesh has two.
    model = make_model(_scanned(config))
    placed = jax.device_put(params, shardings_for(params, described(config)[1], mesh))
    rows = batch_sharding(mesh)
    with use_mesh(mesh):
        given = jax.device_put(batch, rows), jax.device_put(weights, rows), jax.device_put(one, replicated(mesh))
        (got, _), got_grad = jax.jit(measure(model))(placed, *given)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert jax.tree.structure(got_grad) == jax.tree.structure(want_grad)
    for (path, b), a in zip(jax.tree_util.tree_leaves_with_path(want_grad), jax.tree.leaves(got_grad), strict=True):
        tolerance = 2e-5 * max(1.0, float(jnp.abs(b).max()))
        np.testing.assert_allclose(a, b, atol=tolerance, err_msg=jax.tree_util.keystr(path))


def _scanned(config: Any) -> Any:
    if isinstance(config, TransformerConfig):
        return dataclasses.replace(config, layer_loop="scan")
    stacks = {name: _scanned(getattr(config, name)) for name in ("encoder", "decoder") if hasattr(config, name)}
    return dataclasses.replace(config, **stacks)


def packed_rows(length: int = T, split: int = SPLIT, first: int = 0) -> dict[str, np.ndarray]:
    """Four rows: one document; two in one row; the first of these alone, padded on the right; the second, on the left.

    A token id stands for one place in the first two rows, so a row of the embedding's gradient tells of one token.
    """
    time, second = np.arange(length), np.arange(length) >= split
    tokens = np.stack([time, length + time, length + time, length + time]) + first
    tokens = np.where(np.stack([time < 0, time < 0, second, ~second]), 0, tokens)
    starts = np.where(second, time - split, time)
    positions = np.stack([time, starts, np.where(second, 0, starts), np.where(second, starts, 0)])
    segments = np.stack([time * 0 + 1, 1 + second, 1 - second, second])
    return {"tokens": _int(tokens), "positions": _int(positions), "segment_ids": _int(segments)}


def _int(x: Any) -> np.ndarray:
    return np.asarray(x, np.int32)
