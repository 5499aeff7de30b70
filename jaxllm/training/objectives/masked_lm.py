"""Masked language modeling: guess hidden tokens from both sides (BERT, arXiv:1810.04805), anew at every position of the
stream (RoBERTa, arXiv:1907.11692), by tokens, words or spans (SpanBERT, arXiv:1907.10529)."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from jax import Array
from jaxtyping import Bool, Int32, Int64, UInt64

from jaxllm.data import Batch, Data, Tokenizer
from jaxllm.data.rows import Rows
from jaxllm.models import Model, ModelConfig, Output, Transformer, unembed_parts
from jaxllm.sharding import einsum, shard
from jaxllm.training.cross_entropy import LossConfig, LossSums
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.loss import Loss, token_loss, with_router_losses
from jaxllm.training.objectives.examples import Examples
from jaxllm.training.objectives.marks import Entries, mask_id
from jaxllm.training.objectives.noise import compact, covered, drawn_spans, geometric, uniforms
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports, check_chunk, check_stack, text_config


@dataclass(frozen=True, kw_only=True)
class MaskedLM:
    """Guess tokens that are hidden behind a mask, or replaced by others, or left as they are."""

    reports: ClassVar[Reports] = Reports(accuracy=True)

    fraction: float = 0.15
    """Share of the tokens to guess."""
    masked: float = 0.8
    """Share of those that the mask stands for."""
    random: float = 0.1
    """Share of those that a random token stands for; the rest stay as they are."""
    whole_words: bool = False
    """Choose whole words instead of tokens."""
    spans: Literal["single", "geometric"] = "single"
    """Choose tokens (or words) each by itself, or runs of them of 1 to 10, with geometric lengths; a run is masked, replaced
    or left as a whole."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"objective.fraction must be in (0, 1): got {self.fraction}")
        if self.masked < 0 or self.random < 0 or self.masked + self.random > 1:
            raise ValueError(
                "objective.masked and objective.random must be shares that add up to 1 at most: got "
                f"{self.masked} and {self.random}"
            )

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        check_stack("MaskedLM", model, data, LossConfig(), causal=False)
        if text_config(data).seq_len < 4:
            raise ValueError(f"objective MaskedLM needs data.seq_len of at least 4: got {text_config(data).seq_len}")
        check_chunk(loss, self.most(text_config(data).seq_len), "the places for hidden tokens in a row")

    def most(self, seq_len: int) -> int:
        """Places for hidden tokens in a row, so that logits are computed for these alone. It takes a deviation of more than
        four standard deviations for a row to hide more; what is above is not hidden then."""
        return min(seq_len, 8 * math.ceil(1.5 * self.fraction * seq_len / 8 + 1))

    def vocab_size(self, tokenizer: Tokenizer, data: AnyDataConfig) -> int:
        return max(tokenizer.vocab_size, mask_id(tokenizer) + 1)

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        seq_len = text_config(data).seq_len
        places = (self.most(seq_len),)
        read = {name: Field((seq_len,)) for name in ("tokens", "positions", "segment_ids")}
        return read | {"hidden": Field(places), "targets": Field(places), "loss_weights": Field(places, np.float32)}

    def tokens(self, data: AnyDataConfig) -> int:
        return text_config(data).seq_len

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> Rows:
        """Rows of text between the tokenizer's marks for the beginning and the end of a text, [CLS] and [SEP], where it has
        them."""
        assert isinstance(data, Data)
        make = MaskTokens.of(self, data.tokenizer, self.most(data.config.seq_len))
        length = data.config.seq_len - (make.first is not None) - (make.last is not None)
        return Examples(data.rows_of_length(length, split, seed=seed), make)

    def make_loss(self, model: Model, config: LossConfig) -> Loss:
        assert isinstance(model, Transformer)

        def loss(params: Any, batch: DeviceBatch, dropout_key: Array | None) -> LossSums:
            output: Output = model.apply(  # type: ignore[assignment]
                {"params": params},
                batch["tokens"],
                positions=batch["positions"],
                segment_ids=batch["segment_ids"],
                dropout_key=dropout_key,
                unembed=False,
            )
            # A product with one-hot rows instead of a gather: its gradient is no scatter, and layouts follow by themselves.
            places = jax.nn.one_hot(batch["hidden"], batch["tokens"].shape[1], dtype=output.hidden.dtype)
            places = shard(places, "batch", None, "time")
            hidden = einsum("BCT,BTD->BCD", places, output.hidden, out=("batch", "time", "embed"))
            sums = token_loss(
                model.config, config, unembed_parts(model.config, params), hidden, batch["targets"], batch["loss_weights"]
            )
            return with_router_losses(sums, model.config, output, batch["segment_ids"])

        return loss


