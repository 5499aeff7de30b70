"""What a model's config leaves to the device, decided."""

import dataclasses
from collections.abc import Callable

from jax.sharding import Mesh

from jaxllm.models import EncoderDecoderConfig, ModelConfig, TransformerConfig, VisionConfig

UNROLL_AT_MOST = 16
"""Deepest model whose layers are unrolled on CPU, where a scan copies each layer's weights out of the stack."""


def replace_stacks(config: ModelConfig, change: Callable[[TransformerConfig], TransformerConfig]) -> ModelConfig:
    """The config with each of its stacks of blocks changed: itself, an encoder, or an encoder and a decoder."""
    if isinstance(config, EncoderDecoderConfig):
        return dataclasses.replace(config, encoder=change(config.encoder), decoder=change(config.decoder))
    if isinstance(config, VisionConfig):
        return dataclasses.replace(config, encoder=change(config.encoder))
    return change(config)


def device_config(config: ModelConfig, mesh: Mesh) -> ModelConfig:
    """The model's config with the loop over layers and the treatment of norms chosen for the mesh's devices."""
    return replace_stacks(config, lambda stack: _stack_config(stack, mesh))


def portable_config(config: ModelConfig) -> ModelConfig:
    """The config without what was decided for a device."""
    return replace_stacks(config, lambda stack: dataclasses.replace(stack, layer_loop=None, norm_barrier=None))


def _stack_config(config: TransformerConfig, mesh: Mesh) -> TransformerConfig:
    cpu = mesh.devices.flat[0].platform == "cpu"
    loop = "unroll" if cpu and config.num_layers <= UNROLL_AT_MOST else "scan"
    barrier = cpu if config.norm_barrier is None else config.norm_barrier
    return dataclasses.replace(config, layer_loop=config.layer_loop or loop, norm_barrier=barrier)


def with_dtype(config: ModelConfig, dtype: str | None) -> ModelConfig:
    """The config with parameters and activations of this type; as it is where none is given."""
    if dtype is None:
        return config
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype must be float32 or bfloat16: got {dtype!r}")
    return replace_stacks(config, lambda stack: dataclasses.replace(stack, param_dtype=dtype, compute_dtype=dtype))
