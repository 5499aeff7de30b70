"""Prompt tuning: n vectors before the embeddings of every text, which learn (arXiv:2104.08691).

A causal model computes with them once and every text goes on behind their keys and values. An encoder reads them together with
each text, one text a row, and what it reads from the first token it reads from the first of them, as PEFT has it. Of a model
with encoder and decoder the encoder has them, and the decoder sees what becomes of them.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxllm.finetune.soft import Soft, arguments, computed_keys_values, look_up_rows, named, sampled_ids
from jaxllm.finetune.targets import whole
from jaxllm.models import EncoderDecoder, ModelConfig, Output, Transformer, TransformerConfig
from jaxllm.models.head import LabelHead
from jaxllm.models.layers import READ, RESIDUAL, Embed
from jaxllm.sharding import shard

# B batch, R 1 or B, T time, n virtual tokens, D residual width


@dataclass(frozen=True, kw_only=True)
class Prompt(Soft):
    """What prompt tuning and P-tuning share: the vectors are there, however they are made."""

    leaf: ClassVar[str | None] = "prompt"
    side: ClassVar = "encoder"

    def slots(self, model: ModelConfig) -> int:
        stack = self.stack(model)
        return self.tokens if stack is model and stack.causal else 0

    def packs(self, model: ModelConfig) -> bool:
        return self.stack(model).causal

    def vectors(self, own: Any) -> Float[Array, "R n D"]:
        """The virtual tokens, in the place of embeddings."""
        table = self.settled(whole(own))["table"]
        return table if table.ndim == 3 else table[None]

    def settled(self, own: Any) -> dict[str, Array]:
        """The method's parameters as a table, [n, D]."""
        return own

    def settle(self, params: Any) -> Any:
        """The parameters with the network that makes the vectors worked in."""
        if "encoder" in params:
            return {**params, "encoder": self.settle(params["encoder"])}
        return {**params, "prompt": self.settled(params["prompt"])}

    def keys_values(self, config: TransformerConfig, params: Any) -> tuple[Array, Array]:
        return computed_keys_values(config, params, self.vectors(params["prompt"]))

    def run(self, module: nn.Module, own: Any, call: Callable, inputs: tuple, key: Array | None) -> Any:
        assert isinstance(module, Transformer) and isinstance(call, partial)
        if module.config.causal:
            return self.run_behind_slots(module, call, inputs)
        return self._run_with_text(module, self.vectors(own), arguments(call, inputs), call.func)

    def _run_with_text(self, module: Transformer, vectors: Array, given: dict[str, Any], call: Callable) -> Output:
        """An encoder's output for each row's text with the virtual tokens before it."""
        config, tokens, n = module.config, given["tokens"], self.tokens
        if given.get("order") is not None:
            raise ValueError(f"method {type(self).__name__} needs an encoder's tokens in their own order: got another")
        self.check_room(config, tokens.shape[1])
        segment_ids = given.get("segment_ids")
        segment_ids = jnp.ones_like(tokens) if segment_ids is None else segment_ids
        for name in ("tokens", "token_types"):
            if given.get(name) is not None:
                given[name] = _behind(given[name], n)
        if given.get("positions") is not None:
            own = jnp.minimum(jnp.arange(n + tokens.shape[1], dtype=jnp.int32), n)[None]
            given["positions"] = _behind(given["positions"], n) + own
        first = _is_virtual(n, n + tokens.shape[1])
        given["segment_ids"] = jnp.where(first, jnp.max(segment_ids, axis=1, keepdims=True), _behind(segment_ids, n))
        scale = config.embed_scale
        virtual = vectors.astype(config.compute_dtype) / jnp.asarray(1 if scale is None else scale, config.compute_dtype)
        with nn.intercept_methods(partial(_embedding, virtual)), nn.intercept_methods(partial(_head, n)):
            out = call(**given)
        is_part = isinstance(module.parent, EncoderDecoder)  # the decoder sees the virtual tokens, too
        return out if is_part else _of_text(config, out, segment_ids, n)


def _behind(x: Int[Array, "B T"], count: int) -> Int[Array, "B _"]:
    """With zeros before each row."""
    return jnp.pad(x, ((0, 0), (count, 0)))


def _is_virtual(count: int, length: int) -> Bool[Array, "1 T"]:
    return (jnp.arange(length) < count)[None]


