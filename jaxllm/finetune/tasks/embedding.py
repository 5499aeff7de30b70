"""Sentence embedding: vectors of texts whose cosine says how much two texts have in common (arXiv:1908.10084).

contrastive: each text's own partner is to be the likeliest among the partners of all texts of the batch, and the negatives,
if the data has them (arXiv:1705.00652). cosine: the cosine of a pair is to be its score.
"""

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
from jaxllm.data.example_table import Item
from jaxllm.data.source import find_set
from jaxllm.evaluate.metrics import Scores, correlation_scores, mean_of
from jaxllm.finetune.tasks.classification import SHOWN, first_text
from jaxllm.finetune.tasks.encode import encode_text
from jaxllm.finetune.tasks.task import (
    EncodeRecord,
    Found,
    Predict,
    TaskDefaults,
    check_loss,
    open_rows,
    record_of,
    task_data,
)
from jaxllm.finetune.tasks.task import check_stack as check_model
from jaxllm.models import HeadConfig, ModelConfig, Transformer, TransformerConfig
from jaxllm.sharding import einsum, shard
from jaxllm.training import LossConfig, LossSums
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports

F32 = jnp.dtype(jnp.float32)


@dataclass(frozen=True)
class EncodePair(EncodeRecord):
    """A record as one item: its two texts, the negative if there is one, and the score."""

    text: str
    pair: str
    negative: bool
    score: str | None
    lowest: float
    highest: float
    bounded: bool

    def __call__(self, record: dict[str, Any]) -> list[Item]:
        arrays, cut = {}, False
        names = {"": self.text, "pair_": self.pair} | ({"negative_": "negative"} if self.negative else {})
        for name, feature in names.items():
            encoded = encode_text(self.tokenizer, record[feature], None, self.limit)
            arrays[f"{name}tokens"], cut = encoded.ids, cut or encoded.cut
        score = 0.0
        if self.score is not None:
            score = (float(record[self.score]) - self.lowest) / (self.highest - self.lowest)
            if self.bounded and not 0 <= score <= 1:
                raise ValueError(
                    f"scores must lie from {self.lowest} to {self.highest}: got {record[self.score]}; set "
                    "objective.lowest and objective.highest"
                )
        arrays |= {"scores": np.array(score, np.float32), "loss_weights": np.array(1, np.float32)}
        return [Item(arrays, cut)]


