"""A run on this machine: its program with its data and its evaluations."""

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np

from jaxllm.data import (
    Batch,
    Data,
    ImageData,
    ImageDataConfig,
    Rows,
    TaskData,
    Tokenizer,
    eval_batches,
    train_batches,
)
from jaxllm.data.example_rows import ExampleRows
from jaxllm.data.example_table import ExampleTable
from jaxllm.data.rows import BatchRows, Share
from jaxllm.distributed import num_processes
from jaxllm.evaluate import evaluate
from jaxllm.evaluate.metrics import Scores
from jaxllm.finetune.tasks import Found, TextClassification, is_task
from jaxllm.finetune.tasks.classification import absent, class_counts
from jaxllm.finetune.tasks.mixed_rows import MixedRows
from jaxllm.finetune.tasks.task import tell_cut
from jaxllm.hardware import mfu
from jaxllm.models import train_flops_per_token
from jaxllm.recipe.compared import with_references
from jaxllm.recipe.program import DeviceBatch, Program, StepByShape, TrainStep
from jaxllm.sharding import batch_parts, batch_sharding
from jaxllm.training import TrainState, evaluated, jit_eval_step, make_eval_step, make_predict_step

PAIR = "text_pair"
"""What `jaxllm data build` calls the second text of a pair."""
FIRST_BATCHES = 100
"""Of these, the largest is compiled before a run begins."""


