"""From a recipe to the program of its steps: model, mesh, optimizer, shapes. No data is opened and nothing is computed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jaxllm.finetune import adapt, adapted_loss, wrapped
from jaxllm.finetune.tasks.reference import REFERENCE
from jaxllm.hardware.machine import return_memory
from jaxllm.models import Model, make_model
from jaxllm.recipe.device_config import device_config
from jaxllm.recipe.recipe import Recipe
from jaxllm.sharding import batch_sharding
from jaxllm.training import TrainState, abstract_state, lower_train_step, make_optimizer, make_train_step
from jaxllm.training.neftune import noisy
from jaxllm.training.objectives.objective import Field

DeviceBatch = dict[str, jax.Array]
TrainStep = Callable[[TrainState, DeviceBatch], tuple[TrainState, dict[str, jax.Array]]]


@dataclass(frozen=True)
class Program:
    """A recipe made concrete on a mesh, of this machine's devices or of others to plan for. Nothing is compiled until it is
    asked for."""

    recipe: Recipe
    """With the vocabulary size, or the number of labels, and the end of the decay filled in."""
    mesh: Mesh

    @cached_property
    def model(self) -> Model:
        return adapt(make_model(device_config(self.recipe.model_config, self.mesh)), self.recipe.method)

    @property
    def tokens_per_step(self) -> int:
        """Tokens, or images, of a batch."""
        return self.recipe.batch_size * self.recipe.objective.tokens(self.recipe.data)

    @cached_property
    def optimizer(self) -> tuple[optax.GradientTransformation, optax.Schedule]:
        recipe = self.recipe
        return make_optimizer(recipe.optimizer, recipe.steps, wrapped(recipe.method, recipe.steps))

    @cached_property
    def abstract(self) -> TrainState:
        """Shapes, types and shardings of the state."""
        recipe = self.recipe
        return abstract_state(self.model, self.optimizer[0], self.mesh, recipe.optimizer.state_memory, recipe.method.learns)

    @cached_property
    def compares(self) -> bool:
        """Whether the objective compares with the model as it was, in a way that a batch must bring along."""
        asks = getattr(self.recipe.objective, "compares", None)
        return asks is not None and asks(self.model)

    @cached_property
    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Those of a batch."""
        recipe, sharding = self.recipe, batch_sharding(self.mesh)
        by_model = getattr(recipe.objective, "fields_for", None)
        fields = recipe.objective.fields(recipe.data) if by_model is None else by_model(recipe.model_config, recipe.data)
        if self.compares:
            fields = fields | {REFERENCE: Field((2,), np.float32)}
        return {
            name: jax.ShapeDtypeStruct((recipe.batch_size, *field.shape), field.dtype, sharding=sharding)
            for name, field in fields.items()
        }

    @cached_property
    def key(self) -> jax.Array:
        return jax.random.key(self.recipe.seed)

    def lower_step(self, abstract_batch: dict[str, jax.ShapeDtypeStruct] | None = None) -> jax.stages.Lowered:
        """The train step as XLA gets it, before it is compiled.

        Args:
          abstract_batch: shapes, types and shardings of the batch, where they differ from batch to batch.
        """
        recipe = self.recipe
        step = make_train_step(
            noisy(adapted_loss(recipe.method, recipe.objective.make_loss(self.model, recipe.loss)), recipe.loss.neftune),
            *self.optimizer,
            key=jax.random.fold_in(self.key, 1),
            accumulate=recipe.accumulate,
            on_nonfinite=recipe.on_nonfinite,
            dropout=max(recipe.model_config.dropout, recipe.method.dropout, recipe.loss.neftune) > 0,
            accuracy=recipe.objective.reports.accuracy,
        )
        return lower_train_step(step, self.abstract, abstract_batch or self.abstract_batch, self.mesh)

    def compile_step(self) -> TrainStep:
        return _compiled(self.lower_step())


class StepByShape:
    """The train step of batches that differ in shape: one program for each, compiled when it is first needed."""

    def __init__(self, program: Program):
        self._program = program
        self._compiled: dict[Any, TrainStep] = {}
        self.later_seconds = 0.0
        """What `compile_new` took."""

    def __call__(self, state: TrainState, batch: DeviceBatch) -> tuple[TrainState, dict[str, jax.Array]]:
        return self.compiled(batch)(state, batch)

    def compiled(self, batch: DeviceBatch) -> TrainStep:
        """The program for such a batch."""
        shapes = _shapes(batch)
        if shapes not in self._compiled:
            sharding = batch_sharding(self._program.mesh)
            abstract = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for name, x in sorted(batch.items())}
            self._compiled[shapes] = _compiled(self._program.lower_step(abstract))
        return self._compiled[shapes]

    def is_new(self, batch: DeviceBatch) -> bool:
        """Whether a program would have to be compiled for such a batch."""
        return _shapes(batch) not in self._compiled


def compile_new(step: TrainStep, batch: Any) -> str | None:
    """Compiles a step for a batch of a shape that is new; says so."""
    if not isinstance(step, StepByShape) or not step.is_new(batch):
        return None
    begin = time.perf_counter()
    step.compiled(batch)
    seconds = time.perf_counter() - begin
    step.later_seconds += seconds
    rows, width = batch["tokens"].shape if "tokens" in batch else (len(next(iter(batch.values()))), 0)
    return f"compiled the step for {rows} rows of {width} tokens in {seconds:.1f} s"


def _compiled(lowered: jax.stages.Lowered) -> TrainStep:
    compiled = lowered.compile()
    return_memory()
    return compiled


def _shapes(batch: DeviceBatch) -> tuple[Any, ...]:
    return tuple(sorted((name, x.shape) for name, x in batch.items()))
