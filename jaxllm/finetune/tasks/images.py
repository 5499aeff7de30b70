"""Image classification, measured as a task: what the objective of training says, with predictions, scores and a report."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxllm.data import ImageData
from jaxllm.evaluate.class_report import ClassReport, class_report
from jaxllm.evaluate.metrics import Scores, class_scores
from jaxllm.finetune.tasks.task import Found, Labels, Predict
from jaxllm.models import Model
from jaxllm.training import LossConfig, LossSums, cross_entropy
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.objectives import ImageClassification


@dataclass(frozen=True, kw_only=True)
class MeasuredImages(ImageClassification):
    """`ImageClassification` as an evaluation of all of a split sees it."""

    @classmethod
    def of(cls, objective: ImageClassification) -> "MeasuredImages":
        return cls(**vars(objective))

    def labels(self, data: ImageData) -> Labels:
        return Labels(len(data.label_names), data.label_names)

    def make_predict(self, model: Model, config: LossConfig) -> Predict:
        def predict(params: Any, batch: DeviceBatch) -> tuple[LossSums, dict[str, Array]]:
            output: Any = model.apply({"params": params}, self.normalized(batch["images"]))
            weights = batch["loss_weights"]
            sums = cross_entropy(output.logits[:, None], batch["labels"][:, None], weights[:, None], config)
            items = (weights > 0).astype(jnp.int32)
            return sums, {"items": items, "targets": batch["labels"], "labels": output.logits.argmax(axis=-1)}

        return predict

    def score(self, found: Found, rows: Any, data: ImageData) -> Scores:
        wanted, given = found["targets"].astype(np.int64), found["labels"].astype(np.int64)
        return Scores(len(wanted), class_scores(wanted, given, len(data.label_names)))

    def report(self, found: Found, rows: Any, data: ImageData) -> ClassReport:
        return class_report(found["targets"].astype(np.int64), found["labels"].astype(np.int64), data.label_names)

    def show(self, found: Found, rows: Any, data: ImageData) -> str:
        """Images are no words."""
        return ""
