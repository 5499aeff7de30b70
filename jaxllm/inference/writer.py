"""The part of a model that writes text: a decoder alone, or the one of an encoder-decoder, behind the same functions."""

import dataclasses
from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxllm.models import (
    Cache,
    Encoded,
    EncoderDecoder,
    Output,
    Transformer,
    TransformerConfig,
    encoded,
    unembed_decoder,
    unembed_hidden,
    unstack_layers,
)

Writer = Transformer | EncoderDecoder


def writer_config(model: Writer) -> TransformerConfig:
    """The config of the stack that writes."""
    return model.config.decoder if isinstance(model, EncoderDecoder) else model.config


def check_writer(model: Writer) -> None:
    """Refuse a model that reads only."""
    config = writer_config(model)
    if not config.causal or config.head.kind != "vocabulary":
        raise ValueError(
            "generate needs a model that writes, such as GPT or T5: got one that only reads, such as BERT "
            f"(causal={config.causal}, head.kind={config.head.kind!r}); call it, or ask it to embed texts"
        )


def write_tokens(
    model: Writer, params: Any, tokens: Int[Array, "B T"], cache: Cache, memory: Encoded | None = None, **arguments: Any
) -> Output:
    """Hidden states of these tokens and the cache with them in it; no logits, since only the last one's are needed."""
    variables: Any = {"params": params}
    if isinstance(model, EncoderDecoder):
        arguments |= {"memory": memory, "method": "decode"}
    return model.apply(variables, tokens, cache=cache, unembed=False, **arguments)  # type: ignore[return-value]


def unembed(model: Writer, params: Any, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """Logits, in float32, from hidden states."""
    if isinstance(model, EncoderDecoder):
        return unembed_decoder(model.config, params, hidden)
    return unembed_hidden(model.config, params, hidden)


@partial(jax.jit, static_argnums=0)
def encode(model: EncoderDecoder, params: Any, tokens: Int[Array, "B S"], segment_ids: Int[Array, "B S"]) -> Encoded:
    """What the encoder makes of texts padded on the right."""
    out: Any = model.apply({"params": params}, tokens, segment_ids=segment_ids, method="encode")
    return encoded(out.hidden, segment_ids)


class DecodeParams(NamedTuple):
    """Parameters twice over, sharing memory where that can be: a prompt and a single token are read best in different forms."""

    prompts: Any
    """To read prompts with: layers stacked, so that one block is traced and compiled, or one tree a layer."""
    tokens: Any
    """To write token after token with: one tree a layer."""


def decode_params(model: Writer, params: Any) -> DecodeParams:
    """Parameters as decoding wants them: one tree a layer, matrices and tables in the compute type.

    One token needs every weight once, so reading them is what takes the time: a stack would be copied layer by layer,
    and a wider type read and converted for each token. Parameters that are like this already come back as they are; on a
    CPU the layers of a stack are shown without copying it.
    """
    if isinstance(params, DecodeParams):
        return params
    has_encoder, config, params = isinstance(model, EncoderDecoder), writer_config(model), model.prepare(params)
    params = jax.tree_util.tree_map_with_path(lambda path, x: _as_computed(config.compute_dtype, path, x), params)
    devices = {device for x in jax.tree.leaves(params) for device in x.devices()}
    if len(devices) == 1:  # the same place has several names; under one name every program is compiled once
        params = jax.tree.map(lambda x: jax.device_put(x, next(iter(devices))) if x.committed else x, params)
    writer = params["decoder"] if has_encoder else params
    if isinstance(writer["layers"], tuple):
        return DecodeParams(params, params)
    views = _can_view(devices)
    writer = {**writer, "layers": (_views if views else _separated)(writer["layers"], config.num_layers)}
    separate = {**params, "decoder": writer} if has_encoder else writer
    return DecodeParams(params if views else separate, separate)


def abstract_decode_params(model: Transformer, params: Any) -> DecodeParams:
    """What `decode_params` makes of parameters that need not exist: shapes, types and layouts, to plan with.

    Args:
      params: of a decoder, each with its sharding.
    """
    dtype = model.config.compute_dtype

    def computed(path: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, dtype if _is_computed_with(path) else leaf.dtype, sharding=leaf.sharding)

    def of_a_layer(leaf: Any) -> jax.ShapeDtypeStruct:
        layout = NamedSharding(leaf.sharding.mesh, PartitionSpec(*leaf.sharding.spec[1:]))
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype, sharding=layout)

    params = jax.tree_util.tree_map_with_path(computed, params)
    if isinstance(params["layers"], tuple):
        return DecodeParams(params, params)
    separate = {**params, "layers": (jax.tree.map(of_a_layer, params["layers"]),) * model.config.num_layers}
    (devices,) = {frozenset(leaf.sharding.device_set) for leaf in jax.tree.leaves(params)}
    return DecodeParams(params if _can_view(devices) else separate, separate)


def prompt_model(model: Writer, params: Any) -> Writer:
    """The model that reads prompts with these parameters: it scans over layers that are stacked."""
    has_encoder = isinstance(model, EncoderDecoder)
    if isinstance((params["decoder"] if has_encoder else params)["layers"], tuple):
        return model
    scanned = dataclasses.replace(writer_config(model), layer_loop="scan")
    return model.clone(config=dataclasses.replace(model.config, decoder=scanned) if has_encoder else scanned)


def _as_computed(dtype: str, path: tuple[Any, ...], x: Array) -> Array:
    return x.astype(dtype) if _is_computed_with(path) and x.dtype != dtype else x


def _is_computed_with(path: tuple[Any, ...]) -> bool:
    """Whether these parameters are multiplied by, or looked up, in the type that is computed with."""
    return path[-1].key in ("kernel", "table")


def _can_view(devices: Collection[Any]) -> bool:
    """Whether a layer can be shown without being copied out of its stack."""
    return len(devices) == 1 and all(device.platform == "cpu" for device in devices)


def _views(layers: Any, num_layers: int) -> tuple[Any, ...]:
    """Each layer's part of the memory that the stack has; JAX takes over an aligned NumPy array as it is."""

    def view(x: Array, index: int) -> Array:
        return jax.device_put(np.asarray(x)[index], x.sharding if x.committed else None)

    return tuple(jax.tree.map(lambda x, index=index: view(x, index), layers) for index in range(num_layers))


@partial(jax.jit, static_argnums=1)
def _separated(layers: Any, num_layers: int) -> tuple[Any, ...]:
    return unstack_layers(layers, num_layers)
