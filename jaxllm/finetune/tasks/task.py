"""What every task offers: an objective over labelled examples that says how to read a pretrained model, and how good it is.

Some offer more, which is asked for where it is there: `fields_for(model, data)`, the arrays of a batch where they depend on the
model; `metrics_of(data)`, metrics whose names depend on the data; and those that compare with the model as it was
`compares(model)`, whether the rows must bring along what that says, `make_reference` and `reference_name`, as
`PreferenceTuning` has them.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeGuard

import jax
import numpy as np
from jax import Array

from jaxllm.checkpoint import Direction
from jaxllm.data import TaskData, TaskDataConfig, Tokenizer
from jaxllm.data.example_rows import ExampleRows
from jaxllm.data.example_table import Encode, encode_records
from jaxllm.evaluate.metrics import Scores
from jaxllm.models import ModelConfig, Transformer, TransformerConfig
from jaxllm.models.layers import RESIDUAL, dropout
from jaxllm.training import LossConfig, LossSums
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.loss import with_router_losses
from jaxllm.training.objectives.objective import AnyDataConfig, Objective

Found = dict[str, np.ndarray]
"""What a model says of examples: `items`, their numbers, ascending; other arrays have the same first axis."""
Predict = Callable[[Any, DeviceBatch], tuple[LossSums, dict[str, Array]]]
"""`predict(params, batch) -> (LossSums, arrays by row)`; `items` of the batch says whose each value is."""


class Task(Objective, Protocol):
    """An objective that is measured on what it predicts."""

    @property
    def metrics(self) -> Mapping[str, Direction]:
        """What `score` gives, and whether a high or a low value is good; the first is what the task is known by."""
        ...

    def headed(self, model: ModelConfig) -> ModelConfig:
        """The config of a pretrained model with the head that the task needs, its labels still to be told."""
        ...

    def labels(self, data: Any) -> "Labels | None":
        """What the model's labels are; None for a task without."""
        ...

    def make_predict(self, model: Any, config: LossConfig) -> Predict: ...

    def score(self, found: Found, rows: Any, data: Any) -> Scores:
        """How good the predictions are, on the host."""
        ...

    def show(self, found: Found, rows: Any, data: Any) -> str:
        """A few examples with what was found, in words."""
        ...


def is_task(objective: Any) -> TypeGuard[Task]:
    """Whether an objective is measured on what it predicts."""
    return hasattr(objective, "make_predict")


class Labels(NamedTuple):
    count: int
    names: tuple[str, ...] | None = None


class TaskDefaults:
    """What a task offers that leaves the model's head as it is, has no labels, and counts examples."""

    def headed(self, model: ModelConfig) -> ModelConfig:
        return model

    def labels(self, data: Any) -> Labels | None:
        return None

    def vocab_size(self, tokenizer: Tokenizer, data: AnyDataConfig) -> int:
        return tokenizer.vocab_size

    def tokens(self, data: AnyDataConfig) -> int:
        return 1


@dataclass(frozen=True)
class EncodeRecord:
    """What makes items of a record: how, its `repr` says, the tokenizer apart."""

    tokenizer: Tokenizer = field(repr=False)
    limit: int
    """Most tokens of an item."""

    @property
    def fingerprint(self) -> str:
        """Of all that decides the result."""
        return hashlib.sha256(f"{self!r} {self.tokenizer.fingerprint}".encode()).hexdigest()


def task_data(name: str, data: AnyDataConfig) -> TaskDataConfig:
    """The config again, once it is known to be of labelled examples."""
    if not isinstance(data, TaskDataConfig):
        raise ValueError(f"objective {name} reads labelled examples: got {type(data).__name__} as data; use a TaskDataConfig")
    return data


