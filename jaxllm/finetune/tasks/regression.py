"""Regression: a number for a text or for a pair of texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxllm.checkpoint import Direction
from jaxllm.data import TaskData
from jaxllm.data.example_rows import ExampleRows
from jaxllm.evaluate.metrics import Scores, correlation_scores
from jaxllm.finetune.tasks.classification import SHOWN, first_text
from jaxllm.finetune.tasks.task import Found, Labels, check_loss, check_read, check_stack, record_of
from jaxllm.finetune.tasks.text import TextTask
from jaxllm.models import ModelConfig
from jaxllm.training import LossConfig, LossSums
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports


@dataclass(frozen=True, kw_only=True)
class Regression(TextTask):
    """Give the number of a text, or of a pair; the loss is the mean squared error."""

    reports: ClassVar[Reports] = Reports(unit="examples", perplexity=False)
    metrics: ClassVar[Mapping[str, Direction]] = {"spearman": "highest", "pearson": "highest", "mean_squared_error": "lowest"}

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        check_read("Regression", check_stack("Regression", model, data, "sequence"))
        check_loss("Regression", loss, "chunk", "z_loss", "label_smoothing")

    def labels(self, data: TaskData) -> Labels:
        data.require(data.config.label_feature, "data.label_feature")
        return Labels(1)

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        return self._fields(data, Field((getattr(data, "seq_len", 0),), np.float32))

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> ExampleRows:
        return self._rows(data, model, split, seed, "score", 1)

    def sums(self, logits: Float[Array, "B T 1"], batch: DeviceBatch, config: LossConfig) -> LossSums:
        weights = batch["loss_weights"]
        loss = jnp.sum(weights * jnp.square(logits[:, :, 0] - batch["targets"]))
        zero = jnp.zeros_like(loss)
        return LossSums(loss, zero, jnp.sum(weights), zero, loss)

    def score(self, found: Found, rows: ExampleRows, data: TaskData) -> Scores:
        wanted, given = found["targets"].astype(np.float64), found["logits"][:, 0].astype(np.float64)
        errors = (wanted - given) ** 2
        more = {"mean_squared_error": lambda numbers: float(errors[numbers].mean())}
        return Scores(len(wanted), correlation_scores(wanted, given) | more)

    def show(self, found: Found, rows: ExampleRows, data: TaskData) -> str:
        """The first texts, each with the number that was found and its own."""
        shown = zip(found["items"][:SHOWN], found["logits"], found["targets"], strict=False)
        return "\n".join(
            f"[{given[0]:.2f} ({wanted:.2f})] {first_text(record_of(rows, int(item)), data.config)}"
            for item, given, wanted in shown
        )
