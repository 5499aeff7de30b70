"""What a model's config leaves to the device, decided."""

import dataclasses

from jax.sharding import Mesh

from jaxllm.models import EncoderDecoderConfig, ModelConfig, TransformerConfig, VisionConfig

UNROLL_AT_MOST = 16
"""Deepest model whose layers are unrolled on CPU, where a scan copies each layer's weights out of the stack."""


def device_config(config: ModelConfig, mesh: Mesh) -> ModelConfig:
    """The model's config with the loop over layers and the treatment of norms chosen for the mesh's devices."""
    if isinstance(config, EncoderDecoderConfig):
        encoder, decoder = _stack_config(config.encoder, mesh), _stack_config(config.decoder, mesh)
        return dataclasses.replace(config, encoder=encoder, decoder=decoder)
    if isinstance(config, VisionConfig):
        return dataclasses.replace(config, encoder=_stack_config(config.encoder, mesh))
    return _stack_config(config, mesh)


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
    types = {"param_dtype": dtype, "compute_dtype": dtype}
    if isinstance(config, EncoderDecoderConfig):
        encoder, decoder = (dataclasses.replace(stack, **types) for stack in (config.encoder, config.decoder))
        return dataclasses.replace(config, encoder=encoder, decoder=decoder)
    if isinstance(config, VisionConfig):
        return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, **types))
    return dataclasses.replace(config, **types)
