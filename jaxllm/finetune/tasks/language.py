"""What tasks share that a decoder learns as a language: the loss of some next tokens, and how well each of them is known."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import Array

from jaxllm.checkpoint import Direction
from jaxllm.data.example_table import Item
from jaxllm.evaluate.metrics import Scores
from jaxllm.evaluate.perplexity import perplexity_of
from jaxllm.finetune.tasks.target_probs import chunk_for, target_probs
from jaxllm.finetune.tasks.task import Found, Predict, check_stack, run_stack, task_data
from jaxllm.models import ModelConfig, Transformer, unembed_parts
from jaxllm.training import LossConfig, LossSums, make_loss
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.objective import AnyDataConfig, Field, check_chunk

TOKEN_METRICS: Mapping[str, Direction] = {"perplexity": "lowest", "accuracy": "highest"}


def check_decoder(name: str, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
    """Refuse what is no decoder with logits of its vocabulary, or one that is too short."""
    stack = check_stack(name, model, data, "vocabulary")
    if not stack.causal:
        raise ValueError(f"objective {name} needs model.causal=True: got an encoder, which cannot go on with a text")
    check_chunk(loss, task_data(name, data).seq_len, "data.seq_len")


def decoder_fields(name: str, data: AnyDataConfig) -> dict[str, Field]:
    """The arrays of a row."""
    shape = (task_data(name, data).seq_len,)
    whole = {name: Field(shape) for name in ("tokens", "positions", "segment_ids", "targets")}
    return whole | {"loss_weights": Field(shape, np.float32)}


def next_tokens(ids: list[int], learned: list[bool], limit: int, prefix: str = "") -> Item:
    """A text, cut to `limit` tokens, as what is read and what is to be said next, with weight 1 where that is learned.

    Raises:
      ValueError: nothing to learn, however long the text may be.
    """
    if not any(learned[1:]):
        raise ValueError("there must be a text to learn behind what is asked: got none")
    kept = np.array(ids[:limit], np.int32)
    arrays = {
        f"{prefix}tokens": kept[:-1],
        f"{prefix}targets": kept[1:],
        f"{prefix}loss_weights": np.array(learned[1:limit], np.float32),
    }
    return Item(arrays, len(ids) > limit)


def language_loss(model: Any, config: LossConfig) -> Loss:
    """The cross-entropy of the targets, in rows of any length."""
    assert isinstance(model, Transformer)

    def loss(params: Any, batch: DeviceBatch, dropout_key: Array | None) -> LossSums:
        fitting = dataclasses.replace(config, chunk=chunk_for(config, batch["tokens"].shape[1]))
        return make_loss(model, fitting)(params, batch, dropout_key)

    return loss


def language_predict(model: Any, config: LossConfig) -> Predict:
    """What the model gives each target."""
    assert isinstance(model, Transformer)

    def predict(params: Any, batch: DeviceBatch) -> tuple[LossSums, dict[str, Array]]:
        hidden, finish = run_stack(model, params, batch, None)
        parts = unembed_parts(model.config, params)
        probs = target_probs(model.config, parts, hidden, batch["targets"], config.chunk)
        found = {"items": batch["items"], "log_probs": probs.log_probs, "best": probs.best}
        return finish(probs.sums(batch["loss_weights"])), found

    return predict


def token_scores(found: Found) -> Scores:
    """Perplexity and the share of targets that are the most likely token, over all targets of the examples."""
    losses, counts = per_item(found, -found["log_probs"].astype(np.float64))
    right, _ = per_item(found, found["best"].astype(np.float64))

    def perplexity(numbers: np.ndarray) -> float:
        return perplexity_of(losses[numbers].sum() / counts[numbers].sum())

    return Scores(
        len(counts),
        {"perplexity": perplexity, "accuracy": lambda numbers: float(right[numbers].sum() / counts[numbers].sum())},
    )


def per_item(found: Found, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the tokens' values of each item, and their number."""
    _, places, counts = np.unique(found["items"], return_inverse=True, return_counts=True)
    return np.bincount(places, values, minlength=len(counts)), counts
