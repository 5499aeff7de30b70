"""Classification by a prompt: the class is the word that the model would put into it (arXiv:2001.07676).

    PromptClassification(prompt="{text}\\nSentiment: ", words=("bad", "good"))       # a decoder says the next word
    PromptClassification(prompt="{text} It was {mask}.", words=("bad", "good"))     # an encoder fills the gap

No head is new, so it works before anything is learned (`jaxllm evaluate`), with some examples in the prompt (`shots`), and from
few examples.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, Int64

from jaxllm.checkpoint import Direction
from jaxllm.data import TaskData
from jaxllm.data.example_rows import ExampleRows
from jaxllm.data.example_table import Item
from jaxllm.data.rows import Batch, Share
from jaxllm.data.shuffle import random_order
from jaxllm.evaluate.class_report import ClassReport, class_report
from jaxllm.evaluate.metrics import Scores, class_scores
from jaxllm.finetune.tasks.classification import SHOWN, first_text
from jaxllm.finetune.tasks.encode import around
from jaxllm.finetune.tasks.task import (
    EncodeRecord,
    Found,
    Predict,
    TaskDefaults,
    check_loss,
    check_stack,
    open_rows,
    record_of,
    run_stack,
    task_data,
)
from jaxllm.finetune.tasks.text_to_text import SLOT, fitted
from jaxllm.models import ModelConfig, Transformer, TransformerConfig, unembed, unembed_parts
from jaxllm.training import LossConfig, LossSums, cross_entropy
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports

PAIR, MASK = "{text_pair}", "{mask}"
WORDS = "words"
_GAP = "\ufdd0"
"""Stands for the gap; Unicode keeps it out of all texts."""


def filled(prompt: str, text: str, pair: str, gap: str) -> str:
    """A prompt with its parts put in, whatever they contain."""
    values = {SLOT: text, PAIR: pair, MASK: gap}
    pieces = re.split(f"({'|'.join(map(re.escape, values))})", prompt)
    return "".join(values.get(piece, piece) for piece in pieces)


@dataclass(frozen=True)
class Prompt:
    ids: list[int]
    place: int
    """The token at which the word of the class is told."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class EncodePrompt(EncodeRecord):
    """A record as one item: the prompt, with the class where the word of the class goes."""

    shots: str
    """Text before the prompt."""
    prompt: str
    text: str
    pair: str | None
    label: str
    num_labels: int
    causal: bool

    def __call__(self, record: dict[str, Any]) -> list[Item]:
        pair = "" if self.pair is None else record[self.pair]
        before, _, after = around(self.tokenizer, pair=False)
        after = [] if self.causal else after
        room = self.limit - len(before) - len(after)
        found, cut = fitted(lambda text: self._encode(text, pair), record[self.text], room)
        ids, place = [*before, *found.ids, *after], len(before) + found.place
        label = record[self.label]
        if not 0 <= label < self.num_labels:
            raise ValueError(f"labels must be numbers of the {self.num_labels} classes, from 0: got {label}")
        targets, weights = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.float32)
        targets[place], weights[place] = label, 1
        return [Item({"tokens": np.array(ids, np.int32), "targets": targets, "loss_weights": weights}, cut)]

    def _encode(self, text: str, pair: str) -> Prompt:
        left, gap, right = filled(self.prompt, text, pair, _GAP).partition(_GAP)
        ids = self.tokenizer.encode(self.shots + (left.rstrip(" ") if gap or self.causal else left))
        if self.causal:
            return Prompt(ids, len(ids) - 1)
        assert self.tokenizer.mask_id is not None  # rows() has looked
        return Prompt([*ids, self.tokenizer.mask_id, *self.tokenizer.encode(right)], len(ids))


