"""Extractive question answering: where in a context the answer to a question stands, or that there is none (arXiv:1806.03822).

A context that is too long is read in windows that overlap; each says how likely an answer begins and ends at each of its
tokens. The answer is the likeliest span over all windows, or none where the windows' first tokens are likelier.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxllm.checkpoint import Direction
from jaxllm.data import TaskData
from jaxllm.data.example_rows import ExampleRows
from jaxllm.data.example_table import Item
from jaxllm.evaluate.answers import answer_scores
from jaxllm.evaluate.metrics import Scores
from jaxllm.finetune.tasks.classification import SHOWN
from jaxllm.finetune.tasks.encode import around, encode_spans
from jaxllm.finetune.tasks.task import (
    EncodeRecord,
    Found,
    Labels,
    Predict,
    TaskDefaults,
    check_loss,
    check_stack,
    open_rows,
    run_stack,
    task_data,
)
from jaxllm.models import HeadConfig, ModelConfig, Transformer, TransformerConfig, label_logits
from jaxllm.sharding import shard
from jaxllm.training import LossConfig, LossSums
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports


@dataclass(frozen=True)
class EncodeQuestion(EncodeRecord):
    """A record as one item for each window of its context: question, then context."""

    stride: int
    max_question: int
    token_types: bool

    def __call__(self, record: dict[str, Any]) -> list[Item]:
        before, between, after = around(self.tokenizer, pair=True)
        question = self.tokenizer.encode(record["question"])
        ids, spans = encode_spans(self.tokenizer, record["context"])
        if not ids:
            raise ValueError("the context must have at least one token: got none; leave it out of the data")
        cut = len(question) > self.max_question
        head = [*before, *question[: self.max_question], *between]
        room = self.limit - len(head) - len(after)
        if room <= self.stride:
            raise ValueError(
                f"data.seq_len={self.limit} must have room for a question of {len(head)} tokens and a window longer than "
                f"objective.stride={self.stride}: raise data.seq_len, or lower objective.stride or objective.max_question"
            )
        places = _place(record["answers"], spans)
        items = []
        for first in range(0, max(len(ids) - self.stride, 1), room - self.stride):
            window = ids[first : first + room]
            tokens = np.array([*head, *window, *after], np.int32)
            begin, end = places
            there = first <= begin and end < first + len(window)
            offset = len(head) - first
            arrays = {
                "tokens": tokens,
                # Where in the context a token stands, and 0 where it is none of the context's.
                "char_begins": _framed([begin + 1 for begin, _ in spans[first : first + room]], len(head), len(after)),
                "char_ends": _framed([end for _, end in spans[first : first + room]], len(head), len(after)),
                "starts": np.array(begin + offset if there else 0, np.int32),
                "ends": np.array(end + offset if there else 0, np.int32),
                "loss_weights": np.array(1, np.float32),
            }
            if self.token_types:
                arrays["token_types"] = (np.arange(len(tokens)) >= len(head)).astype(np.int32)
            items.append(Item(arrays, cut))
        return items


def _framed(values: list[int], before: int, after: int) -> np.ndarray:
    return np.array([0] * before + values + [0] * after, np.int32)


def _place(answers: dict[str, list], spans: list[tuple[int, int]]) -> tuple[int, int]:
    """The first and last token of the first answer; (-1, -1) where there is none. Where it starts is called `start`, or as in
    SQuAD's own files `answer_start`.

    Raises:
      ValueError: an answer beyond the context.
    """
    if not answers["text"]:
        return -1, -1
    begin = answers["answer_start" if "answer_start" in answers else "start"][0]
    end = begin + len(answers["text"][0])
    touched = [number for number, (first, last) in enumerate(spans) if first < end and last > begin]
    if begin < 0 or not touched:
        raise ValueError(f"an answer must stand in its context: {answers['text'][0][:60]!r} should begin at character {begin}")
    return touched[0], touched[-1]


class Answer(NamedTuple):
    text: str
    """"" for none."""
    score: float


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(TaskDefaults):
    """Say where in a context the answer to a question stands."""

    reports: ClassVar[Reports] = Reports(unit="examples", perplexity=False)
    metrics: ClassVar[Mapping[str, Direction]] = {"f1": "highest", "exact_match": "highest"}

    stride: int = 64
    """Tokens of a context that two of its windows share."""
    max_question: int = 64
    """Tokens of a question, at most; what is beyond is cut off."""
    max_answer: int = 30
    """Tokens of an answer, at most."""
    by_character: bool = False
    """Compare answers character by character, as for Chinese, where words have no spaces between."""

    def __post_init__(self) -> None:
        for name in ("stride", "max_question", "max_answer"):
            if getattr(self, name) < (0 if name == "stride" else 1):
                raise ValueError(f"objective.{name} must be at least {0 if name == 'stride' else 1}: got {getattr(self, name)}")

    def headed(self, model: ModelConfig) -> ModelConfig:
        """With a new head for the answer's start and end."""
        return dataclasses.replace(model, head=HeadConfig(kind="span")) if isinstance(model, TransformerConfig) else model

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        config = check_stack("QuestionAnswering", model, data, "span")
        if config.causal:
            raise ValueError("objective QuestionAnswering needs an encoder, model.causal=False: got a causal model")
        check_loss("QuestionAnswering", loss, "chunk", "z_loss", "label_smoothing")

    def labels(self, data: TaskData) -> Labels | None:
        for feature in ("context", "question", "answers"):
            data.require(feature, "data.dataset")
        return None

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        shape = (task_data("QuestionAnswering", data).seq_len,)
        names = ("tokens", "positions", "segment_ids", "char_begins", "char_ends", "token_types")
        return {name: Field(shape) for name in names} | {
            "starts": Field(()), "ends": Field(()), "loss_weights": Field((), np.float32),
        }  # fmt: skip

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> ExampleRows:
        assert isinstance(data, TaskData) and isinstance(model, TransformerConfig)
        types = model.token_types is not None and model.token_types > 1
        encode = EncodeQuestion(data.tokenizer, data.config.seq_len, self.stride, self.max_question, types)
        return open_rows(data, split, encode, packed=False, seed=seed)

    def _run(self, model: Any, params: Any, batch: DeviceBatch, key: Array | None) -> tuple[Array, LossSums]:
        hidden, finish = run_stack(model, params, batch, key)
        logits = shard(label_logits(model.config, params, hidden, batch["segment_ids"]), "batch", None, "label")
        return logits, finish(span_loss(logits, batch))

    def make_loss(self, model: Any, config: LossConfig) -> Loss:
        return lambda params, batch, dropout_key: self._run(model, params, batch, dropout_key)[1]

    def make_predict(self, model: Transformer, config: LossConfig) -> Predict:
        def predict(params: Any, batch: DeviceBatch) -> tuple[LossSums, dict[str, Array]]:
            logits, sums = self._run(model, params, batch, None)
            return sums, {"items": batch["items"]} | best_spans(logits, batch, self.max_answer)

        return predict

    def answers(self, found: Found, rows: ExampleRows) -> dict[int, Answer]:
        """The likeliest answer to each record's question, over all windows that were read."""
        records = rows.table.records[found["items"]]
        answers = {}
        for number in np.unique(records):
            windows = records == number
            none = float(found["none"][windows].min())  # as the SQuAD baseline has it: the window that is least sure
            best = int(np.argmax(np.where(windows, found["score"], -np.inf)))
            score = float(found["score"][best])
            record = rows.records[int(number)]
            text = record["context"][int(found["begin"][best]) : int(found["end"][best])]
            answers[int(number)] = Answer(text, score) if score > none else Answer("", none)
        return answers

    def score(self, found: Found, rows: ExampleRows, data: TaskData) -> Scores:
        answers = self.answers(found, rows)
        wanted = [rows.records[number]["answers"]["text"] for number in answers]
        given = [answer.text for answer in answers.values()]
        return Scores(len(given), answer_scores(wanted, given, by_character=self.by_character))

    def show(self, found: Found, rows: ExampleRows, data: TaskData) -> str:
        """The first questions, with the answers that were found and, where they are others, the right ones."""
        lines = []
        for number, answer in list(self.answers(found, rows).items())[:SHOWN]:
            record = rows.records[number]
            right = record["answers"]["text"]
            told = answer.text or "no answer"
            wanted = right[0] if right else "no answer"
            lines.append(f"{record['question']} [{told}{'' if told == wanted else f' ({wanted})'}]")
        return "\n".join(lines)


