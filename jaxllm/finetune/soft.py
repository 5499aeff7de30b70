"""What methods with virtual tokens share: places before every text, which learn while the model stays as it is.

To a stack that is read causally, and to any that only gets keys and values, they are slots of the key/value cache that are
there before the text: it goes on behind them, at positions from n on. So they are computed once for all rows, texts packed into
one row all see them, and generation differs from that of the model alone in the cache that it begins with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from jaxllm.finetune.method import HEADS, Defaults, listed
from jaxllm.finetune.targets import whole
from jaxllm.models import (
    Cache,
    Encoded,
    EncoderDecoderConfig,
    ModelConfig,
    Output,
    Transformer,
    TransformerConfig,
    VisionConfig,
    init_cache,
    slotted_cache,
)
from jaxllm.models.cache import EVERY
from jaxllm.models.layers import take
from jaxllm.sharding import Axes

# B batch, R 1 or B, T time, L layers, K key/value heads, n virtual tokens, H head width, D residual width, V vocabulary

LEAVES = ("prefix", "prompt")
"""Names of the parameters of such methods, in those of a stack."""
Side = Literal["encoder", "decoder"]
TABLES = ("learned", "relative_key", "relative_key_query")
"""Kinds of position that end with the context."""


@dataclass(frozen=True, kw_only=True)
class Soft(Defaults):
    side: ClassVar[Side]
    """The stack of an encoder-decoder that has them."""

    tokens: int = 20
    """Virtual tokens, n."""
    also: tuple[str, ...] = HEADS
    """Paths of parameters of the model that learn, too, * for any text; by default the head of a task."""

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"method.tokens must be at least 1: got {self.tokens}")
        hidden = getattr(self, "hidden", None)  # of a network that makes the tokens
        if hidden is not None and hidden < 1:
            raise ValueError(f"method.hidden must be at least 1: got {hidden}")

    @property
    def dropout(self) -> float:
        return 0.0

    def stack(self, model: ModelConfig) -> TransformerConfig:
        """The config of the stack that has the virtual tokens."""
        if isinstance(model, VisionConfig):
            raise ValueError(f"method {type(self).__name__} is for models of text: this one is of images; take LoRA")
        return getattr(model, self.side) if isinstance(model, EncoderDecoderConfig) else model

    def check(self, model: ModelConfig) -> None:
        stack = self.stack(model)
        if stack.pruned_heads:
            raise ValueError(f"method {type(self).__name__} needs a model with all its heads: this one was pruned; take LoRA")
        if self.tokens >= stack.context_len:
            raise ValueError(
                f"method.tokens must leave room in the model's context of {stack.context_len} tokens: got {self.tokens}"
            )

    def slots(self, model: ModelConfig) -> int:
        """Slots of the cache of the stack that writes which are there before a text."""
        raise NotImplementedError

    def packs(self, model: ModelConfig) -> bool:
        """Whether several texts may stand in one row; otherwise each needs one of its own."""
        return True

    def learns(self, path: str) -> bool:
        return self.leaf in path.split("/") or listed(path, self.also)

    def merge(self, params: Any) -> None:
        """Places before a text cannot be worked into a model."""

    def inner(self, model: ModelConfig, tree: Any) -> Any:
        """The part of a tree of parameters that belongs to the stack."""
        return tree[self.side] if isinstance(model, EncoderDecoderConfig) else tree

    def outer(self, model: ModelConfig, own: Any) -> Any:
        """Parameters of the stack in the tree of the model's."""
        return {self.side: {self.leaf: own}} if isinstance(model, EncoderDecoderConfig) else {self.leaf: own}

    def keys_values(self, config: TransformerConfig, params: Any) -> tuple[Array, Array]:
        """What stands in the slots, each [L, R, K, n, H].

        Args:
          config: the stack's.
          params: the stack's.
        """
        raise NotImplementedError

    def begin_cache(self, model: ModelConfig, params: Any, batch_size: int, cache_len: int, *, stacked: bool) -> Cache:
        """The cache that texts begin with."""
        config = self.stack(model)
        found = self.keys_values(config, self.inner(model, params))
        return slotted_cache(config, *found, batch_size, cache_len, stacked=stacked)

    def run_behind_slots(self, module: nn.Module, call: partial, inputs: tuple) -> Output:
        """The stack's output for a text, with a cache that has begun with the slots, or without one."""
        assert isinstance(module, Transformer)
        config, given = module.config, arguments(call, inputs)
        tokens, positions = given["tokens"], given.get("positions")
        if positions is not None:
            given["positions"] = positions + self.tokens
        if given.get("cache") is not None:
            return call.func(**given)
        self.check_room(config, tokens.shape[1])
        found = self.keys_values(config, module.variables["params"])
        cache = slotted_cache(config, *found, *tokens.shape)
        return call.func(**{**given, "cache": cache})._replace(cache=None)

    def check_room(self, config: TransformerConfig, count: int) -> None:
        """Beyond the last of a table of positions all would be at the last, without a word."""
        if config.position in TABLES and self.tokens + count > config.context_len:
            raise ValueError(
                f"{self.tokens} virtual tokens and {count} tokens must fit into the model's context of {config.context_len}: "
                "shorten the rows (data.seq_len), or take fewer method.tokens"
            )


