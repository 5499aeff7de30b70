"""What does the network compute?

`Transformer(config).apply({"params": params}, tokens, ...) -> Output`: training, prefill and decoding are this one
call. Parameters are plain nested dicts; the cache is passed in and handed back; blocks are chosen by the config.
"""

from jaxllm.models.cache import Cache, init_cache, widen_cache
from jaxllm.models.config import TransformerConfig
from jaxllm.models.count import count_params, train_flops_per_token
from jaxllm.models.transformer import (
    Output,
    Transformer,
    abstract_params,
    init_params,
    unembed_hidden,
    unstack_layers,
)

__all__ = [
    "Cache",
    "Output",
    "Transformer",
    "TransformerConfig",
    "abstract_params",
    "count_params",
    "init_cache",
    "init_params",
    "train_flops_per_token",
    "unembed_hidden",
    "unstack_layers",
    "widen_cache",
]
