"""Instruction tuning: answer in a conversation, as the assistant in it does; only what the assistant says is learned.

InstructionTuning()                    # the chat template of the model's tokenizer, several conversations in a row
InstructionTuning(template="plain")    # for a model without: requests and answers under headings
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from jaxllm.checkpoint import Direction
from jaxllm.data import TaskData
from jaxllm.data.example_rows import ExampleRows
from jaxllm.data.example_table import Item
from jaxllm.evaluate.metrics import Scores
from jaxllm.finetune.tasks.language import (
    TOKEN_METRICS,
    check_decoder,
    decoder_fields,
    language_loss,
    language_predict,
    next_tokens,
    per_item,
    token_scores,
)
from jaxllm.finetune.tasks.task import EncodeRecord, Found, Predict, TaskDefaults, open_rows, record_of
from jaxllm.finetune.tasks.turns import Template, encode_request, encode_turns, template_of
from jaxllm.finetune.tasks.written import SHOWN, Written, write_texts
from jaxllm.models import ModelConfig
from jaxllm.training import LossConfig
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports

MESSAGES, TOOLS = "messages", "tools"
"""Features of a set of conversations, both JSON text."""


@dataclass(frozen=True)
class EncodeTurns(EncodeRecord):
    """What makes items of conversations."""

    template: Template

    @property
    def fingerprint(self) -> str:
        """Of the tokenizer's chat template, too."""
        template = getattr(self.tokenizer, "chat_template", None)
        return hashlib.sha256(f"{super().fingerprint} {template}".encode()).hexdigest()


@dataclass(frozen=True)
class EncodeChat(EncodeTurns):
    """A record as one item: its conversation, and which tokens of it the assistant said."""

    turns: Literal["all", "last"]

    def __call__(self, record: dict[str, Any]) -> list[Item]:
        messages, tools = conversation(record)
        first = 0 if self.turns == "all" else len(messages) - 1
        ids, said = encode_turns(self.tokenizer, messages, tools, self.template, first)
        item = next_tokens(ids, said, self.limit)
        return [item] if item.arrays["loss_weights"].any() else []  # nothing of an answer is left


def conversation(record: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """The messages of a record, and the tools that it names."""
    tools = record.get(TOOLS)
    return json.loads(record[MESSAGES]), json.loads(tools) if tools else None


@dataclass(frozen=True, kw_only=True)
class InstructionTuning(TaskDefaults):
    """Learn what the assistant says in conversations: the loss is the mean over those tokens of a batch, the end mark of each
    answer included."""

    reports: ClassVar[Reports] = Reports(unit="examples", accuracy=True)
    metrics: ClassVar[Mapping[str, Direction]] = TOKEN_METRICS

    template: Template | None = None
    """How a conversation becomes a text. chat: by the template of the tokenizer; plain: under headings, the end mark behind
    each answer; verbatim: the messages as they are. By default chat where the tokenizer has a template, else plain."""
    turns: Literal["all", "last"] = "all"
    """Which answers of a conversation are learned."""
    answer_len: int = 128
    """The most tokens of an answer that `write` asks for."""

    def __post_init__(self) -> None:
        if self.template not in (None, "chat", "plain", "verbatim"):
            raise ValueError(f"objective.template must be chat, plain or verbatim: got {self.template!r}")
        if self.turns not in ("all", "last"):
            raise ValueError(f"objective.turns must be all or last: got {self.turns!r}")
        if self.answer_len < 1:
            raise ValueError(f"objective.answer_len must be at least 1: got {self.answer_len}")

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        check_decoder("InstructionTuning", model, data, loss)

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        return decoder_fields("InstructionTuning", data)

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> ExampleRows:
        assert isinstance(data, TaskData)
        data.require(MESSAGES, "data.dataset, one built with --task chat")
        template = template_of(data.tokenizer, self.template)
        encode = EncodeChat(data.tokenizer, data.config.seq_len, template, self.turns)
        return open_rows(data, split, encode, packed=data.config.packing, seed=seed)

    def make_loss(self, model: Any, config: LossConfig) -> Loss:
        return language_loss(model, config)

    def make_predict(self, model: Any, config: LossConfig) -> Predict:
        return language_predict(model, config)

    def score(self, found: Found, rows: ExampleRows, data: TaskData) -> Scores:
        return token_scores(found)

    def show(self, found: Found, rows: ExampleRows, data: TaskData) -> str:
        """The first requests, each with the loss of its answer."""
        losses, counts = per_item(found, -found["log_probs"])
        lines = []
        for item, loss in zip(np.unique(found["items"])[:SHOWN], losses / counts, strict=False):
            messages, _ = conversation(record_of(rows, int(item)))
            lines.append(f"[{loss:.2f}] {' '.join(asked(messages).split())[:200]}")
        return "\n".join(lines)

    def write(self, model: Any, params: Any, rows: ExampleRows, data: TaskData, *, examples: int = 16) -> Written:
        """The model's own last answers in the first conversations of a split, those that are as long as it allows left out."""
        template, room = template_of(data.tokenizer, self.template), model.context_len - self.answer_len
        prompts, requests, references = [], [], []
        for number in range(len(rows.records)):
            messages, tools = conversation(rows.records[number])
            ids = encode_request(data.tokenizer, messages[:-1], tools, template)
            if len(requests) < examples and len(ids) <= room and messages[-1].get("content"):
                prompts.append(asked(messages))
                requests.append(ids)
                references.append([messages[-1]["content"]])
            if len(requests) == examples:
                break
        texts = write_texts(model, params, data.tokenizer, requests, max_tokens=self.answer_len)
        return Written(prompts, texts, references)


def asked(messages: list[dict[str, Any]]) -> str:
    """What the assistant was asked last."""
    return next((m["content"] for m in reversed(messages[:-1]) if m["role"] == "user"), "")