@dataclass(frozen=True, kw_only=True)
class SentenceEmbedding(TaskDefaults):
    """Make vectors of texts whose cosine says how much they have in common."""

    reports: ClassVar[Reports] = Reports(unit="examples", perplexity=False)
    metrics: ClassVar[Mapping[str, Direction]] = {"spearman": "highest", "pearson": "highest", "top_1": "highest"}

    loss: Literal["contrastive", "cosine"] = "contrastive"
    """contrastive: a text's partner against the partners of all texts of the batch (of a part of it, where gradients are
    accumulated). cosine: the squared difference of a pair's cosine and its score."""
    temperature: float = 0.05
    """What cosines are divided by before the softmax, for contrastive."""
    pooling: Literal["mean", "first"] = "mean"
    """What a text's vector is: the mean of its tokens' hidden states, or the first token's."""
    lowest: float = 0.0
    """Score of texts that have nothing in common."""
    highest: float = 5.0
    """Score of texts that mean the same."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"objective.temperature must be positive: got {self.temperature}")
        if self.lowest >= self.highest:
            raise ValueError(f"objective.lowest must be under objective.highest: got {self.lowest} and {self.highest}")

    def metrics_of(self, data: TaskDataConfig) -> Mapping[str, Direction]:
        """Of a set with scores how they agree with the cosines, of one without them `top_1`; all where the set is not there."""
        try:
            scored = self.loss == "cosine" or has_scores(data)
        except FileNotFoundError:  # as where a run is planned
            return self.metrics
        return {name: best for name, best in self.metrics.items() if scored == (name != "top_1")}

    def headed(self, model: ModelConfig) -> ModelConfig:
        """Without a head."""
        return dataclasses.replace(model, head=HeadConfig(kind="none")) if isinstance(model, TransformerConfig) else model

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        config = check_model("SentenceEmbedding", model, data, "none")
        if config.causal and self.pooling == "first":
            raise ValueError("objective SentenceEmbedding needs objective.pooling='mean' of a causal model: got 'first'")
        if task_data("SentenceEmbedding", data).pair_feature is None:
            raise ValueError("objective SentenceEmbedding needs data.pair_feature, the second text of each pair: got none")
        check_loss("SentenceEmbedding", loss, "chunk", "z_loss", "label_smoothing")

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        shape = (task_data("SentenceEmbedding", data).seq_len,)
        names = [f"{text}{name}" for text in ("", "pair_") for name in ("tokens", "positions", "segment_ids")]
        more = {"scores": Field((), np.float32), "loss_weights": Field((), np.float32)}
        return {name: Field(shape) for name in names} | more

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> ExampleRows:
        assert isinstance(data, TaskData) and data.config.pair_feature is not None
        config, pair, there = data.config, data.config.pair_feature, data.data_set.features
        data.require(config.text_feature, "data.text_feature")
        data.require(pair, "data.pair_feature")
        scored = config.label_feature in there
        if self.loss == "cosine" and not scored:
            data.require(config.label_feature, "data.label_feature")
        if scored and data.data_set.holds_classes(config.label_feature):
            raise ValueError(
                "objective SentenceEmbedding needs a number for how alike two texts are, and "
                f"data.label_feature={config.label_feature!r} holds classes: where all pairs belong together, name a feature "
                "that is not there (none), else keep those that do"
            )
        encode = EncodePair(
            data.tokenizer,
            config.seq_len,
            config.text_feature,
            pair,
            "negative" in there and self.loss == "contrastive",
            config.label_feature if scored else None,
            self.lowest,
            self.highest,
            self.loss == "cosine",
        )
        return open_rows(data, split, encode, packed=False, seed=seed)

    def vectors(self, model: Transformer, params: Any, batch: DeviceBatch, key: Array | None) -> Float[Array, "B texts D"]:
        """One vector of length 1 for each text of each example."""
        texts = [name for name in ("", "pair_", "negative_") if f"{name}tokens" in batch]

        def together(name: str) -> Int[Array, "BK T"]:
            """The texts of an example in rows that follow each other, so that all stay on their devices."""
            stacked = jnp.stack([batch[f"{text}{name}"] for text in texts], axis=1)
            return shard(stacked.reshape(-1, stacked.shape[-1]), "batch", "time")

        segments = together("segment_ids")
        output: Any = model.apply(
            {"params": params},
            together("tokens"),
            positions=together("positions"),
            segment_ids=segments,
            dropout_key=key,
            unembed=False,
        )
        hidden, weights = output.hidden.astype(F32), (segments > 0).astype(F32)
        if self.pooling == "first":
            weights = weights * (jnp.cumsum(weights, axis=1) == 1)
        pooled = einsum(
            "BTD,BT->BD", hidden, weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1), out=("batch", "embed")
        )
        length = jnp.sqrt(jnp.maximum(jnp.sum(pooled * pooled, axis=1, keepdims=True), 1e-12))
        return (pooled / length).reshape(-1, len(texts), pooled.shape[1])

    def sums(self, vectors: Float[Array, "B texts D"], batch: DeviceBatch) -> LossSums:
        weights = batch["loss_weights"]
        if self.loss == "contrastive":
            losses, right = contrastive(vectors, weights, self.temperature)
        else:
            cosine = jnp.sum(vectors[:, 0] * vectors[:, 1], axis=1)
            losses, right = jnp.square(cosine - batch["scores"]), jnp.zeros_like(weights)
        loss = jnp.sum(weights * losses)
        return LossSums(loss, jnp.zeros_like(loss), jnp.sum(weights), jnp.sum(weights * right), loss)

    def make_loss(self, model: Any, config: LossConfig) -> Loss:
        return lambda params, batch, dropout_key: self.sums(self.vectors(model, params, batch, dropout_key), batch)

    def make_predict(self, model: Transformer, config: LossConfig) -> Predict:
        def predict(params: Any, batch: DeviceBatch) -> tuple[LossSums, dict[str, Array]]:
            vectors = self.vectors(model, params, batch, None)
            found = {"items": batch["items"], "scores": batch["scores"], "vectors": vectors[:, :2]}
            return self.sums(vectors, batch), found

        return predict

    def score(self, found: Found, rows: ExampleRows, data: TaskData) -> Scores:
        """Of scores, their correlation with the cosines; else how often a text's partner is the nearest of all: of several that
        are the same text, the first alone."""
        first, second = found["vectors"][:, 0], found["vectors"][:, 1]
        if data.config.label_feature in data.data_set.features:
            cosine = np.asarray(np.sum(first * second, axis=1, dtype=np.float64))
            return Scores(len(first), correlation_scores(found["scores"].astype(np.float64), cosine))
        blocks = np.array_split(first, -(-len(first) // 1024))
        nearest = np.concatenate([np.argmax(block @ second.T, axis=1) for block in blocks])
        return Scores(len(first), {"top_1": mean_of(nearest == np.arange(len(first)))})

    def show(self, found: Found, rows: ExampleRows, data: TaskData) -> str:
        """The first pairs, each with its cosine."""
        cosine = np.sum(found["vectors"][:SHOWN, 0] * found["vectors"][:SHOWN, 1], axis=1)
        shown = zip(found["items"][:SHOWN], cosine, strict=True)
        return "\n".join(f"[{each:.2f}] {first_text(record_of(rows, int(item)), data.config)}" for item, each in shown)


def has_scores(data: TaskDataConfig) -> bool:
    return data.label_feature in find_set(data.dataset, data_dir=data.data_dir).features


def contrastive(
    vectors: Float[Array, "B texts D"], weights: Float[Array, " B"], temperature: float
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """For each example -log softmax over all partners and negatives of the batch, cosine / temperature, at its own partner;
    and whether that is the likeliest. Rows of padding are nobody's candidates."""
    count = vectors.shape[0]
    partners = [shard(vectors[:, text], None, None) for text in range(1, vectors.shape[1])]
    there = shard(weights > 0, None)
    logits = [
        jnp.where(there[None, :], einsum("BD,CD->BC", vectors[:, 0], each, out=("batch", None)) / temperature, -1e30)
        for each in partners
    ]
    own = jnp.sum(jnp.where(jnp.eye(count, dtype=bool), logits[0], 0.0), axis=1)
    everything = jnp.concatenate(logits, axis=1)
    losses = jax.nn.logsumexp(everything, axis=1) - own
    losses = jnp.where(weights > 0, losses, jnp.zeros_like(losses))
    return losses, (own >= jnp.max(everything, axis=1)).astype(F32)
