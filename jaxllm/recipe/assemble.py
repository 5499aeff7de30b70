"""From a recipe to the pieces of a run: data, model, mesh, optimizer, steps."""

import dataclasses
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jaxllm.data import Batch, Data, Tokenizer, eval_batches, open_data, train_batches
from jaxllm.evaluate import evaluate
from jaxllm.hardware import mfu, require_devices
from jaxllm.models import Transformer, TransformerConfig, train_flops_per_token
from jaxllm.recipe.recipe import Recipe
from jaxllm.sharding import batch_sharding, check_divides, make_mesh
from jaxllm.training import (
    TrainState,
    abstract_state,
    compile_train_step,
    evaluation_params,
    jit_eval_step,
    make_eval_step,
    make_loss,
    make_optimizer,
    make_train_step,
)

DeviceBatch = dict[str, jax.Array]

UNROLL_AT_MOST = 16
"""Deepest model whose layers are unrolled on CPU, where a scan copies each layer's weights out of the stack."""


@dataclass(frozen=True)
class Job:
    """A recipe made concrete on this machine. Nothing is computed or compiled until it is asked for."""

    recipe: Recipe
    """With the vocabulary size and the end of the decay filled in."""
    data: Data
    mesh: Mesh

    @cached_property
    def model(self) -> Transformer:
        return Transformer(device_config(self.recipe.model, self.mesh))

    @cached_property
    def optimizer(self) -> tuple[optax.GradientTransformation, optax.Schedule]:
        return make_optimizer(self.recipe.optimizer, self.recipe.steps)

    @cached_property
    def abstract(self) -> TrainState:
        """Shapes, types and shardings of the state."""
        return abstract_state(self.model, self.optimizer[0], self.mesh)

    @cached_property
    def key(self) -> jax.Array:
        return jax.random.key(self.recipe.seed)

    @cached_property
    def identity(self) -> dict[str, str]:
        """Fingerprints of what a run must find again when it goes on."""
        return {"tokenizer": self.data.tokenizer.fingerprint, "data": self.data.train.fingerprint}

    def compile_step(self) -> Callable[[TrainState, DeviceBatch], tuple[TrainState, dict[str, jax.Array]]]:
        recipe = self.recipe
        step = make_train_step(
            make_loss(self.model, recipe.loss),
            *self.optimizer,
            key=jax.random.fold_in(self.key, 1),
            z_loss=recipe.loss.z_loss,
            accumulate=recipe.accumulate,
            on_nonfinite=recipe.on_nonfinite,
            dropout=recipe.model.dropout > 0,
        )
        shape = (recipe.batch_size, recipe.data.seq_len)
        dtypes = {name: np.float32 if name == "loss_weights" else np.int32 for name in BATCH_FIELDS}
        batch = {name: jax.ShapeDtypeStruct(shape, dtype) for name, dtype in dtypes.items()}
        return compile_train_step(step, self.abstract, batch, self.mesh)

    def batches(self, start: int) -> Generator[DeviceBatch]:
        """Training batches on their devices, from the example `start`."""
        host = train_batches(
            self.data.train,
            batch_size=self.recipe.batch_size,
            start=start,
            num_workers=self.recipe.data.num_workers,
            prefetch=self.recipe.data.prefetch,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        with closing(host):
            for batch in host:
                yield self._place(batch)

    @cached_property
    def _eval_step(self) -> Callable[[Any, Mapping[str, Any]], dict[str, jax.Array]]:
        return jit_eval_step(make_eval_step(make_loss(self.model, self.recipe.loss)), self.abstract.params, self.mesh)

    def evaluate_params(self, params: Any, split: str) -> dict[str, float]:
        """loss, perplexity and tokens over a split."""
        config = self.recipe.evaluate
        parts = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        batch_size = -(-(config.batch_size or self.recipe.batch_size) // parts) * parts
        batches = eval_batches(
            self.data.rows(split),
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        placed = (self._place(batch) for _, batch in zip(range(config.batches or 2**62), batches, strict=False))
        return evaluate(self._eval_step, params, placed)

    def evaluate_state(self, state: TrainState) -> dict[str, float]:
        """The validation metrics of a state, by its average of parameters where it keeps one."""
        split = self.recipe.data.validation_split
        assert split is not None
        return self.evaluate_params(evaluation_params(state.params, state.opt_state), split)

    def utilization(self, tokens_per_second: float) -> float | None:
        """MFU at this speed; None where the device's peak is not known."""
        flops = train_flops_per_token(self.recipe.model, self.recipe.data.seq_len)
        return mfu(flops, tokens_per_second, list(self.mesh.devices.flat), self.recipe.model.compute_dtype)

    def _place(self, batch: Batch) -> DeviceBatch:
        sharding = batch_sharding(self.mesh)
        if jax.process_count() == 1:
            return jax.device_put(batch, sharding)
        return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


BATCH_FIELDS = ("tokens", "targets", "loss_weights", "positions", "segment_ids")


def assemble(recipe: Recipe, tokenizer: Tokenizer | None = None) -> Job:
    """The pieces of a run.

    Args:
      tokenizer: the one stored with a run that goes on.

    Raises:
      ValueError: a mesh that does not fit the machine or the model, or a vocabulary too small for the tokenizer.
      FileNotFoundError: no such data set.
    """
    require_devices()
    mesh = make_mesh(recipe.mesh, recipe.batch_size // recipe.accumulate)
    check_divides(mesh, recipe.model.axis_sizes())
    data = open_data(recipe.data, seed=recipe.seed, tokenizer=tokenizer)
    needed, given = data.tokenizer.vocab_size, recipe.model.vocab_size
    if given is not None and given < needed:
        raise ValueError(
            f"model.vocab_size must be at least the tokenizer's: got {given}, the tokenizer has {needed} entries; "
            "leave model.vocab_size out to take it from the tokenizer"
        )
    return Job(resolved(recipe, given or needed, recipe.steps), data, mesh)


def resolved(recipe: Recipe, vocab_size: int, decay_steps: int) -> Recipe:
    """The recipe with what it leaves to the tokenizer and to its own length filled in.

    The end of the learning rate's decay is fixed when a run starts: a run that goes on for longer keeps its schedule.
    """
    model, schedule = recipe.model, recipe.optimizer.schedule
    if model.vocab_size is None:
        model = dataclasses.replace(model, vocab_size=vocab_size)
    if schedule.decay_steps is None:
        schedule = dataclasses.replace(schedule, decay_steps=decay_steps)
    optimizer = dataclasses.replace(recipe.optimizer, schedule=schedule)
    return dataclasses.replace(recipe, model=model, optimizer=optimizer)


def device_config(config: TransformerConfig, mesh: Mesh) -> TransformerConfig:
    """The model's config with what depends on the device decided."""
    cpu = mesh.devices.flat[0].platform == "cpu"
    loop = "unroll" if cpu and config.num_layers <= UNROLL_AT_MOST else "scan"
    barrier = cpu if config.norm_barrier is None else config.norm_barrier
    return dataclasses.replace(config, layer_loop=config.layer_loop or loop, norm_barrier=barrier)
