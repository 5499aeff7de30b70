"""What tasks with one label a text share: a text, or a pair, with its label at the token that stands for it."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jax import Array
from jaxtyping import Float, Int32

from jaxllm.data import TaskData, TaskDataConfig
from jaxllm.data.example_rows import ExampleRows
from jaxllm.data.example_table import Item
from jaxllm.finetune.tasks.encode import encode_text
from jaxllm.finetune.tasks.task import EncodeRecord, Predict, TaskDefaults, open_rows, run_stack, task_data
from jaxllm.models import HeadConfig, ModelConfig, Transformer, TransformerConfig, label_logits
from jaxllm.training import LossConfig, LossSums
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field

Target = Literal["class", "classes", "score"]
BITS = 31
"""Classes of a text that share an integer, where it may have several."""


@dataclass(frozen=True)
class EncodeText(EncodeRecord):
    """A record as one item: its text, and its target where the model's head reads it."""

    text: str
    pair: str | None
    label: str
    target: Target
    num_labels: int
    last: bool
    """Whether the last token stands for the text; else the first."""
    token_types: bool

    def __call__(self, record: dict[str, Any]) -> list[Item]:
        pair = None if self.pair is None else record[self.pair]
        ids, types, cut = encode_text(self.tokenizer, record[self.text], pair, self.limit)
        place = len(ids) - 1 if self.last else 0
        value = self._value(record[self.label])
        targets = np.zeros((len(ids), *value.shape), value.dtype)
        targets[place] = value
        weights = np.zeros(len(ids), np.float32)
        weights[place] = 1
        arrays = {"tokens": ids, "targets": targets, "loss_weights": weights}
        return [Item(arrays | ({"token_types": types} if self.token_types else {}), cut)]

    def _value(self, label: Any) -> np.ndarray:
        if self.target == "score":
            if not np.isfinite(label):
                raise ValueError(f"the score must be a number: got {label}")
            return np.array(label, np.float32)
        labels = label if isinstance(label, list) else [label]
        unknown = [each for each in labels if not 0 <= each < self.num_labels]
        if unknown:
            raise ValueError(
                f"labels must be numbers of the {self.num_labels} classes, from 0: got {unknown[0]}; where a split has no "
                "labels, set it to None in `data`"
            )
        if self.target == "class":
            return np.array(label, np.int32)
        bits = np.zeros(-(-self.num_labels // BITS), np.int32)
        for each in labels:
            bits[each // BITS] |= 1 << (each % BITS)
        return bits


@dataclass(frozen=True, kw_only=True)
class TextTask(TaskDefaults):
    """Read a text, or a pair of them, and say one thing about it."""

    read: Literal["first", "last", "mean"] | None = None
    """Which hidden state stands for the text. By default the first token's, of a causal model the last one's."""
    pooler: bool | None = None
    """Put a dense layer and tanh before the head. By default as BERT does, in encoders only."""

    def headed(self, model: ModelConfig) -> ModelConfig:
        """With a new head, whose labels the data tells."""
        if not isinstance(model, TransformerConfig):
            return model
        pooler = not model.causal if self.pooler is None else self.pooler
        read = self.read or ("last" if model.causal else "first")
        return dataclasses.replace(model, head=HeadConfig(kind="sequence", pooler=pooler, read=read))

    def _fields(self, data: AnyDataConfig, target: Field) -> dict[str, Field]:
        shape = (task_data(type(self).__name__, data).seq_len,)
        whole = {name: Field(shape) for name in ("tokens", "positions", "segment_ids")}
        return whole | {"targets": target, "loss_weights": Field(shape, np.float32)}

    def _rows(
        self, data: AnyData, model: ModelConfig, split: str, seed: int | None, target: Target, num_labels: int
    ) -> ExampleRows:
        assert isinstance(data, TaskData) and isinstance(model, TransformerConfig)
        config: TaskDataConfig = data.config
        for name in ("text_feature", "pair_feature", "label_feature"):
            if (feature := getattr(config, name)) is not None:
                data.require(feature, f"data.{name}")
        encode = EncodeText(
            data.tokenizer,
            config.seq_len,
            config.text_feature,
            config.pair_feature,
            config.label_feature,
            target,
            num_labels,
            model.head.read == "last",
            model.token_types is not None and model.token_types > 1 and config.pair_feature is not None,
        )
        return open_rows(data, split, encode, packed=config.packing, seed=seed)

    def sums(self, logits: Float[Array, "B T C"], batch: DeviceBatch, config: LossConfig) -> LossSums:
        """The loss of a batch, from what the head says at every token."""
        raise NotImplementedError

    def make_loss(self, model: Any, config: LossConfig) -> Loss:
        def loss(params: Any, batch: DeviceBatch, dropout_key: Array | None) -> LossSums:
            hidden, finish = run_stack(model, params, batch, dropout_key)
            return finish(self.sums(label_logits(model.config, params, hidden, batch["segment_ids"]), batch, config))

        return loss

    def make_predict(self, model: Transformer, config: LossConfig) -> Predict:
        def predict(params: Any, batch: DeviceBatch) -> tuple[LossSums, dict[str, Array]]:
            hidden, finish = run_stack(model, params, batch, None)
            logits = label_logits(model.config, params, hidden, batch["segment_ids"])
            found = {"items": batch["items"], "targets": batch["targets"], "logits": logits}
            return finish(self.sums(logits, batch, config)), found

        return predict


def class_bits(bits: Int32[np.ndarray, "n words"], num_labels: int) -> np.ndarray:
    """Which classes are meant, [n, num_labels]."""
    classes = np.arange(num_labels)
    return (bits[:, classes // BITS] >> (classes % BITS) & 1).astype(bool)
