"""What a model's config leaves to the device, decided."""

import dataclasses
from collections.abc import Callable

from jax.sharding import Mesh

from jaxllm.models import EncoderDecoderConfig, ModelConfig, TransformerConfig, VisionConfig, attention_kernel

UNROLL_AT_MOST = 16
"""Deepest model whose layers are unrolled on CPU, where a scan copies each layer's weights out of the stack."""


def replace_stacks(config: ModelConfig, change: Callable[[TransformerConfig], TransformerConfig]) -> ModelConfig:
    """The config with each of its stacks of blocks changed: itself, an encoder, or an encoder and a decoder."""
    if isinstance(config, EncoderDecoderConfig):
        return dataclasses.replace(config, encoder=change(config.encoder), decoder=change(config.decoder))
    if isinstance(config, VisionConfig):
        return dataclasses.replace(config, encoder=change(config.encoder))
    return change(config)


def stacks(config: ModelConfig) -> dict[str, TransformerConfig]:
    """A model's stacks of blocks by the field that holds them, the one that writes last; "" where the config is one itself."""
    if isinstance(config, EncoderDecoderConfig):
        return {"encoder": config.encoder, "decoder": config.decoder}
    return {"encoder": config.encoder} if isinstance(config, VisionConfig) else {"": config}


def main_stack(config: ModelConfig) -> TransformerConfig:
    """The stack that writes, or the only one."""
    return list(stacks(config).values())[-1]


def device_config(config: ModelConfig, mesh: Mesh) -> ModelConfig:
    """The model's config with the loop over layers and the treatment of norms chosen for the mesh's devices."""
    return replace_stacks(config, lambda stack: _stack_config(stack, mesh))


def inference_config(config: ModelConfig, dtype: str | None, mesh: Mesh) -> ModelConfig:
    """The config of a model that is only read, on this mesh: without what was asked for to train it, or on another device."""

    def read_only(stack: TransformerConfig) -> TransformerConfig:
        return dataclasses.replace(stack, attention_kernel=None, matmul_dtype=None, microbatches=None, remat="none")

    return device_config(with_dtype(replace_stacks(config, read_only), dtype), mesh)


def portable_config(config: ModelConfig) -> ModelConfig:
    """The config without what was decided for a device."""

    def undecided(stack: TransformerConfig) -> TransformerConfig:
        experts = None if stack.experts is None else dataclasses.replace(stack.experts, exchange=None)
        return dataclasses.replace(stack, layer_loop=None, norm_barrier=None, attention_kernel=None, experts=experts)

    return replace_stacks(config, undecided)


def _stack_config(config: TransformerConfig, mesh: Mesh) -> TransformerConfig:
    platform = mesh.devices.flat[0].platform
    cpu = platform == "cpu"
    loop = "unroll" if cpu and config.num_layers <= UNROLL_AT_MOST else "scan"
    barrier = cpu if config.norm_barrier is None else config.norm_barrier
    experts = config.experts
    if experts is not None and experts.exchange is None:
        experts = dataclasses.replace(experts, exchange="padded" if cpu else "ragged")
    return dataclasses.replace(
        config,
        layer_loop=config.layer_loop or loop,
        norm_barrier=barrier,
        attention_kernel=attention_kernel(config, mesh.devices.flat[0]),
        experts=experts,
    )


def with_dtype(config: ModelConfig, dtype: str | None) -> ModelConfig:
    """The config with parameters and activations of this type; as it is where none is given."""
    if dtype is None:
        return config
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype must be float32 or bfloat16: got {dtype!r}")
    return replace_stacks(config, lambda stack: dataclasses.replace(stack, param_dtype=dtype, compute_dtype=dtype))