@dataclass(frozen=True)
class MaskTokens:
    """Rows of text, framed and masked: `tokens` with masks, and of each place where something is to be guessed the index in the
    row, `hidden`, and the token, `targets`."""

    objective: MaskedLM
    places: int
    mask: int
    first: int | None
    """Mark before the first token of a row."""
    last: int | None
    """Mark after its last."""
    special: Bool[np.ndarray, " V"] = field(repr=False)
    """Ids that are never chosen."""
    first_letter: Bool[np.ndarray, " V"] = field(repr=False)
    last_letter: Bool[np.ndarray, " V"] = field(repr=False)

    @classmethod
    def of(cls, objective: MaskedLM, tokenizer: Tokenizer, places: int) -> "MaskTokens":
        entries = Entries(tokenizer)
        tables = entries.special, entries.first_letter, entries.last_letter
        return cls(objective, places, mask_id(tokenizer), tokenizer.cls_id, tokenizer.sep_id, *tables)

    def __call__(self, batch: Batch, keys: UInt64[np.ndarray, " B"]) -> Batch:
        tokens, segments, positions = framed(batch, self.first, self.last)
        open_ = (segments > 0) & ~self.special[tokens]
        unit = self._units(tokens, segments, open_)
        row = np.arange(len(tokens))[:, None]
        if self.objective.spans == "geometric":
            number = self._in_spans(keys, unit)
            chosen, group = open_ & (number > 0)[row, unit], number[row, unit]
        else:
            chosen = open_ & (uniforms(keys, 0, tokens.shape[1]) < self.objective.fraction)[row, unit]
            group = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
        # What finds no place stays as it is, a word as a whole.
        beyond = np.zeros((len(tokens), tokens.shape[1] + 1), bool)
        beyond[np.nonzero(over := np.cumsum(chosen, axis=1) > self.places)[0], unit[over]] = True
        chosen &= ~beyond[row, unit]
        kind = uniforms(keys, 8, tokens.shape[1] + 1)[row, group]
        others = np.flatnonzero(~self.special).astype(np.int32)
        other = others[np.floor(uniforms(keys, 9, tokens.shape[1]) * len(others)).astype(np.int64)]
        shown = np.where(kind < self.objective.masked + self.objective.random, other, tokens)
        shown = np.where(kind < self.objective.masked, np.int32(self.mask), shown)
        hidden, count = compact(np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape), chosen, self.places)
        return {
            "tokens": np.where(chosen, shown, tokens),
            "positions": positions,
            "segment_ids": segments,
            "hidden": hidden,
            "targets": compact(tokens, chosen, self.places)[0],
            "loss_weights": (np.arange(self.places) < count[:, None]).astype(np.float32),
        }

    def _units(
        self, tokens: Int32[np.ndarray, "B T"], segments: Int32[np.ndarray, "B T"], open_: Bool[np.ndarray, "B T"]
    ) -> Int64[np.ndarray, "B T"]:
        """Number in its row of what each token is chosen with: of itself, or of its word."""
        if not self.objective.whole_words:
            return np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
        goes_on = self.first_letter[tokens[:, 1:]] & self.last_letter[tokens[:, :-1]]
        goes_on &= open_[:, 1:] & open_[:, :-1] & (segments[:, 1:] == segments[:, :-1])
        return np.cumsum(np.pad(~goes_on, ((0, 0), (1, 0))), axis=1)

    def _in_spans(self, keys: UInt64[np.ndarray, " B"], unit: Int64[np.ndarray, "B T"]) -> Int64[np.ndarray, "B units"]:
        """Number of the span that each unit is in, from 1; 0 where it is in none."""
        length = unit[:, -1] + 1
        budget = np.maximum(np.round(length * self.objective.fraction), 1).astype(np.int64)
        return covered(drawn_spans(keys, 0, length, budget, geometric(0.2, 10), unit.shape[1]))


def framed(
    batch: Batch, first: int | None, last: int | None
) -> tuple[Int32[np.ndarray, "B T"], Int32[np.ndarray, "B T"], Int32[np.ndarray, "B T"]]:
    """Tokens, segments and positions of rows with one mark before them and one after; a mark belongs to the document beside
    it."""
    tokens, segments, positions = batch["tokens"], batch["segment_ids"], batch["positions"]
    B = len(tokens)
    if first is not None:
        positions = positions + (segments == segments[:, :1]) * (segments > 0)
        columns = (np.full(B, first), segments[:, 0], np.zeros(B))
        tokens, segments, positions = (
            np.concatenate([column[:, None].astype(np.int32), array], axis=1)
            for column, array in zip(columns, (tokens, segments, positions), strict=True)
        )
    if last is not None:
        row, end = np.arange(B), (segments > 0).sum(axis=1)
        tokens, segments, positions = (np.pad(array, ((0, 0), (0, 1))) for array in (tokens, segments, positions))
        before = np.maximum(end - 1, 0)
        tokens[row, end], segments[row, end] = last, segments[row, before]
        positions[row, end] = positions[row, before] + 1
    return tokens, segments, positions.astype(np.int32)