def _embedding(virtual: Float[Array, "R n D"], call: Callable, inputs: tuple, given: dict[str, Any], context: Any) -> Any:
    """Stands in for the token embedding: its first rows are the virtual tokens."""
    x = call(*inputs, **given)
    if context.method_name != "__call__" or not isinstance(context.module, Embed) or context.module.name != "embed":
        return x
    n = virtual.shape[1]
    padded = jnp.pad(virtual, ((0, 0), (0, x.shape[1] - n), (0, 0)))
    first, rows = (jnp.broadcast_to(part, x.shape) for part in (_is_virtual(n, x.shape[1])[:, :, None], padded))
    return jnp.where(shard(first, *RESIDUAL), shard(rows, *RESIDUAL), shard(x, *RESIDUAL))


def _head(count: int, call: Callable, inputs: tuple, given: dict[str, Any], context: Any) -> Any:
    """Stands in for the head of labels: the mean of a text is over its own tokens."""
    module = context.module
    if context.method_name != "__call__" or not isinstance(module, LabelHead) or module.config.head.read != "mean":
        return call(*inputs, **given)
    hidden, segment_ids = inputs
    segment_ids = shard(segment_ids, "batch", None)
    return call(hidden, jnp.where(_is_virtual(count, segment_ids.shape[1]), 0, segment_ids), **given)


def _of_text(config: TransformerConfig, out: Output, segment_ids: Int[Array, "B T"], count: int) -> Output:
    """The output without virtual tokens. Where a label is read from the first token, the text's first one has the hidden state
    of the first virtual one, for those who read it later."""
    head, hidden = config.head, shard(out.hidden, "batch", None, "embed")
    text = hidden[:, count:]
    if (head.kind == "sequence" or head.pooler) and head.read == "first":
        real = shard(segment_ids, "batch", None) != 0
        first = real & (jnp.cumsum(real, axis=1) == 1)
        text = jnp.where(first[:, :, None], hidden[:, :1], text)
    logits = out.logits
    if logits is not None and logits.ndim == 3:
        last = "vocab" if head.kind == "vocabulary" else "label"
        logits = shard(shard(logits, "batch", None, last)[:, count:], "batch", "time", last)
    return out._replace(hidden=shard(text, *READ), logits=logits)


@dataclass(frozen=True, kw_only=True)
class PromptTuning(Prompt):
    """The vectors themselves learn."""

    initialization: Literal["sampled", "random", "text"] = "sampled"
    """How they begin: as embeddings of tokens drawn from the vocabulary, normal with deviation 1, or as those of a text."""
    text: str | None = None
    """That text; repeated or cut to as many tokens as there are."""
    text_ids: tuple[int, ...] | None = None
    """Its tokens. By default what the tokenizer makes of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.initialization == "text") != (self.text is not None or self.text_ids is not None):
            raise ValueError(
                "method.text is for method.initialization='text', which needs it: got "
                f"{self.text!r} and {self.initialization!r}"
            )
        if self.text_ids is not None and not self.text_ids:
            raise ValueError(f"method.text must have at least one token: got {self.text!r}")
        if self.text_ids is not None and min(self.text_ids) < 0:
            raise ValueError(f"method.text_ids must be numbers of tokens, from 0: got {min(self.text_ids)}")

    def with_tokenizer(self, tokenizer: Any) -> "PromptTuning":
        """The method with the tokens of its text; itself where it has none, or has them already."""
        if self.text is None or self.text_ids is not None:
            return self
        with_special = getattr(tokenizer, "encode_special", None)
        ids = tokenizer.encode(self.text) if with_special is None else with_special(self.text).ids
        return dataclasses.replace(self, text_ids=tuple(int(i) for i in ids))

    def init(self, key: Array, params: Any, axes: Any, model: ModelConfig) -> tuple[Any, Any]:
        config, own = self.stack(model), self.inner(model, params)
        if self.initialization == "random":
            table = jax.random.normal(key, (self.tokens, config.embed_dim), jnp.float32)
        elif self.initialization == "sampled":
            table = look_up_rows(config, own, sampled_ids(own, key, self.tokens))
        else:
            table = look_up_rows(config, own, self._ids(config))
        values, names = named({"table": table}, {"table": ("position", "embed")})
        return self.outer(model, values), self.outer(model, names)

    def _ids(self, config: TransformerConfig) -> list[int]:
        if self.text_ids is None:
            raise ValueError("method.text must have been read by the model's tokenizer: call with_tokenizer, or give text_ids")
        if max(self.text_ids) >= config.vocabulary:
            raise ValueError(f"method.text_ids must be below the vocabulary's {config.vocabulary}: got {max(self.text_ids)}")
        return [self.text_ids[i % len(self.text_ids)] for i in range(self.tokens)]
