"""Prefix tuning, prompt tuning and P-tuning in PEFT's files: one tensor, `prompt_embeddings`.

Of a prefix it is [n, L 2 K H], keys and values of each layer in turn, as they are cached. Of an encoder-decoder, PEFT gives
decoder layer i those learnt for layer 2 i mod L, L counted in the encoder: so two layers may have the same, and some are never
used. Of prompts it is [n, D], of an encoder-decoder [2 n, D], of which the first n are read.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxllm.finetune.peft.base import Tensors
from jaxllm.finetune.peft.incoming import Incoming
from jaxllm.finetune.peft.modules import Layout
from jaxllm.finetune.prefix import PrefixTuning
from jaxllm.finetune.prompt import Prompt, PromptTuning
from jaxllm.finetune.ptuning import PTuning
from jaxllm.models import EncoderDecoderConfig, TransformerConfig

TENSOR = "prompt_embeddings"


def _tensor(incoming: Incoming) -> Float[np.ndarray, "rows width"]:
    if TENSOR not in incoming.others:
        raise ValueError(f"the tensors beside {incoming.reader.source} must have {TENSOR}: there is none; copy them again")
    return incoming.others[TENSOR].astype(np.float32)


def read_prompt(incoming: Incoming, also: tuple[str, ...]) -> tuple[PromptTuning, Any]:
    """The method, and its parameters; of P-tuning, what its network has made."""
    table, count = _tensor(incoming), incoming.reader.read("num_virtual_tokens")
    method = PromptTuning(tokens=count, initialization="random", also=also)
    width = method.stack(incoming.layout.config).embed_dim
    if len(table) not in (count, 2 * count) or table.shape[1] != width:
        raise ValueError(
            f"{TENSOR} must have shape [{count}, {width}] in this model: got {list(table.shape)}; the adapter was made for "
            f"{incoming.made_for}, load it into that"
        )
    return method, method.outer(incoming.layout.config, {"table": table[:count]})


def write_prompt(layout: Layout, method: Prompt, params: Any) -> tuple[str, dict[str, Any], Tensors]:
    """The peft_type, the config's fields, and the tensor.

    Args:
      params: the whole model's.
    """
    model, stack = layout.config, method.stack(layout.config)
    own = method.inner(model, params)["prompt"]
    table = np.asarray(jax.device_get(method.settled(own)["table"]), np.float32)
    pair = isinstance(model, EncoderDecoderConfig)
    table = np.concatenate([table, np.zeros_like(table)]) if pair else table
    fields = _shared(method.tokens, stack.num_layers, stack.num_heads, stack.embed_dim, pair=pair)
    if isinstance(method, PTuning):
        more = {
            "encoder_reparameterization_type": method.encoder.upper(),
            "encoder_hidden_size": method.hidden or stack.embed_dim,
            "encoder_num_layers": method.layers,
            "encoder_dropout": 0.0,
        }
        return "P_TUNING", fields | more, {TENSOR: table}
    more = {"prompt_tuning_init": "RANDOM", "prompt_tuning_init_text": None, "tokenizer_name_or_path": None}
    return "PROMPT_TUNING", fields | more, {TENSOR: table}


def _shared(tokens: int, layers: int, heads: int, width: int, *, pair: bool) -> dict[str, Any]:
    return {
        "num_virtual_tokens": tokens,
        "token_dim": width,
        "num_transformer_submodules": 2 if pair else 1,
        "num_attention_heads": heads,
        "num_layers": layers,
    }


def read_prefix(incoming: Incoming, also: tuple[str, ...]) -> tuple[PrefixTuning, Any]:
    """The method, and its parameters."""
    layout, reader = incoming.layout, incoming.reader
    stored, count = _tensor(incoming), reader.read("num_virtual_tokens")
    method = PrefixTuning(tokens=count, initialization="random", also=also)
    stack = method.stack(layout.config)
    layers, width = _learnt_layers(layout), stack.kv_heads * stack.head_width
    reader.ignore("num_layers", "num_transformer_submodules")
    if stored.shape != (count, layers * 2 * width):
        raise ValueError(
            f"{TENSOR} must have shape [{count}, {layers * 2 * width}] in this model: got {list(stored.shape)}; the adapter "
            f"was made for {incoming.made_for}, load it into that"
        )
    planes = stored.reshape(count, layers, 2, width)
    own = {}
    for place, (name, leaf) in enumerate((("keys", "key"), ("values", "value"))):
        mine = np.empty_like(planes[:, :, place])
        mine[..., _order(layout, leaf)] = planes[:, :, place]
        mine = mine.reshape(count, layers, stack.kv_heads, stack.head_width).transpose(1, 2, 0, 3)
        own[name] = mine[_source(layout)]
    return method, method.outer(layout.config, own)


def write_prefix(layout: Layout, method: PrefixTuning, params: Any) -> tuple[str, dict[str, Any], Tensors]:
    """As `write_prompt`.

    Raises:
      ValueError: of an encoder-decoder, layers that PEFT gives the same prefix have unlike ones.
    """
    model, stack = layout.config, method.stack(layout.config)
    own = jax.device_get(method.inner(model, method.settle(params))["prefix"])
    layers, width = _learnt_layers(layout), stack.kv_heads * stack.head_width
    planes = np.zeros((method.tokens, layers, 2, width), np.float32)
    for place, (name, leaf) in enumerate((("keys", "key"), ("values", "value"))):
        flat = np.asarray(own[name], np.float32).transpose(2, 0, 1, 3).reshape(method.tokens, stack.num_layers, width)
        flat = flat[..., _order(layout, leaf)]
        written: dict[int, int] = {}
        for layer, source in enumerate(_source(layout)):
            first = written.setdefault(source, layer)
            if not np.array_equal(flat[:, first], flat[:, layer]):
                raise ValueError(
                    f"PEFT gives decoder layers {first} and {layer} of this model the same prefix: here they have different "
                    "ones; keep jaxllm's own layout"
                )
            planes[:, source, place] = flat[:, layer]
    fields = _shared(method.tokens, layers, stack.kv_heads, width, pair=isinstance(model, EncoderDecoderConfig))
    more = {"encoder_hidden_size": width, "prefix_projection": False}
    return "PREFIX_TUNING", fields | more, {TENSOR: planes.reshape(method.tokens, -1)}


def _learnt_layers(layout: Layout) -> int:
    config = layout.config
    return config.encoder.num_layers if isinstance(config, EncoderDecoderConfig) else config.num_layers


def _source(layout: Layout) -> list[int]:
    """Which learnt layer each layer's keys and values are."""
    config = layout.config
    if isinstance(config, TransformerConfig):
        return list(range(config.num_layers))
    learnt, layers = config.encoder.num_layers, config.decoder.num_layers
    if layers > learnt:
        raise ValueError(f"PEFT has no prefix for a decoder of more layers than its encoder: got {layers} and {learnt}")
    return [2 * layer % learnt for layer in range(layers)]


def _order(layout: Layout, name: str) -> Int[np.ndarray, " width"]:
    """Our place of each number of a published key or value."""
    for module in layout.modules.values():
        for part, target in enumerate(module.targets):
            parts = target.path.split("/")
            if parts[-2:] == ["attention", name] and parts[0] != "encoder":
                return module.order.outputs[module.order.owner == part]
    raise ValueError("a prefix needs a model with attention in its blocks: this one has none")
