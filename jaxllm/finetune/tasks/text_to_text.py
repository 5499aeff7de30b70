"""Text to text: translate, summarize, or write whatever belongs to a text.

TextToText()                                                        # an encoder reads the text, a decoder writes
TextToText(prompt="translate German to English: {text}")            # T5's way to say which task it is
TextToText(prompt="German: {text}\\nEnglish:")                       # a decoder goes on with the prompt
"""

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from jax import Array

from jaxllm.checkpoint import Direction
from jaxllm.data import TaskData, Tokenizer
from jaxllm.data.example_rows import ExampleRows
from jaxllm.data.example_table import Item
from jaxllm.data.marian import MarianTokenizer
from jaxllm.evaluate.metrics import Scores
from jaxllm.finetune.tasks.encode import around, encode_text
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
from jaxllm.finetune.tasks.target_probs import chunk_for, target_probs
from jaxllm.finetune.tasks.task import EncodeRecord, Found, Predict, TaskDefaults, open_rows, record_of, task_data
from jaxllm.finetune.tasks.text_rows import DECODER, TextRows
from jaxllm.finetune.tasks.written import SHOWN, Written, write_texts, written_metrics
from jaxllm.models import EncoderDecoder, EncoderDecoderConfig, ModelConfig, decoder_unembed_parts
from jaxllm.training import LossConfig, LossSums
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.encoder_decoder import make_encoder_decoder_loss, start_id
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports, check_encoder_decoder

SLOT = "{text}"
PLAIN = "# Text\n{text}\n\n# Result\n"
"""The prompt of a decoder where none is given."""


Fitted = TypeVar("Fitted", bound=Sized)