@dataclass(frozen=True)
class Job(Program):
    """A program with its data, on this machine."""

    data: Data | ImageData | TaskData
    first: Callable[["Job"], Any] | None = None
    """Makes the parameters that the run begins with, for an objective that compares with the model as it was."""
    references: dict[str, ExampleTable] = field(default_factory=dict)
    """For such an objective: by the fingerprint of some examples, the same with what that model says of them."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the data is no text."""
        return None if isinstance(self.data, ImageData) else self.data.tokenizer

    @cached_property
    def train(self) -> Rows:
        """The examples to train on, shuffled by the seed, without end."""
        return with_references(self, [self.plain_train])[0]

    @cached_property
    def plain_train(self) -> Rows:
        """The same without what the model as it was says of them."""
        return self.open(self.recipe.data.train_split, self.recipe.seed)

    def rows(self, split: str, *, seed: int | None = None) -> Rows:
        """The examples of any split; in its own order without a seed."""
        return with_references(self, [self.open(split, seed)])[0]

    def open(self, split: str, seed: int | None) -> Rows:
        """The examples of a split without what the model as it was says of them."""
        return self.recipe.objective.rows(self.data, self.recipe.model_config, split, seed=seed)

    @property
    def notes(self) -> list[str]:
        """What of the data is not as it stands in the set, in words. Of a task all splits that the run reads are opened for it.

        Raises:
          ValueError: a split with an example that cannot be used.
        """
        told = []
        if isinstance(self.plain_train, ExampleRows):
            splits = (self.recipe.data.validation_split, self.data.test_split)
            others: list[Any] = [self.open(split, None) for split in splits if split is not None]
            told = [tell_cut(rows) for rows in (self.plain_train, *others)]
            told.append(self._tell_absent(self.plain_train))
        if isinstance(self.plain_train, MixedRows):
            told.append(self.plain_train.told)
        if isinstance(self.data, TaskData) and self.data.config.pair_feature is None and PAIR in self.data.data_set.features:
            told.append(f"warning: the set has {PAIR}, which is not read: with data.pair_feature={PAIR} it is")
        if isinstance(self.data, TaskData) and self.data.config.packing != self.recipe.data.packing:  # type: ignore[union-attr]
            name = type(self.recipe.method).__name__
            told.append(f"one text a row, without data.packing: {name} puts tokens of its own before each")
        return [words for words in told if words is not None]

    def _tell_absent(self, rows: ExampleRows) -> str | None:
        """The classes that a run cannot learn, in words."""
        objective = self.recipe.objective
        if not isinstance(objective, TextClassification) or objective.several or not isinstance(self.data, TaskData):
            return None
        labels = objective.labels(self.data)
        missing = absent(class_counts(rows, labels), labels)
        return f"warning: {rows.records.split} has no example of {', '.join(missing[:20])}" if missing else None

    def compile_step(self) -> TrainStep:
        """Of batches that differ in shape, the program for the largest among the first ones; others when they are met."""
        if not isinstance(self.train, BatchRows):
            return super().compile_step()
        step, size = StepByShape(self), self.recipe.batch_size
        share = self._share(size, self.recipe.accumulate)
        starts = range(0, min(self.recipe.steps, FIRST_BATCHES) * size, size)
        first = (self.train.batch(np.arange(start, start + size), share) for start in starts)
        largest = max(first, key=lambda batch: sum(x.size for x in batch.values()))
        step.compiled(self._place(largest, size))
        return step

    @cached_property
    def identity(self) -> dict[str, str]:
        """Fingerprints of what a run must find again when it goes on."""
        tokenizer = {} if self.tokenizer is None else {"tokenizer": self.tokenizer.fingerprint}
        return tokenizer | {"data": self.plain_train.fingerprint}

    def batches(self, start: int) -> Generator[DeviceBatch]:
        """Training batches on their devices, from the example `start`."""
        host = train_batches(
            self.train,
            batch_size=self.recipe.batch_size,
            start=start,
            num_workers=self.recipe.data.num_workers,
            prefetch=self.recipe.data.prefetch,
            rows=self._local_rows(self.recipe.batch_size),
            share=self._share(self.recipe.batch_size, self.recipe.accumulate),
        )
        with closing(host):
            for batch in host:
                yield self._place(batch, self.recipe.batch_size)

    @cached_property
    def _eval_step(self) -> Callable[[Any, Mapping[str, Any]], dict[str, jax.Array]]:
        objective, loss = self.recipe.objective, self.recipe.loss
        model: Any = self.model
        if is_task(objective):
            step: Any = make_predict_step(objective.make_predict(model, loss))
        else:
            step = make_eval_step(objective.make_loss(self.model, loss))
        return self.jitted(lambda params, batch: step(model.prepare(params), batch))

    def jitted(self, step: Any) -> Callable[[Any, Mapping[str, Any]], dict[str, jax.Array]]:
        return jit_eval_step(step, self.abstract.whole, self.mesh)

    def evaluate_params(
        self, params: Any, split: str, on_batch: Callable[[int], None] = lambda number: None
    ) -> dict[str, float]:
        """loss, tokens or images or examples, and what else the objective reports, over a split.

        Args:
          on_batch: called with the number of each batch before it is read.
        """
        objective = self.recipe.objective
        if not is_task(objective):
            return self._evaluate(params, self.rows(split), on_batch, None, self.recipe.evaluate.batches)
        results, scores, _ = self.predict_split(params, split, on_batch, self.recipe.evaluate.batches)
        return results | scores.values()

    def predict_split(
        self, params: Any, split: str, on_batch: Callable[[int], None] = lambda number: None, batches: int | None = None
    ) -> tuple[dict[str, float], Scores, Found]:
        """For a task: the losses over a split, how good the predictions are, and the predictions.

        Args:
          batches: at most so many; by default all.
        """
        objective: Any = self.recipe.objective
        rows = self.rows(split)
        results, found = self.predict(params, rows, self._eval_step, on_batch, batches)
        scores = objective.score(found, rows, self.data)
        return results | {objective.reports.unit: float(scores.count)}, scores, found

    def predict(
        self,
        params: Any,
        rows: Rows,
        step: Any,
        on_batch: Callable[[int], None] = lambda number: None,
        batches: int | None = None,
    ) -> tuple[dict[str, float], Found]:
        """The losses over some examples, and what an evaluation step says of each."""
        predicted: list[Any] = []
        results = self._evaluate(params, rows, on_batch, predicted.append, batches, step)
        return results, by_item(predicted)

    def _evaluate(
        self,
        params: Any,
        rows: Rows,
        on_batch: Callable[[int], None],
        keep: Callable[[Any], None] | None,
        most: int | None,
        step: Any = None,
    ) -> dict[str, float]:
        config = self.recipe.evaluate
        parts = batch_parts(self.mesh)
        batch_size = -(-(config.batch_size or self.recipe.batch_size) // parts) * parts
        batches = eval_batches(rows, batch_size=batch_size, rows=self._local_rows(batch_size), share=self._share(batch_size))

        def placed() -> Generator[DeviceBatch]:
            for number, batch in zip(range(most or 2**62), batches, strict=False):
                on_batch(number)
                yield self._place(batch, batch_size)

        return evaluate(step or self._eval_step, params, placed(), keep=keep, **self.recipe.objective.reports._asdict())

    def evaluate_state(self, state: TrainState, on_batch: Callable[[int], None] = lambda number: None) -> dict[str, float]:
        """The validation metrics of a state, by its average of parameters where it keeps one."""
        split = self.recipe.data.validation_split
        assert split is not None
        return self.evaluate_params(evaluated(state), split, on_batch)

    def utilization(self, tokens_per_second: float) -> float | None:
        """MFU at this speed; None where the device's peak is not known."""
        data = self.recipe.data
        flops = train_flops_per_token(self.recipe.model_config, 1 if isinstance(data, ImageDataConfig) else data.seq_len)
        if isinstance(self.train, ExampleRows):
            flops *= self.train.tokens_per_item
        return mfu(flops, tokens_per_second, list(self.mesh.devices.flat), self.recipe.model_config.compute_dtype)

    def _local_rows(self, batch_size: int) -> list[int]:
        """The rows of a batch that lie on this process's devices; where a mesh axis that does not split the batch goes over
        processes, those have the same."""
        indices = batch_sharding(self.mesh).addressable_devices_indices_map((batch_size,)).values()
        return sorted({row for index in indices if index for row in range(*index[0].indices(batch_size))})

    def _share(self, batch_size: int, accumulate: int = 1) -> Share:
        """How the rows of a batch of examples lie on the mesh, whatever their number."""
        parts, stages, model = batch_parts(self.mesh), self.mesh.shape["stage"], self.recipe.model_config
        microbatches = (getattr(model, "microbatches", None) or 2 * stages) if stages > 1 else 1
        return Share(parts, tuple(self._local_rows(parts)), accumulate * microbatches)

    def place_all(self, batch: Batch) -> DeviceBatch:
        """Rows that every process has, on the devices; rows of zeros are added until the mesh divides them."""
        share, count = self._share(1), len(next(iter(batch.values())))
        size = -(-count // (share.parts * share.multiple)) * share.parts * share.multiple
        whole = {name: np.pad(rows, [(0, size - count)] + [(0, 0)] * (rows.ndim - 1)) for name, rows in batch.items()}
        return self._place({name: rows[self._local_rows(size)] for name, rows in whole.items()}, size)

    def _place(self, batch: Batch, batch_size: int) -> DeviceBatch:
        """A process's rows of a batch, on its devices; the whole batch has as many more as `batch_size` has."""
        sharding = batch_sharding(self.mesh)
        if num_processes() == 1:
            return jax.device_put(batch, sharding)
        times = batch_size // len(self._local_rows(batch_size))
        return {
            name: jax.make_array_from_process_local_data(sharding, rows, (times * len(rows), *rows.shape[1:]))
            for name, rows in batch.items()
        }


def by_item(predicted: list[dict[str, np.ndarray]]) -> Found:
    """What was said in some batches, by the examples' numbers; each array has as many values as tokens or rows were read."""
    marked = [(found["items"] > 0, found) for found in predicted]
    items = np.concatenate([found["items"][there] - 1 for there, found in marked])
    order = np.argsort(items, kind="stable")
    names = [name for name in predicted[0] if name != "items"]
    return {"items": items[order]} | {
        name: np.concatenate([found[name][there] for there, found in marked])[order] for name in names
    }
