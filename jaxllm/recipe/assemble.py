"""From a recipe to a run on this machine: its program, its data, its evaluations."""

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
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
from jaxllm.distributed import num_processes
from jaxllm.evaluate import evaluate
from jaxllm.hardware import mfu, require_devices
from jaxllm.models import train_flops_per_token
from jaxllm.recipe.program import DeviceBatch, Program
from jaxllm.recipe.recipe import Recipe
from jaxllm.recipe.resolve import FromData, check_size, resolved
from jaxllm.sharding import MeshError, batch_parts, batch_sharding, make_mesh
from jaxllm.training import TrainState, evaluated, jit_eval_step, make_eval_step
from jaxllm.training.objectives.marks import first_start_id


@dataclass(frozen=True)
class Job(Program):
    """A program with its data, on this machine."""

    data: Data | ImageData

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
        return self.recipe.objective.rows(self.data, self.recipe.model_config, split, seed=seed)

    @cached_property
    def identity(self) -> dict[str, str]:
        """Fingerprints of what a run must find again when it goes on."""
        tokenizer = {} if self.tokenizer is None else {"tokenizer": self.tokenizer.fingerprint}
        return tokenizer | {"data": self.train.fingerprint}

    def batches(self, start: int) -> Generator[DeviceBatch]:
        """Training batches on their devices, from the example `start`."""
        host = train_batches(
            self.train,
            batch_size=self.recipe.batch_size,
            start=start,
            num_workers=self.recipe.data.num_workers,
            prefetch=self.recipe.data.prefetch,
            rows=self._local_rows(self.recipe.batch_size),
        )
        with closing(host):
            for batch in host:
                yield self._place(batch, self.recipe.batch_size)

    @cached_property
    def _eval_step(self) -> Callable[[Any, Mapping[str, Any]], dict[str, jax.Array]]:
        loss = self.recipe.objective.make_loss(self.model, self.recipe.loss)
        return jit_eval_step(make_eval_step(loss), self.abstract.whole, self.mesh)

    def evaluate_params(
        self, params: Any, split: str, on_batch: Callable[[int], None] = lambda number: None
    ) -> dict[str, float]:
        """loss, tokens or images, and what else the objective reports, over a split.

        Args:
          on_batch: called with the number of each batch before it is read.
        """
        config = self.recipe.evaluate
        parts = batch_parts(self.mesh)
        batch_size = -(-(config.batch_size or self.recipe.batch_size) // parts) * parts
        batches = eval_batches(self.rows(split), batch_size=batch_size, rows=self._local_rows(batch_size))

        def placed() -> Generator[DeviceBatch]:
            for number, batch in zip(range(config.batches or 2**62), batches, strict=False):
                on_batch(number)
                yield self._place(batch, batch_size)

        return evaluate(self._eval_step, params, placed(), **self.recipe.objective.reports._asdict())

    def evaluate_state(self, state: TrainState, on_batch: Callable[[int], None] = lambda number: None) -> dict[str, float]:
        """The validation metrics of a state, by its average of parameters where it keeps one."""
        split = self.recipe.data.validation_split
        assert split is not None
        return self.evaluate_params(evaluated(state), split, on_batch)

    def utilization(self, tokens_per_second: float) -> float | None:
        """MFU at this speed; None where the device's peak is not known."""
        data = self.recipe.data
        flops = train_flops_per_token(self.recipe.model_config, 1 if isinstance(data, ImageDataConfig) else data.seq_len)
        return mfu(flops, tokens_per_second, list(self.mesh.devices.flat), self.recipe.model_config.compute_dtype)

    def _local_rows(self, batch_size: int) -> list[int]:
        """The rows of a batch that lie on this process's devices; where a mesh axis that does not split the batch goes over
        processes, those have the same."""
        indices = batch_sharding(self.mesh).addressable_devices_indices_map((batch_size,)).values()
        return sorted({row for index in indices if index for row in range(*index[0].indices(batch_size))})

    def _place(self, batch: Batch, batch_size: int) -> DeviceBatch:
        sharding = batch_sharding(self.mesh)
        if num_processes() == 1:
            return jax.device_put(batch, sharding)
        return {
            name: jax.make_array_from_process_local_data(sharding, rows, (batch_size, *rows.shape[1:]))
            for name, rows in batch.items()
        }


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
    _check_processes(mesh)
    if isinstance(recipe.data, ImageDataConfig):
        data = open_images(recipe.data, seed=recipe.seed)
        known = FromData(len(data.label_names), label_names=data.label_names)
    else:
        data = open_data(recipe.data, seed=recipe.seed, tokenizer=tokenizer)
        known = FromData(recipe.objective.vocab_size(data.tokenizer, recipe.data), first_start_id(data.tokenizer))
    check_size(recipe.model_config, known.size)
    return Job(resolved(recipe, known, recipe.steps), mesh, data)


def _check_processes(mesh: Mesh) -> None:
    """Every process must have a part in the mesh, or it could not take part in the run."""
    there = {device.process_index for device in mesh.devices.flat}
    if len(there) < num_processes():
        raise MeshError(
            f"the mesh must have devices of all {num_processes()} processes: its {mesh.devices.size} of {jax.device_count()} "
            f"devices are those of {len(there)}; choose mesh sizes and a batch_size that use all devices, or fewer processes"
        )