def fitted(encode: Callable[[str], Fitted], text: str, room: int) -> tuple[Fitted, bool]:
    """What `encode` makes of a text, the text's end cut off until that has a length of `room`; and whether it was cut.

    Raises:
      ValueError: it has more without any text.
    """
    found, cut = encode(text), False
    while len(found) > room:
        if not text:
            raise ValueError(
                f"data.seq_len must leave {len(found)} tokens for the prompt itself: it leaves {max(room, 0)}; raise it"
            )
        text, cut = text[: min(len(text) * max(room, 0) // len(found), len(text) - 1)], True
        found = encode(text)
    return found, cut


def target_ids(tokenizer: Tokenizer, target: str) -> list[int]:
    """A text as a decoder behind an encoder writes it, with the special tokens that the tokenizer puts around texts."""
    if isinstance(tokenizer, MarianTokenizer):
        return [*tokenizer.encode_target(target), tokenizer.eos_id]
    return encode_text(tokenizer, target, None, 2**31).ids.tolist()


@dataclass(frozen=True)
class EncodeTexts(EncodeRecord):
    """A record as one item: for a decoder the prompt and the target, one behind the other, else apart."""

    target_limit: int
    prompt: str
    text: str
    target: str
    start: int | None
    """What a decoder behind an encoder reads before its first token; None for a decoder alone."""

    def __call__(self, record: dict[str, Any]) -> list[Item]:
        target = record[self.target]
        if not target.strip():
            raise ValueError("there must be a text to write: got an empty one")
        if self.start is None:
            return [self._behind(record[self.text], target)]
        wanted = target_ids(self.tokenizer, target)
        ids, cut = self.request(record[self.text])
        kept = np.array(wanted[: self.target_limit], np.int32)
        arrays = {
            "tokens": np.array(ids, np.int32),
            f"{DECODER}tokens": np.append(np.int32(self.start), kept[:-1]),
            f"{DECODER}targets": kept,
            f"{DECODER}loss_weights": np.ones(len(kept), np.float32),
        }
        return [Item(arrays, cut or len(wanted) > len(kept))]

    def request(self, text: str, room: int | None = None) -> tuple[list[int], bool]:
        """What is read of a text before anything is written, and whether it was cut."""
        room = self.limit if room is None else room
        if self.start is None:
            before = around(self.tokenizer, pair=False).before
            ids, cut = fitted(lambda text: self.tokenizer.encode(self.prompt.replace(SLOT, text)), text, room - len(before))
            return [*before, *ids], cut
        whole = lambda text: encode_text(self.tokenizer, self.prompt.replace(SLOT, text), None, 2**31).ids.tolist()  # noqa: E731
        return fitted(whole, text, room)

    def _behind(self, text: str, target: str) -> Item:
        end = [] if self.tokenizer.eos_id is None else [self.tokenizer.eos_id]
        wanted = [*self.tokenizer.encode(target), *end]
        kept = wanted[: self.target_limit]
        ids, cut = self.request(text, self.limit - len(kept))
        arrays, _ = next_tokens([*ids, *kept], [False] * len(ids) + [True] * len(kept), self.limit)
        return Item(arrays, cut or len(kept) < len(wanted))


@dataclass(frozen=True, kw_only=True)
class TextToText(TaskDefaults):
    """Write the text of `target_feature`, given that of `data.text_feature`; the loss is the mean over its tokens."""

    reports: ClassVar[Reports] = Reports(unit="examples", accuracy=True)
    metrics: ClassVar[Mapping[str, Direction]] = TOKEN_METRICS

    prompt: str | None = None
    """What stands around the text, {text} in its place. By default nothing before an encoder, headings before a decoder."""
    target_feature: str = "target"
    """The feature that holds the text to write."""
    references_feature: str = "targets"
    """The feature with all texts that would be right, for the scores of what is written; where there is none, the target."""
    target_len: int | None = None
    """The most tokens to write. By default data.seq_len for a decoder behind an encoder, half of it for one that also reads."""
    num_beams: int | None = None
    """Write with a beam search of this width. By default the likeliest token each time."""

    def __post_init__(self) -> None:
        if self.prompt is not None and SLOT not in self.prompt:
            raise ValueError(f"objective.prompt must have {SLOT} where the text goes: got {self.prompt!r}")
        for name in ("target_len", "num_beams"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"objective.{name} must be at least 1: got {value}")

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        config = task_data("TextToText", data)
        if isinstance(model, EncoderDecoderConfig):
            check_encoder_decoder("TextToText", model, config.seq_len, self._target_len(config, model), loss)
        else:
            check_decoder("TextToText", model, data, loss)
            if self._target_len(config, model) >= config.seq_len:
                raise ValueError(
                    f"objective.target_len must leave room for the text in data.seq_len={config.seq_len}: got {self.target_len}"
                )

    def _target_len(self, data: AnyDataConfig, model: ModelConfig) -> int:
        seq_len = task_data("TextToText", data).seq_len
        return self.target_len or (seq_len if isinstance(model, EncoderDecoderConfig) else seq_len // 2)

    def metrics_of(self, data: AnyDataConfig) -> Mapping[str, Direction]:
        """Those of each token, and of the texts that the model writes."""
        return {**self.metrics, **written_metrics()}

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        """Of a decoder alone; behind an encoder its arrays have names of their own, and lengths that follow from each batch."""
        return decoder_fields("TextToText", data)

    def fields_for(self, model: ModelConfig, data: AnyDataConfig) -> dict[str, Field]:
        """Likewise of any model, as wide as its texts may be."""
        if not isinstance(model, EncoderDecoderConfig):
            return self.fields(data)
        config = task_data("TextToText", data)
        read, written = (config.seq_len,), (self._target_len(config, model),)
        names = ("tokens", "targets", "positions", "segment_ids")
        return {
            **{name: Field(read) for name in names if name != "targets"},
            **{f"{DECODER}{name}": Field(written) for name in names},
            f"{DECODER}loss_weights": Field(written, np.float32),
        }

    def _encode(self, data: TaskData, model: ModelConfig) -> EncodeTexts:
        behind = isinstance(model, EncoderDecoderConfig)
        return EncodeTexts(
            data.tokenizer,
            data.config.seq_len,
            self._target_len(data.config, model),
            self.prompt or (SLOT if behind else PLAIN),
            data.config.text_feature,
            self.target_feature,
            start_id(model) if behind else None,
        )

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> ExampleRows:
        assert isinstance(data, TaskData)
        data.require(data.config.text_feature, "data.text_feature")
        data.require(self.target_feature, "objective.target_feature")
        encode = self._encode(data, model)
        if encode.start is None:
            return open_rows(data, split, encode, packed=data.config.packing, seed=seed)
        rows = open_rows(data, split, encode, packed=False, seed=seed, row_len=max(encode.limit, encode.target_limit))
        return TextRows(rows.table, rows.records, rows.row_len, rows.packed, rows.seed, rows.drop_cut)

    def make_loss(self, model: Any, config: LossConfig) -> Loss:
        if not isinstance(model, EncoderDecoder):
            return language_loss(model, config)

        def loss(params: Any, batch: DeviceBatch, dropout_key: Array | None) -> LossSums:
            fitting = LossConfig(
                z_loss=config.z_loss,
                label_smoothing=config.label_smoothing,
                chunk=chunk_for(config, batch[f"{DECODER}tokens"].shape[1]),
            )
            named = dict(batch) | {name: batch[f"{DECODER}{name}"] for name in ("targets", "loss_weights")}
            return make_encoder_decoder_loss(model, fitting)(params, named, dropout_key)

        return loss

    def make_predict(self, model: Any, config: LossConfig) -> Predict:
        if not isinstance(model, EncoderDecoder):
            return language_predict(model, config)

        def predict(params: Any, batch: DeviceBatch) -> tuple[LossSums, dict[str, Array]]:
            names = ("positions", "segment_ids", f"{DECODER}positions", f"{DECODER}segment_ids")
            given: Any = {name: batch[name] for name in names}
            output: Any = model.apply({"params": params}, batch["tokens"], batch[f"{DECODER}tokens"], **given, unembed=False)
            parts = decoder_unembed_parts(model.config, params)
            probs = target_probs(model.config.decoder, parts, output.hidden, batch[f"{DECODER}targets"], config.chunk)
            found = {"items": batch[f"{DECODER}items"], "log_probs": probs.log_probs, "best": probs.best}
            return probs.sums(batch[f"{DECODER}loss_weights"]), found

        return predict

    def score(self, found: Found, rows: ExampleRows, data: TaskData) -> Scores:
        return token_scores(found)

    def show(self, found: Found, rows: ExampleRows, data: TaskData) -> str:
        """The first texts, each with the loss of its target."""
        losses, counts = per_item(found, -found["log_probs"])
        lines = []
        for item, loss in zip(np.unique(found["items"])[:SHOWN], losses / counts, strict=False):
            lines.append(f"[{loss:.2f}] {' '.join(record_of(rows, int(item))[data.config.text_feature].split())[:200]}")
        return "\n".join(lines)

    def write(self, model: Any, params: Any, rows: ExampleRows, data: TaskData, *, examples: int = 100) -> Written:
        """What the model writes for the first texts of a split: `.scores()` says how good it is, `.show()` what it is."""
        encode = self._encode(data, model.config)
        prompts, requests, references = [], [], []
        for number in range(min(examples, len(rows.records))):
            record = rows.records[number]
            prompts.append(record[encode.text])
            requests.append(
                encode.request(record[encode.text], None if encode.start is not None else encode.limit - encode.target_limit)[0]
            )
            references.append(list(record.get(self.references_feature) or [record[self.target_feature]]))
        most = encode.target_limit
        texts = write_texts(model, params, data.tokenizer, requests, max_tokens=most, num_beams=self.num_beams)
        return Written(prompts, texts, references)
