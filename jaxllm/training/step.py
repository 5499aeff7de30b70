"""One optimizer step, and one evaluation step: pure functions, jitted once at the edge."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding

from jaxllm.sharding import batch_sharding, replicated, use_mesh
from jaxllm.training.cross_entropy import LossSums
from jaxllm.training.loss import Batch, Loss
from jaxllm.training.optimizer import global_norm
from jaxllm.training.state import HOST, TrainState

Metrics = dict[str, Array]


def make_train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    key: Array,
    accumulate: int = 1,
    on_nonfinite: Literal["stop", "skip"] = "stop",
    dropout: bool = False,
    accuracy: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """`train_step(state, batch) -> (state, metrics)`.

    Args:
      key: randomness of step n is fold_in(key, n), so a resumed run is the same run.
      accumulate: parts of the batch whose gradients are summed in turn; the result is that of the whole batch.
      on_nonfinite: "skip" leaves parameters and optimizer as they were where loss or gradient is not finite.
      accuracy: whether the metrics tell the share of targets that are the most likely class.
    """

    def gradient(state: TrainState, batch: Batch, key: Array | None) -> tuple[LossSums, Any]:
        """Of the summed loss; it is divided by the weight of the whole batch once, at the end."""

        def total(params: Any) -> tuple[Array, LossSums]:
            sums = loss(state._replace(params=params).whole, batch, key)
            return sums.total, sums

        (_, sums), grads = jax.value_and_grad(total, has_aux=True)(state.params)
        return sums, grads

    def accumulated(state: TrainState, batch: Batch, key: Array | None) -> tuple[LossSums, Any]:
        parts = jax.tree.map(lambda x: _split(x, accumulate), batch)

        def add(so_far: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
            part_key = None if key is None else jax.random.fold_in(key, part[1])
            return jax.tree.map(jnp.add, so_far, gradient(state, part[0], part_key)), None

        zeros = (LossSums.zeros(), jax.tree.map(jnp.zeros_like, state.params))
        return jax.lax.scan(add, zeros, (parts, jnp.arange(accumulate)))[0]

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        step_key = jax.random.fold_in(key, state.step) if dropout else None
        sums, grads = (gradient if accumulate == 1 else accumulated)(state, batch, step_key)
        weight = jnp.maximum(sums.weight, jnp.finfo(jnp.float32).tiny)  # a batch may have nothing to guess
        grads = jax.tree.map(lambda g: g / weight.astype(g.dtype), grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": sums.cross_entropy / weight,
            "grad_norm": global_norm(grads),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
        }
        if accuracy:
            metrics["accuracy"] = sums.correct / weight
        if on_nonfinite == "skip":
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])

            def keep(new: Array, old: Array) -> Array:
                """Counts go on, so that the learning rate stays that of the step."""
                return jnp.where(finite, new, old) if jnp.issubdtype(new.dtype, jnp.inexact) else new

            params = jax.tree.map(keep, params, state.params)
            opt_state = jax.tree.map(keep, opt_state, state.opt_state)
        return TrainState(state.step + 1, params, opt_state, state.frozen), metrics

    return train_step


def _split(x: Array, parts: int) -> Array:
    """[B, ...] as [parts, B / parts, ...]; each part takes every parts-th row, so that rows stay on their device."""
    return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)


def make_predict_step(predict: Callable[[Any, Batch], tuple[LossSums, Metrics]]) -> Callable[[Any, Batch], dict[str, Any]]:
    """As `make_eval_step`, with `predictions`: arrays by row, for the host."""

    def eval_step(params: Any, batch: Batch) -> dict[str, Any]:
        sums, found = predict(params, batch)
        return {"loss_sum": sums.cross_entropy, "weight": sums.weight, "correct": sums.correct, "predictions": found}

    return eval_step


def make_eval_step(loss: Loss) -> Callable[[Any, Batch], Metrics]:
    """`eval_step(params, batch) -> {"loss_sum", "weight", "correct"}`, to be summed over the batches of a split."""

    def eval_step(params: Any, batch: Batch) -> Metrics:
        sums = loss(params, batch, None)
        return {"loss_sum": sums.cross_entropy, "weight": sums.weight, "correct": sums.correct}

    return eval_step


TPU_OPTIONS = {"xla_jf_bf16_propagation": "false"}
"""Without this, the compiler keeps a bfloat16 copy of all layers' float32 parameters through the whole step."""


def lower_train_step(
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    abstract: TrainState,
    abstract_batch: Any,
    mesh: Mesh,
) -> jax.stages.Lowered:
    """The step for this mesh, ready to be compiled ahead of its first call; the state is donated. What of it waits in the
    host's memory is fetched and brought back by the step."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    @functools.wraps(train_step)
    def fetched(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return train_step(jax.tree.map(_on_device, state, shardings), batch)

    with use_mesh(mesh):
        jitted = jax.jit(
            fetched,
            in_shardings=(shardings, batch_sharding(mesh)),
            out_shardings=(shardings, replicated(mesh)),
            donate_argnums=0,
            compiler_options=TPU_OPTIONS if mesh.devices.flat[0].platform == "tpu" else None,
        )
        return jitted.lower(abstract, abstract_batch)


def _on_device(x: Array, sharding: NamedSharding) -> Array:
    return jax.device_put(x, sharding.with_memory_kind("device")) if sharding.memory_kind == HOST else x


def jit_eval_step(eval_step: Callable[[Any, Batch], Metrics], abstract_params: Any, mesh: Mesh) -> Callable:
    """The evaluation step, compiled for this mesh when it is first called."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_params)
    jitted = jax.jit(eval_step, in_shardings=(shardings, batch_sharding(mesh)), out_shardings=replicated(mesh))

    def call(params: Any, batch: Batch) -> Metrics:
        with use_mesh(mesh):
            return jitted(params, batch)

    return call
