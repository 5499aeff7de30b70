"""Token classification: a label for each word, such as the kind of name that it is part of."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jax import Array

from jaxllm.checkpoint import Direction
from jaxllm.data import TaskData
from jaxllm.data.example_rows import ExampleRows
from jaxllm.data.example_table import Item
from jaxllm.evaluate.class_report import ClassReport, entity_report
from jaxllm.evaluate.metrics import Scores, entity_scores
from jaxllm.finetune.tasks.classification import SHOWN
from jaxllm.finetune.tasks.encode import around, encode_words
from jaxllm.finetune.tasks.task import (
    EncodeRecord,
    Found,
    Labels,
    Predict,
    TaskDefaults,
    check_loss,
    check_stack,
    open_rows,
    record_of,
    run_stack,
    task_data,
)
from jaxllm.models import HeadConfig, ModelConfig, Transformer, TransformerConfig, label_logits
from jaxllm.training import LossConfig, LossSums, cross_entropy
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports


@dataclass(frozen=True)
class EncodeWords(EncodeRecord):
    """A record as one item: its words, each with its label at the first of its tokens."""

    words: str
    tags: str
    num_labels: int
    last: bool
    """Whether a word's label stands at the last of its tokens, which a causal model has read the word by."""

    def __call__(self, record: dict[str, Any]) -> list[Item]:
        words, tags = record[self.words], record[self.tags]
        if not words or len(words) != len(tags):
            raise ValueError(f"there must be words, and as many labels: got {len(words)} and {len(tags)}")
        unknown = [tag for tag in tags if not 0 <= tag < self.num_labels]
        if unknown:
            raise ValueError(f"labels must be numbers of the {self.num_labels} classes, from 0: got {unknown[0]}")
        ids, owners = encode_words(self.tokenizer, words)
        before, _, after = around(self.tokenizer, pair=False)
        room = self.limit - len(before) - len(after)
        if room < 1:
            raise ValueError(
                f"data.seq_len must have room for {len(before) + len(after)} special tokens and one more: got {self.limit}"
            )
        cut = len(ids) > room
        ids, owner = ids[:room], np.array(owners[:room])
        if not ids:
            raise ValueError(f"words must have at least one token: got {' '.join(words)[:60]!r}; leave them out of the data")
        border = owner[1:] != owner[:-1]
        marked = np.append(border, True) if self.last else np.insert(border, 0, True)
        weights, targets = (np.zeros(len(before) + len(ids) + len(after), kind) for kind in (np.float32, np.int32))
        places = len(before) + np.flatnonzero(marked)
        weights[places], targets[places] = 1, np.array(tags)[owner[marked]]
        word = np.zeros_like(targets)
        word[places] = owner[marked]
        tokens = np.array([*before, *ids, *after], np.int32)
        return [Item({"tokens": tokens, "targets": targets, "loss_weights": weights, "words": word}, cut)]