def arguments(call: partial, inputs: tuple) -> dict[str, Any]:
    """What a stack is called with, by name."""
    return {**call.keywords, **({"tokens": inputs[0]} if inputs else {})}


def computed_keys_values(
    config: TransformerConfig, params: Any, virtual: Float[Array, "R n D"]
) -> tuple[Float[Array, "L R K n H"], Float[Array, "L R K n H"]]:
    """The keys and values that a stack makes of virtual tokens at its beginning.

    Args:
      params: the stack's; a decoder's that attends to an encoder's output sees none here.
      virtual: vectors in the place of token embeddings, those scaled as the config has it.
    """
    R, n, D = virtual.shape
    table = virtual.reshape(R * n, D).astype(config.compute_dtype)
    if config.embed_scale is not None:
        table = table / jnp.asarray(config.embed_scale, table.dtype)
    tokens = jnp.arange(R * n, dtype=jnp.int32).reshape(R, n)
    given: dict[str, Any] = {"table": table, "cache": init_cache(config, R, n), "segment_ids": jnp.full_like(tokens, EVERY)}
    if config.cross_attention:
        layers = params["layers"][0] if isinstance(params["layers"], tuple) else params["layers"]
        width = layers["cross_attention"]["key"]["kernel"].shape[-3]
        given["memory"] = Encoded(jnp.zeros((R, 1, width), config.compute_dtype), jnp.full((R, 1), EVERY, jnp.int32))
    own = {name: value for name, value in params.items() if name not in LEAVES}
    out: Any = Transformer(config, parent=None).apply({"params": own}, tokens, **given, unembed=False)
    return out.cache.keys, out.cache.values


def look_up_rows(config: TransformerConfig, params: Any, ids: Sequence[int] | Array) -> Float[Array, "n D"]:
    """Embeddings of these tokens as the stack's blocks read them, before positions, in float32."""
    ids = jnp.asarray(ids, jnp.int32)
    rows = whole(take(params["embed"]["table"], ids[None], ("batch", "time", "embed")))[0].astype(jnp.float32)
    return rows if config.embed_scale is None else rows * config.embed_scale


def sampled_ids(params: Any, key: Array, count: int) -> Array:
    """Tokens drawn from the vocabulary."""
    return jax.random.randint(key, (count,), 0, params["embed"]["table"].shape[0])


def uniform(key: Array, shape: tuple[int, ...], inputs: int) -> Array:
    """Uniform in ±1/√inputs, as layers of small networks begin."""
    return jax.random.uniform(key, shape, jnp.float32, -(inputs**-0.5), inputs**-0.5)


def named(values: Any, names: Any) -> tuple[Any, Any]:
    """Parameters, and tuples of logical axes in the same tree as `Axes`."""
    return values, jax.tree.map(lambda axes: Axes(axes), names, is_leaf=lambda node: isinstance(node, tuple))
