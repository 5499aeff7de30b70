"""Next-token prediction: -Σ log p(token | tokens before it)."""

from dataclasses import dataclass
from typing import ClassVar

from jaxllm.data import TaskData, Tokenizer
from jaxllm.data.rows import Rows
from jaxllm.models import Model, ModelConfig, Transformer
from jaxllm.training.cross_entropy import LossConfig
from jaxllm.training.loss import Loss, make_loss
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports, check_stack, text_config, text_fields


@dataclass(frozen=True, kw_only=True)
class CausalLM:
    """Predict the next token."""

    reports: ClassVar[Reports] = Reports()

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        check_stack("CausalLM", model, data, loss, causal=True)

    def vocab_size(self, tokenizer: Tokenizer, data: AnyDataConfig) -> int:
        return tokenizer.vocab_size

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        return text_fields(data)

    def tokens(self, data: AnyDataConfig) -> int:
        return text_config(data).seq_len

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> Rows:
        assert not isinstance(data, TaskData)  # `check` has seen to it
        return data.rows(split, seed=seed)

    def make_loss(self, model: Model, config: LossConfig) -> Loss:
        assert isinstance(model, Transformer)
        return make_loss(model, config)