def span_loss(logits: Float[Array, "B T 2"], batch: DeviceBatch) -> LossSums:
    """Σ w (-log p(start) - log p(end)) / 2, each over the tokens of its row."""
    weights = batch["loss_weights"]
    real = batch["segment_ids"] > 0
    places = jnp.arange(logits.shape[1], dtype=jnp.int32)[None, :]
    total = jnp.zeros_like(weights)
    for side, name in enumerate(("starts", "ends")):
        own = jnp.where(real, logits[:, :, side], -jnp.inf)
        own = jnp.where(jnp.any(real, axis=1, keepdims=True), own, jnp.zeros_like(own))  # a row of padding
        target = jnp.sum(jnp.where(places == batch[name][:, None], logits[:, :, side], 0.0), axis=1)
        total = total + (jax.nn.logsumexp(own, axis=1) - target) / 2
    loss = jnp.sum(weights * total)
    zero = jnp.zeros_like(loss)
    return LossSums(loss, zero, jnp.sum(weights), zero, loss)


def best_spans(logits: Float[Array, "B T 2"], batch: DeviceBatch, max_answer: int) -> dict[str, Array]:
    """The likeliest span of each row's context by the sum of its logits: `score`, its characters `begin` to `end`; and `none`,
    the score of the first token, which stands for no answer."""
    inside = batch["char_ends"] > 0
    lowest = jnp.finfo(jnp.float32).min / 4
    starts, ends = (jnp.where(inside, logits[:, :, side], lowest) for side in (0, 1))
    distance = np.arange(logits.shape[1])[None, :] - np.arange(logits.shape[1])[:, None]
    allowed = jnp.asarray((distance >= 0) & (distance < max_answer))[None]
    scores = jnp.where(allowed, starts[:, :, None] + ends[:, None, :], 2 * lowest)
    flat = scores.reshape(scores.shape[0], -1)
    best = jnp.argmax(flat, axis=1)
    places = jnp.arange(logits.shape[1], dtype=best.dtype)[None, :]
    chosen = [places == each[:, None] for each in (best // logits.shape[1], best % logits.shape[1])]
    begin = jnp.sum(jnp.where(chosen[0], batch["char_begins"] - 1, 0), axis=1)
    end = jnp.sum(jnp.where(chosen[1], batch["char_ends"], 0), axis=1)
    return {"score": jnp.max(flat, axis=1), "begin": begin, "end": end, "none": logits[:, 0, 0] + logits[:, 0, 1]}