def check_stack(name: str, model: ModelConfig, data: AnyDataConfig, kind: str) -> TransformerConfig:
    """The config again, once it is known to be of one stack with a head of this kind, as long as the data's texts."""
    config = task_data(name, data)
    if not isinstance(model, TransformerConfig) or model.cross_attention:
        raise ValueError(f"objective {name} needs an encoder or a decoder alone: got {type(model).__name__} as model")
    if model.head.kind != kind:
        raise ValueError(
            f"objective {name} needs model.head.kind={kind!r}: got {model.head.kind!r}; name a pretrained model and leave "
            "`model` out to have it"
        )
    if config.seq_len > model.context_len:
        raise ValueError(
            f"data.seq_len must not exceed model.context_len: got {config.seq_len} and {model.context_len}; shorten it"
        )
    return model


def check_read(name: str, model: TransformerConfig) -> None:
    """A causal model must not read a text from its first token, which has seen nothing of it."""
    if model.causal and model.head.read == "first":
        raise ValueError(f"objective {name} needs model.head.read='last' of a causal model: got 'first'")


def check_loss(name: str, loss: LossConfig, *fields: str) -> None:
    """Refuse what the loss of the task would leave out."""
    for own in fields:
        if getattr(loss, own):
            raise ValueError(f"objective {name} has no loss.{own}: got {getattr(loss, own)}; leave it out")


def open_rows(
    data: TaskData, split: str, encode: Encode, *, packed: bool, seed: int | None, row_len: int | None = None
) -> ExampleRows:
    """The examples of a split, encoded.

    Raises:
      ValueError: a record that cannot be used, or one that is too long where the data's config refuses it.
    """
    records = data.records(split)
    table = encode_records(records, encode)
    config = data.config
    if config.too_long == "refuse":
        empty = np.setdiff1d(np.arange(len(records)), table.records)
        long = np.union1d(table.records[table.cut], empty)
        if len(long):
            raise ValueError(
                f"examples must have at most data.seq_len={config.seq_len} tokens, and no part more than the task's own limit, "
                f"since data.too_long='refuse': {records.describe(int(long[0]))} has more, and {len(long) - 1} others; raise "
                "data.seq_len or that limit, or cut them with data.too_long='truncate'"
            )
    return ExampleRows(table, records, row_len or config.seq_len, packed, seed, config.too_long == "drop")


def run_stack(
    model: Transformer, params: Any, batch: DeviceBatch, dropout_key: Array | None
) -> tuple[Array, Callable[[LossSums], LossSums]]:
    """The last hidden states [B, T, D] with values dropped, and what adds the losses of routers."""
    types = {"token_types": batch["token_types"]} if "token_types" in batch else {}
    output: Any = model.apply(
        {"params": params},
        batch["tokens"],
        positions=batch["positions"],
        segment_ids=batch["segment_ids"],
        **types,
        dropout_key=dropout_key,
        unembed=False,
    )
    key = None if dropout_key is None else jax.random.fold_in(dropout_key, model.config.num_layers + 1)
    hidden = dropout(output.hidden, model.config.dropout, key, 0, RESIDUAL)
    return hidden, lambda sums: with_router_losses(sums, model.config, output, batch["segment_ids"])


def record_of(rows: ExampleRows, item: int) -> dict[str, Any]:
    """The record that an item is from."""
    return rows.records[int(rows.table.records[item])]


def tell_cut(rows: ExampleRows) -> str | None:
    """How many examples were too long, and how many had nothing to learn left, in words; None where none was."""
    table, total = rows.table, len(rows.records)
    cut, known = (len(np.unique(numbers)) for numbers in (table.records[table.cut], table.records))
    empty = total - known
    told = []
    if cut:
        full = np.max([table.lengths(text)[table.cut] for text in table.texts], axis=0) >= rows.row_len
        part = "" if full.all() else ", or in a part than the task's limit for that,"
        done = "left out" if rows.drop_cut and rows.seed is not None else "cut"
        told.append(f"{cut:,} of {known:,} examples are longer than {rows.row_len} tokens{part} and {done}")
    if empty:
        told.append(f"{empty:,} of {total:,} records are left out, with nothing to learn in their first {rows.row_len} tokens")
    return f"{rows.records.split}: {'; '.join(told)}" if told else None
