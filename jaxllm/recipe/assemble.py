"""From a recipe to the pieces of a run: data, model, mesh, optimizer, steps."""

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from jaxllm.data import (
    Batch,
    Data,
    ImageData,
    ImageDataConfig,
    Rows,
    Tokenizer,
    eval_batches,
    open_data,
    open_images,
    train_batches,
)
from jaxllm.evaluate import evaluate
from jaxllm.hardware import mfu, require_devices
from jaxllm.models import Model, make_model, train_flops_per_token
from jaxllm.recipe.device_config import device_config
from jaxllm.recipe.recipe import Recipe
from jaxllm.recipe.resolve import FromData, check_size, resolved
from jaxllm.sharding import batch_sharding, check_divides, make_mesh
from jaxllm.training import (
    TrainState,
    abstract_state,
    compile_train_step,
    evaluation_params,
    jit_eval_step,
    make_eval_step,
    make_optimizer,
    make_train_step,
)
from jaxllm.training.objectives.marks import first_start_id

DeviceBatch = dict[str, jax.Array]


@dataclass(frozen=True)
class Job:
    """A recipe made concrete on this machine. Nothing is computed or compiled until it is asked for."""

    recipe: Recipe
    """With the vocabulary size, or the number of labels, and the end of the decay filled in."""
    data: Data | ImageData
    mesh: Mesh

    @cached_property
    def model(self) -> Model:
        return make_model(device_config(self.recipe.model, self.mesh))

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the data is no text."""
        return self.data.tokenizer if isinstance(self.data, Data) else None

    @cached_property
    def train(self) -> Rows:
        """The examples to train on, shuffled by the seed, without end."""
        return self.rows(self.recipe.data.train_split, seed=self.recipe.seed)

    def rows(self, split: str, *, seed: int | None = None) -> Rows:
        """The examples of any split; in its own order without a seed."""
        return self.recipe.objective.rows(self.data, self.recipe.model, split, seed=seed)

    @property
    def tokens_per_step(self) -> int:
        """Tokens, or images, of a batch."""
        return self.recipe.batch_size * self.recipe.objective.tokens(self.recipe.data)

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
        tokenizer = {} if self.tokenizer is None else {"tokenizer": self.tokenizer.fingerprint}
        return tokenizer | {"data": self.train.fingerprint}

    def compile_step(self) -> Callable[[TrainState, DeviceBatch], tuple[TrainState, dict[str, jax.Array]]]:
        recipe = self.recipe
        step = make_train_step(
            recipe.objective.make_loss(self.model, recipe.loss),
            *self.optimizer,
            key=jax.random.fold_in(self.key, 1),
            z_loss=recipe.loss.z_loss,
            accumulate=recipe.accumulate,
            on_nonfinite=recipe.on_nonfinite,
            dropout=recipe.model.dropout > 0,
            accuracy=recipe.objective.reports.accuracy,
        )
        fields = recipe.objective.fields(recipe.data).items()
        batch = {name: jax.ShapeDtypeStruct((recipe.batch_size, *field.shape), field.dtype) for name, field in fields}
        return compile_train_step(step, self.abstract, batch, self.mesh)

    def batches(self, start: int) -> Generator[DeviceBatch]:
        """Training batches on their devices, from the example `start`."""
        host = train_batches(
            self.train,
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
        loss = self.recipe.objective.make_loss(self.model, self.recipe.loss)
        return jit_eval_step(make_eval_step(loss), self.abstract.params, self.mesh)

    def evaluate_params(self, params: Any, split: str) -> dict[str, float]:
        """loss, tokens or images, and what else the objective reports, over a split."""
        config = self.recipe.evaluate
        parts = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        batch_size = -(-(config.batch_size or self.recipe.batch_size) // parts) * parts
        batches = eval_batches(
            self.rows(split),
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        placed = (self._place(batch) for _, batch in zip(range(config.batches or 2**62), batches, strict=False))
        return evaluate(self._eval_step, params, placed, **self.recipe.objective.reports._asdict())

    def evaluate_state(self, state: TrainState) -> dict[str, float]:
        """The validation metrics of a state, by its average of parameters where it keeps one."""
        split = self.recipe.data.validation_split
        assert split is not None
        return self.evaluate_params(evaluation_params(state.params, state.opt_state), split)

    def utilization(self, tokens_per_second: float) -> float | None:
        """MFU at this speed; None where the device's peak is not known."""
        data = self.recipe.data
        flops = train_flops_per_token(self.recipe.model, 1 if isinstance(data, ImageDataConfig) else data.seq_len)
        return mfu(flops, tokens_per_second, list(self.mesh.devices.flat), self.recipe.model.compute_dtype)

    def _place(self, batch: Batch) -> DeviceBatch:
        sharding = batch_sharding(self.mesh)
        if jax.process_count() == 1:
            return jax.device_put(batch, sharding)
        return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


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
    if isinstance(recipe.data, ImageDataConfig):
        data = open_images(recipe.data, seed=recipe.seed)
        known = FromData(len(data.label_names), label_names=data.label_names)
    else:
        data = open_data(recipe.data, seed=recipe.seed, tokenizer=tokenizer)
        known = FromData(recipe.objective.vocab_size(data.tokenizer, recipe.data), first_start_id(data.tokenizer))
    check_size(recipe.model, known.size)
    return Job(resolved(recipe, known, recipe.steps), data, mesh)
