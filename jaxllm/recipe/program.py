"""From a recipe to the program of its steps: model, mesh, optimizer, shapes. No data is opened and nothing is computed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import optax
from jax.sharding import Mesh

from jaxllm.finetune import adapt
from jaxllm.models import Model, make_model
from jaxllm.recipe.device_config import device_config
from jaxllm.recipe.recipe import Recipe
from jaxllm.sharding import batch_sharding
from jaxllm.training import TrainState, abstract_state, lower_train_step, make_optimizer, make_train_step

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
        return make_optimizer(self.recipe.optimizer, self.recipe.steps)

    @cached_property
    def abstract(self) -> TrainState:
        """Shapes, types and shardings of the state."""
        recipe = self.recipe
        return abstract_state(self.model, self.optimizer[0], self.mesh, recipe.optimizer.state_memory, recipe.method.learns)

    @cached_property
    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Those of a batch."""
        recipe, sharding = self.recipe, batch_sharding(self.mesh)
        return {
            name: jax.ShapeDtypeStruct((recipe.batch_size, *field.shape), field.dtype, sharding=sharding)
            for name, field in recipe.objective.fields(recipe.data).items()
        }

    @cached_property
    def key(self) -> jax.Array:
        return jax.random.key(self.recipe.seed)

    def lower_step(self) -> jax.stages.Lowered:
        """The train step as XLA gets it, before it is compiled."""
        recipe = self.recipe
        step = make_train_step(
            recipe.objective.make_loss(self.model, recipe.loss),
            *self.optimizer,
            key=jax.random.fold_in(self.key, 1),
            accumulate=recipe.accumulate,
            on_nonfinite=recipe.on_nonfinite,
            dropout=max(recipe.model_config.dropout, recipe.method.dropout) > 0,
            accuracy=recipe.objective.reports.accuracy,
        )
        return lower_train_step(step, self.abstract, self.abstract_batch, self.mesh)

    def compile_step(self) -> TrainStep:
        return self.lower_step().compile()
