"""What does the network compute?

`Transformer(config).apply({"params": params}, tokens, ...) -> Output`: training, prefill and decoding are this one
call. `EncoderDecoder` and `VisionTransformer` are made of the same blocks. Parameters are plain nested dicts; the cache
is passed in and handed back; blocks are chosen by the config.
"""

from jaxllm.models.cache import Cache, init_cache, slotted_cache, take_rows, unstack_cache, widen_cache
from jaxllm.models.config import TransformerConfig
from jaxllm.models.count import count_params, num_params, train_flops_per_token
from jaxllm.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, decoder_unembed_parts, unembed_decoder
from jaxllm.models.experts import router_losses
from jaxllm.models.head import label_logits, unembed, unembed_hidden, unembed_parts
from jaxllm.models.init import Model, ModelConfig, abstract_params, init_params, make_model
from jaxllm.models.kernels import attention_kernel, kernel_takes
from jaxllm.models.options import ExpertsConfig, HeadConfig, RopeScaling
from jaxllm.models.partition import overlay, partition, path_of, paths
from jaxllm.models.prune import prune_heads
from jaxllm.models.stack import unstack_layers
from jaxllm.models.transformer import Encoded, Output, Transformer, encoded
from jaxllm.models.vision import VisionConfig, VisionTransformer

__all__ = [
    "Cache",
    "Encoded",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "ExpertsConfig",
    "HeadConfig",
    "Model",
    "ModelConfig",
    "Output",
    "RopeScaling",
    "Transformer",
    "TransformerConfig",
    "VisionConfig",
    "VisionTransformer",
    "abstract_params",
    "attention_kernel",
    "count_params",
    "encoded",
    "decoder_unembed_parts",
    "init_cache",
    "init_params",
    "kernel_takes",
    "label_logits",
    "make_model",
    "num_params",
    "overlay",
    "partition",
    "path_of",
    "paths",
    "prune_heads",
    "router_losses",
    "slotted_cache",
    "take_rows",
    "train_flops_per_token",
    "unembed",
    "unembed_decoder",
    "unembed_hidden",
    "unembed_parts",
    "unstack_cache",
    "unstack_layers",
    "widen_cache",
]