@dataclass(frozen=True)
class WordRows(ExampleRows):
    """Rows with `words`, the token of each class, in each of them."""

    words: tuple[int, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return WordRows, tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def for_evaluation(self) -> "WordRows":
        return dataclasses.replace(self, seed=None)

    def batch(self, positions: Int64[np.ndarray, " N"], share: Share) -> Batch:
        batch = super().batch(positions, share)
        words = np.array(self.words, np.int32)
        return batch | {WORDS: np.broadcast_to(words, (len(batch["tokens"]), len(words))).copy()}


def word_logits(
    config: TransformerConfig, params: Any, hidden: Float[Array, "B T D"], words: Int[Array, "B C"]
) -> Float[Array, "B T C"]:
    """The logits of a few tokens of the vocabulary, the same in each row."""
    chosen = jnp.max(words, axis=0)
    parts = dict(unembed_parts(config, params))
    for name, axis in (("table", 0), ("kernel", 1), ("bias", 0)):
        if name in parts:
            parts[name] = jnp.take(parts[name], chosen, axis=axis)
    return unembed(config, parts, hidden)


@dataclass(frozen=True, kw_only=True)
class PromptClassification(TaskDefaults):
    """Choose the class of a text, or of a pair, by the word for it that the model finds likeliest."""

    reports: ClassVar[Reports] = Reports(unit="examples", perplexity=False, accuracy=True)
    metrics: ClassVar[Mapping[str, Direction]] = {"accuracy": "highest", "macro_f1": "highest", "matthews": "highest"}

    prompt: str
    """What is asked: {text} and, of pairs, {text_pair} stand for the texts; {mask} for the gap that an encoder fills. A decoder
    says what comes next."""
    words: tuple[str, ...] | None = None
    """A word for each class, one token each. By default the names of the classes."""
    shots: int = 0
    """Examples of the training split, with their words, that stand before each text; as many of each class."""

    def __post_init__(self) -> None:
        if SLOT not in self.prompt:
            raise ValueError(f"objective.prompt must have {SLOT} where the text goes: got {self.prompt!r}")
        if self.shots < 0:
            raise ValueError(f"objective.shots must be 0 or more: got {self.shots}")

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        stack = check_stack("PromptClassification", model, data, "vocabulary")
        check_loss("PromptClassification", loss, "chunk")
        gaps = self.prompt.count(MASK)
        if gaps != (not stack.causal):
            wants = "no {mask}, since a decoder says what comes next" if stack.causal else "one {mask}, the gap to fill"
            raise ValueError(f"objective.prompt must have {wants}: got {self.prompt!r}")
        if (PAIR in self.prompt) != (task_data("PromptClassification", data).pair_feature is not None):
            raise ValueError(
                f"objective.prompt has {PAIR} exactly where data.pair_feature names a second text: got {self.prompt!r}"
            )

    def names(self, data: TaskData) -> tuple[str, ...]:
        """Those of the classes."""
        data.require(data.config.label_feature, "data.label_feature")
        return data.label_names(data.config.label_feature)

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        shape = (task_data("PromptClassification", data).seq_len,)
        whole = {name: Field(shape) for name in ("tokens", "positions", "segment_ids", "targets")}
        return whole | {"loss_weights": Field(shape, np.float32), WORDS: Field((2,))}

    def word_ids(self, data: TaskData, *, causal: bool) -> list[int]:
        """The token that stands for each class.

        Raises:
          ValueError: a word that is not one token, as many words as there are not classes, or the same token twice.
        """
        names, tokenizer = self.names(data), data.tokenizer
        words = self.words or names
        if len(words) != len(names):
            raise ValueError(
                f"objective.words must be one for each class: got {len(words)} for {len(names)}: {', '.join(names)}"
            )
        spaced = self.prompt[: None if causal else self.prompt.index(MASK)].endswith(" ")
        ids = []
        for word in words:
            forms = [tokenizer.encode(form) for form in ((f" {word}", word) if spaced else (word,))]
            found = next((form for form in forms if len(form) == 1), None)
            if found is None:
                raise ValueError(f"objective.words must be one token each: {word!r} is {len(forms[-1])}; choose others")
            ids.append(found[0])
        if len(set(ids)) < len(ids):
            raise ValueError(f"objective.words must be different tokens: got {', '.join(words)}")
        return ids

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> "WordRows":
        assert isinstance(data, TaskData) and isinstance(model, TransformerConfig)
        config = data.config
        data.require(config.text_feature, "data.text_feature")
        if self.shots and seed is None and split == config.train_split:
            raise ValueError(
                f"objective.shots are taken from data.train_split={split!r}, which must not be what is measured: name other "
                f"records, as in data.train_split='{split}[:{self.shots * 10}]' and '{split}[{self.shots * 10}:]'"
            )
        if not model.causal and data.tokenizer.mask_id is None:
            raise ValueError(
                "objective.prompt has {mask}, for which data.tokenizer must have a token: it has none; take an encoder that "
                "was trained to fill gaps, with its tokenizer"
            )
        ids = self.word_ids(data, causal=model.causal)
        encode = EncodePrompt(
            data.tokenizer, config.seq_len, self._shown(data, causal=model.causal), self.prompt, config.text_feature,
            config.pair_feature, config.label_feature, len(ids), model.causal,
        )  # fmt: skip
        rows = open_rows(data, split, encode, packed=config.packing, seed=seed)
        return WordRows(rows.table, rows.records, rows.row_len, rows.packed, rows.seed, rows.drop_cut, None, tuple(ids))

    def _shown(self, data: TaskData, *, causal: bool) -> str:
        """The shots: prompts with their words, a blank line behind each."""
        if not self.shots:
            return ""
        config, names = data.config, self.names(data)
        records = data.records(config.train_split)
        words, chosen, counts = self.words or names, [], dict.fromkeys(range(len(names)), 0)
        most = -(-self.shots // len(names))
        for number in random_order(data.seed, len(records)):
            record = records[int(number)]
            label = record[config.label_feature]
            if counts[label] < most and len(chosen) < self.shots:
                counts[label] += 1
                chosen.append(record)
        if len(chosen) < self.shots:
            raise ValueError(
                f"objective.shots must be at most what the training split has of each class: got {self.shots}; lower it"
            )
        texts = []
        for record in chosen:
            pair = record[config.pair_feature] if config.pair_feature else ""
            word = words[record[config.label_feature]]
            texts.append(filled(self.prompt, record[config.text_feature], pair, word) + (word if causal else ""))
        return "".join(f"{text}\n\n" for text in texts)

    def make_loss(self, model: Any, config: LossConfig) -> Loss:
        def loss(params: Any, batch: DeviceBatch, dropout_key: Array | None) -> LossSums:
            hidden, finish = run_stack(model, params, batch, dropout_key)
            logits = word_logits(model.config, params, hidden, batch[WORDS])
            return finish(cross_entropy(logits, batch["targets"], batch["loss_weights"], config))

        return loss

    def make_predict(self, model: Transformer, config: LossConfig) -> Predict:
        def predict(params: Any, batch: DeviceBatch) -> tuple[LossSums, dict[str, Array]]:
            hidden, finish = run_stack(model, params, batch, None)
            logits = word_logits(model.config, params, hidden, batch[WORDS])
            found = {"items": batch["items"], "targets": batch["targets"], "logits": logits}
            return finish(cross_entropy(logits, batch["targets"], batch["loss_weights"], config)), found

        return predict

    def score(self, found: Found, rows: ExampleRows, data: TaskData) -> Scores:
        logits = found["logits"]
        return Scores(len(logits), class_scores(found["targets"], logits.argmax(axis=1), logits.shape[1]))

    def report(self, found: Found, rows: ExampleRows, data: TaskData) -> ClassReport:
        """By class."""
        return class_report(found["targets"], found["logits"].argmax(axis=1), self.names(data))

    def show(self, found: Found, rows: ExampleRows, data: TaskData) -> str:
        """The first texts, each with the class that was found, and where it is another, its own."""
        names, lines = self.names(data), []
        for item, logits, target in zip(found["items"][:SHOWN], found["logits"], found["targets"], strict=False):
            here, there = names[int(logits.argmax())], names[int(target)]
            text = first_text(record_of(rows, int(item)), data.config)
            lines.append(f"[{here if here == there else f'{here} ({there})'}] {text}")
        return "\n".join(lines)
