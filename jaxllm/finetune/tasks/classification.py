"""Text classification: name the class of a text or of a pair of texts, or all classes that it has."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jaxllm.checkpoint import Direction
from jaxllm.data import TaskData, TaskDataConfig
from jaxllm.data.example_rows import ExampleRows
from jaxllm.evaluate.class_report import ClassReport, class_report, label_report
from jaxllm.evaluate.metrics import Scores, class_scores, set_scores
from jaxllm.finetune.tasks.task import Found, Labels, check_loss, check_read, check_stack, record_of
from jaxllm.finetune.tasks.text import BITS, TextTask, class_bits
from jaxllm.models import ModelConfig, TransformerConfig
from jaxllm.training import LossConfig, LossSums, cross_entropy
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports

SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class TextClassification(TextTask):
    """Name the class of a text, or of a pair."""

    reports: ClassVar[Reports] = Reports(unit="examples", perplexity=False, accuracy=True)

    several: bool = False
    """Whether a text may have any number of classes, each decided by itself with a sigmoid."""
    class_weights: tuple[float, ...] | Literal["balanced"] | None = None
    """Factor on the loss of each class's texts in training; balanced: texts / (classes · texts of the class)."""

    def __post_init__(self) -> None:
        if self.several and self.class_weights is not None:
            raise ValueError("objective.class_weights is for one class a text: leave it out with objective.several")
        if isinstance(self.class_weights, tuple) and min(self.class_weights, default=0) <= 0:
            raise ValueError(f"objective.class_weights must be positive: got {self.class_weights}")

    @property
    def metrics(self) -> Mapping[str, Direction]:
        return {"accuracy": "highest", "macro_f1": "highest", "micro_f1" if self.several else "matthews": "highest"}

    def headed(self, model: ModelConfig) -> ModelConfig:
        """With a new head, whose labels the data tells."""
        headed = super().headed(model)
        if not self.several or not isinstance(headed, TransformerConfig):
            return headed
        return dataclasses.replace(headed, head=dataclasses.replace(headed.head, several=True))

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        check_read("TextClassification", check_stack("TextClassification", model, data, "sequence"))
        check_loss("TextClassification", loss, "chunk", *(("z_loss",) if self.several else ()))

    def labels(self, data: TaskData) -> Labels:
        data.require(data.config.label_feature, "data.label_feature")
        names = data.label_names(data.config.label_feature)
        if isinstance(self.class_weights, tuple) and len(self.class_weights) != len(names):
            raise ValueError(
                f"objective.class_weights must be one for each class: got {len(self.class_weights)} for {len(names)}: "
                f"{', '.join(names[:20])}"
            )
        return Labels(len(names), names)

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        seq_len = getattr(data, "seq_len", 0)
        return self._fields(data, Field((seq_len, 1) if self.several else (seq_len,)))

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> ExampleRows:
        assert isinstance(data, TaskData) and isinstance(model, TransformerConfig)
        labels = self.labels(data)
        first = data.records(split)[0][data.config.label_feature]
        if isinstance(first, list) != self.several:
            there = "several classes" if isinstance(first, list) else "one class"
            raise ValueError(
                f"the texts of {data.config.dataset} have {there} each: set objective.several={not self.several} for that"
            )
        rows = self._rows(data, model, split, seed, "classes" if self.several else "class", labels.count)
        if seed is None or self.class_weights is None:
            return rows
        if isinstance(self.class_weights, tuple):
            return dataclasses.replace(rows, class_weights=self.class_weights)
        return dataclasses.replace(rows, class_weights=balanced(rows, labels))

    def sums(self, logits: Float[Array, "B T C"], batch: DeviceBatch, config: LossConfig) -> LossSums:
        if self.several:
            return several_loss(logits, batch["targets"], batch["loss_weights"], config.label_smoothing)
        return cross_entropy(logits, batch["targets"], batch["loss_weights"], config)

    def score(self, found: Found, rows: ExampleRows, data: TaskData) -> Scores:
        logits, targets = found["logits"], found["targets"]
        if self.several:
            return Scores(len(logits), set_scores(class_bits(targets, logits.shape[1]), logits > 0))
        return Scores(len(logits), class_scores(targets, logits.argmax(axis=1), logits.shape[1]))

    def report(self, found: Found, rows: ExampleRows, data: TaskData) -> ClassReport:
        """By class, or by label where a text may have several."""
        names, logits, targets = data.label_names(data.config.label_feature), found["logits"], found["targets"]
        if self.several:
            return label_report(class_bits(targets, logits.shape[1]), logits > 0, names)
        return class_report(targets, logits.argmax(axis=1), names)

    def show(self, found: Found, rows: ExampleRows, data: TaskData) -> str:
        """The first texts, each with the classes that were found, and where they are others, its own."""
        names, lines = data.label_names(data.config.label_feature), []
        for item, logits, target in zip(found["items"][:SHOWN], found["logits"], found["targets"], strict=False):
            record = record_of(rows, int(item))
            there = class_bits(target[None], len(names))[0] if self.several else np.arange(len(names)) == target
            here = logits > 0 if self.several else np.arange(len(names)) == logits.argmax()
            told = [", ".join(name for name, yes in zip(names, each, strict=True) if yes) or "none" for each in (here, there)]
            lines.append(f"[{told[0] if told[0] == told[1] else f'{told[0]} ({told[1]})'}] {first_text(record, data.config)}")
        return "\n".join(lines)


def first_text(record: dict[str, Any], config: TaskDataConfig) -> str:
    """What is read of a record, in one line."""
    texts = [record[config.text_feature], *([record[config.pair_feature]] if config.pair_feature else [])]
    return " | ".join(" ".join(text.split()) for text in texts)[:200]


def class_counts(rows: ExampleRows, labels: Labels) -> Int[np.ndarray, " C"]:
    """Texts of each class that an epoch has."""
    table = rows.table
    there = np.repeat(np.isin(np.arange(len(table)), rows.items), table.lengths(""))
    return np.bincount(table.array("targets")[there & (table.array("loss_weights") > 0)], minlength=labels.count or 0)


def absent(counts: Int[np.ndarray, " C"], labels: Labels) -> list[str]:
    """Names of the classes that no text has."""
    return [str(labels.names[number] if labels.names else number) for number in np.flatnonzero(counts == 0)]


def balanced(rows: ExampleRows, labels: Labels) -> tuple[float, ...]:
    """Texts / (classes · texts of the class), so that all classes count the same in sum."""
    counts = class_counts(rows, labels)
    if missing := absent(counts, labels):
        raise ValueError(
            f"objective.class_weights='balanced' needs examples of every class in {rows.records.split}: there is none of "
            f"{missing[0]}; give the weights, or other data"
        )
    return tuple((counts.sum() / (labels.count * counts)).tolist())


def several_loss(logits: Float[Array, "B T C"], targets: Any, weights: Float[Array, "B T"], smoothing: float) -> LossSums:
    """Σ w · mean over classes of -log σ(± logit), in nats; `correct` counts texts whose classes are all right."""
    classes = np.arange(logits.shape[-1])
    there = (targets[..., classes // BITS] >> jnp.asarray(classes % BITS, jnp.int32)[None, None, :]) & 1
    losses = jnp.mean(jax.nn.softplus(logits) - logits * there, axis=-1)
    total = losses + smoothing * jnp.mean(logits * (there - 0.5), axis=-1)
    right = jnp.all((logits > 0) == (there > 0), axis=-1)
    loss = jnp.sum(weights * losses)
    return LossSums(loss, jnp.zeros_like(loss), jnp.sum(weights), jnp.sum(weights * right), jnp.sum(weights * total))
