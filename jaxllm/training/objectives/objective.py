"""What every objective offers, and what those of one stack of blocks share."""

from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from jaxllm.data import Data, DataConfig, ImageDataConfig, TaskData, TaskDataConfig, Tokenizer
from jaxllm.data.images import ImageData
from jaxllm.data.rows import Rows
from jaxllm.models import EncoderDecoderConfig, Model, ModelConfig, TransformerConfig
from jaxllm.training.cross_entropy import LossConfig
from jaxllm.training.loss import Loss

AnyDataConfig = DataConfig | ImageDataConfig | TaskDataConfig
AnyData = Data | ImageData | TaskData


class Field(NamedTuple):
    """One array of an example: an array of a batch without its first axis."""

    shape: tuple[int, ...]
    dtype: type = np.int32


class Reports(NamedTuple):
    """How an evaluation speaks of the objective's targets."""

    unit: str = "tokens"
    """What is counted."""
    perplexity: bool = True
    accuracy: bool = False
    """Whether the share of targets that are the most likely class is reported, in training too."""


class Objective(Protocol):
    """How rows of data become examples, on the host, and what is minimized on the device.

    `rows` gives examples of fixed shape that are a pure function of the seed and the global position. `make_loss` gives
    `loss(params, batch, dropout_key) -> LossSums`.
    """

    reports: ClassVar[Reports]

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        """Refuse a model or data that this objective cannot work with."""
        ...

    def vocab_size(self, tokenizer: Tokenizer, data: AnyDataConfig) -> int:
        """Entries that the model needs: the tokenizer's, and those that the objective adds."""
        ...

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        """The arrays of an example."""
        ...

    def tokens(self, data: AnyDataConfig) -> int:
        """Tokens, or images, of an example, for the speed that is reported; 1 where examples are counted."""
        ...

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> Rows:
        """The examples of a split; in its own order without a seed."""
        ...

    def make_loss(self, model: Model, config: LossConfig) -> Loss: ...


def text_fields(data: AnyDataConfig, *more: str) -> dict[str, Field]:
    """The arrays of an example for models of one stack."""
    shape = (text_config(data).seq_len,)
    names = ("tokens", "targets", "positions", "segment_ids", *more)
    fields = {"tokens": Field(shape), "targets": Field(shape), "loss_weights": Field(shape, np.float32)}
    return fields | {name: Field(shape) for name in names[2:]}


def text_config(data: AnyDataConfig) -> DataConfig:
    assert isinstance(data, DataConfig)  # `check` has seen to it
    return data


def check_text(name: str, data: AnyDataConfig) -> DataConfig:
    if not isinstance(data, DataConfig):
        raise ValueError(f"objective {name} reads text: got {type(data).__name__} as data; use a DataConfig")
    return data


def check_stack(name: str, model: ModelConfig, data: AnyDataConfig, loss: LossConfig, *, causal: bool) -> None:
    """Of objectives that a `TransformerConfig` learns by, with logits of the vocabulary for each of `seq_len` tokens."""
    config = check_text(name, data)
    if not isinstance(model, TransformerConfig):
        raise ValueError(f"objective {name} needs a TransformerConfig as model: got {type(model).__name__}")
    if model.causal != causal or model.cross_attention:
        wants = "causal=True" if causal else "causal=False"
        raise ValueError(f"objective {name} needs model.{wants} and no cross_attention: got causal={model.causal}")
    if model.head.kind != "vocabulary":
        raise ValueError(f"objective {name} needs model.head.kind='vocabulary': got {model.head.kind!r}")
    if config.seq_len > model.context_len:
        raise ValueError(
            f"data.seq_len must not exceed model.context_len: got {config.seq_len} and {model.context_len}; "
            "shorten the rows or widen the context"
        )
    check_chunk(loss, config.seq_len, "data.seq_len")


def check_encoder_decoder(name: str, model: ModelConfig, source_len: int, target_len: int, loss: LossConfig) -> None:
    """Of objectives that an `EncoderDecoderConfig` learns by."""
    if not isinstance(model, EncoderDecoderConfig):
        raise ValueError(f"objective {name} needs an EncoderDecoderConfig as model: got {type(model).__name__}")
    for side, length in (("encoder", source_len), ("decoder", target_len)):
        context_len = getattr(model, side).context_len
        if length > context_len:
            raise ValueError(
                f"the {side}'s {length} tokens a row must not exceed model.{side}.context_len: got {context_len}; shorten the "
                "rows or widen the context"
            )
    check_chunk(loss, target_len, "the decoder's tokens a row")


def check_chunk(loss: LossConfig, seq_len: int, what: str) -> None:
    if loss.chunk is not None and seq_len % loss.chunk:
        raise ValueError(f"loss.chunk must divide {what}: got loss.chunk={loss.chunk}, {what}={seq_len}")