@dataclass(frozen=True, kw_only=True)
class TokenClassification(TaskDefaults):
    """Name the label of each word; the data has them apart (`data.text_feature="tokens"`, `data.label_feature="tags"`)."""

    reports: ClassVar[Reports] = Reports(unit="examples", perplexity=False, accuracy=True)
    metrics: ClassVar[Mapping[str, Direction]] = {
        "entity_f1": "highest", "entity_precision": "highest", "entity_recall": "highest", "accuracy": "highest",
    }  # fmt: skip

    missing: str = "O"
    """What a word counts as that was cut off with the end of a text."""

    def headed(self, model: ModelConfig) -> ModelConfig:
        """With a new head, whose labels the data tells."""
        if not isinstance(model, TransformerConfig):
            return model
        return dataclasses.replace(model, head=HeadConfig(kind="tokens"))

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        check_stack("TokenClassification", model, data, "tokens")
        check_loss("TokenClassification", loss, "chunk")
        if task_data("TokenClassification", data).pair_feature is not None:
            raise ValueError("objective TokenClassification reads one text: leave data.pair_feature out")

    def labels(self, data: TaskData) -> Labels:
        data.require(data.config.text_feature, "data.text_feature")
        data.require(data.config.label_feature, "data.label_feature")
        names = data.label_names(data.config.label_feature)
        return Labels(len(names), names)

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        shape = (task_data("TokenClassification", data).seq_len,)
        whole = {name: Field(shape) for name in ("tokens", "positions", "segment_ids", "targets", "words")}
        return whole | {"loss_weights": Field(shape, np.float32)}

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> ExampleRows:
        assert isinstance(data, TaskData) and isinstance(model, TransformerConfig)
        config = data.config
        labels = self.labels(data)
        if not isinstance(data.records(split)[0][config.text_feature], list):
            raise ValueError(
                f"objective TokenClassification reads words that are apart: {config.text_feature!r} of {config.dataset} holds "
                'whole texts; choose the feature with data.text_feature, as "tokens"'
            )
        encode = EncodeWords(
            data.tokenizer, config.seq_len, config.text_feature, config.label_feature, labels.count, model.causal
        )
        return open_rows(data, split, encode, packed=config.packing, seed=seed)

    def make_loss(self, model: Any, config: LossConfig) -> Loss:
        def loss(params: Any, batch: DeviceBatch, dropout_key: Array | None) -> LossSums:
            hidden, finish = run_stack(model, params, batch, dropout_key)
            logits = label_logits(model.config, params, hidden, batch["segment_ids"])
            return finish(cross_entropy(logits, batch["targets"], batch["loss_weights"], config))

        return loss

    def make_predict(self, model: Transformer, config: LossConfig) -> Predict:
        def predict(params: Any, batch: DeviceBatch) -> tuple[LossSums, dict[str, Array]]:
            hidden, finish = run_stack(model, params, batch, None)
            logits = label_logits(model.config, params, hidden, batch["segment_ids"])
            sums = finish(cross_entropy(logits, batch["targets"], batch["loss_weights"], config))
            return sums, {"items": batch["items"], "words": batch["words"], "labels": logits.argmax(axis=-1)}

        return predict

    def score(self, found: Found, rows: ExampleRows, data: TaskData) -> Scores:
        told = self._sentences(found, rows, data)
        return Scores(len(told), entity_scores([tags for _, tags, _ in told], [labels for _, _, labels in told]))

    def report(self, found: Found, rows: ExampleRows, data: TaskData) -> ClassReport:
        """By kind of entity."""
        told = self._sentences(found, rows, data)
        return entity_report([tags for _, tags, _ in told], [labels for _, _, labels in told])

    def show(self, found: Found, rows: ExampleRows, data: TaskData) -> str:
        """The first texts, each word that has a label or was given one with both."""
        lines = []
        for words, tags, labels in self._sentences(found, rows, data)[:SHOWN]:
            marks = [f"/{label}" if label == tag else f"/{label} ({tag})" for tag, label in zip(tags, labels, strict=True)]
            lines.append(" ".join(w if m == f"/{self.missing}" else f"{w}{m}" for w, m in zip(words, marks, strict=True)))
        return "\n".join(lines)

    def _sentences(self, found: Found, rows: ExampleRows, data: TaskData) -> list[tuple[list[str], list[str], list[str]]]:
        """The words of each record, their labels, and those that were found."""
        config = data.config
        names = data.label_names(config.label_feature)
        items, firsts = np.unique(found["items"], return_index=True)
        ends = np.append(firsts[1:], len(found["items"]))
        told = []
        for item, first, end in zip(items, firsts, ends, strict=True):
            record = record_of(rows, int(item))
            labels = [self.missing] * len(record[config.label_feature])
            for word, label in zip(found["words"][first:end], found["labels"][first:end], strict=True):
                labels[word] = names[label]
            told.append((record[config.text_feature], [names[tag] for tag in record[config.label_feature]], labels))
        return told
