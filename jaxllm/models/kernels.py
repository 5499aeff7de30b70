"""Attention by an accelerator's own kernels, which never hold the matrix of weights: one function, chosen by device.

| name | device | where it comes from |
|---|---|---|
| `xla` | all | `jaxllm.models.attention`: the compiler's own, weights and all |
| `cudnn` | NVIDIA GPU | `jax.nn.dot_product_attention(implementation="cudnn")` (arXiv:2205.14135) |
| `splash` | TPU | JAX's Pallas splash attention, which skips blocks that nobody looks at |

The kernels know segments, causality, windows, soft-caps and grouped heads. What they do not know (biases, attention dropout,
head masks, prefixes, weights to be handed out, a cache) is computed by XLA.
"""

import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AbstractMesh, AxisType, Mesh, PartitionSpec
from jaxtyping import Float, Int

from jaxllm.models.config import AttentionKernel, TransformerConfig
from jaxllm.sharding import Order, map_shards, reshard, spec
from jaxllm.sharding.constrain import current_mesh

# B batch, T query time, S key time, N query heads, K key/value heads, H head width

BLOCK = 512
"""Queries, and keys, that splash attention holds at once."""
LANES = 128
"""Sequence lengths must be a multiple of a TPU's vector width."""


class Segments(NamedTuple):
    queries: Int[Array, "B T"]
    keys: Int[Array, "B S"]


def attention_kernel(config: TransformerConfig, device: Any) -> AttentionKernel:
    """The kernel that the config asks for; by default the fastest of a device that knows what this model's attention does.

    Args:
      device: one of `jax.devices()`, or one to plan for.

    Raises:
      ValueError: a kernel was asked for that this device does not have, or that would compute something else.
    """
    if config.attention_kernel is None:
        for kernel, platform in PLATFORMS.items():
            if device.platform == platform and _lacks(kernel, config, device) is None:
                return kernel
        return "xla"
    lacks = _lacks(config.attention_kernel, config, device)
    if lacks is not None:
        raise ValueError(
            f"model.attention_kernel={config.attention_kernel} {lacks}: leave it out to have it chosen by device, or set xla"
        )
    return config.attention_kernel


PLATFORMS: dict[AttentionKernel, str] = {"splash": "tpu", "cudnn": "gpu"}


def _lacks(kernel: AttentionKernel, config: TransformerConfig, device: Any = None) -> str | None:
    """What keeps a kernel from computing this model's attention, the device left aside where none is given."""
    if kernel == "xla":
        return None
    if config.position in ("alibi", "relative", "relative_key", "relative_key_query"):
        return f"knows no biases: got position={config.position}"
    if config.dropout > 0:
        return f"does not drop attention weights: got dropout={config.dropout}"
    if device is not None and device.platform != PLATFORMS[kernel]:
        return f"needs a {PLATFORMS[kernel].upper()}: got {device.device_kind}"
    return _cudnn_lacks(config, device) if kernel == "cudnn" else None


def _cudnn_lacks(config: TransformerConfig, device: Any) -> str | None:
    widest = 256
    if device is not None:
        capability = re.fullmatch(r"(\d+)\.\d+", str(getattr(device, "compute_capability", "")))
        if capability is None or int(capability[1]) < 8:
            return f"needs an NVIDIA GPU of compute capability 8.0 or more: got {device.device_kind}"
        widest = 256 if int(capability[1]) >= 9 else 128
    if config.compute_dtype != "bfloat16":
        return f"computes in bfloat16: got compute_dtype={config.compute_dtype}"
    if config.attention_softcap is not None:
        return f"knows no soft-cap: got attention_softcap={config.attention_softcap}"
    if config.window is not None and not config.causal:
        return f"knows windows of causal attention only: got window={config.window} and causal=False"
    if config.head_width % 8 or config.head_width > widest:
        return f"needs heads whose width is a multiple of 8 and at most {widest}: got {config.head_width}"
    return None


def kernel_takes(config: TransformerConfig, length: int, order: Order | None) -> bool:
    """Whether the config's kernel computes attention among this many tokens in this order; XLA does what it does not."""
    kernel, parts = config.attention_kernel, _parts("context")
    if kernel is None or kernel == "xla" or _lacks(kernel, config) is not None:
        return False
    if kernel == "cudnn":  # it has neither sequences in parts nor, in training, masks of odd length
        return order is None and parts == 1 and length % 2 == 0
    window = config.window
    sees_all = not config.causal and (window is None or window >= length or bool(config.full_attention_layers))
    if parts > 1 and sees_all:  # JAX's fails where no block is seen in part only, and the queries are split
        return False
    own = length // parts if length % parts == 0 else length  # else the rules leave the sequence whole
    return own % LANES == 0


def _parts(axis: str) -> int:
    mesh = current_mesh()
    return 1 if mesh is None else mesh.shape[axis]


def kernel_attention(
    config: TransformerConfig,
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    segments: Segments,
    local: Array | bool,
    order: Order | None,
) -> Float[Array, "B T N H"]:
    """The weighted mean of values by the config's kernel; positions must ascend with the index in each segment.

    Args:
      local: whether the config's window holds here.
      order: of the tokens, where it is not that of their sequence.
    """
    scale = config.head_width**-0.5 if config.attention_scale is None else config.attention_scale
    compute = _splash if config.attention_kernel == "splash" else _cudnn
    full, windowed = (functools.partial(compute, config=config, window=window, order=order) for window in (None, config.window))
    given = (q * jnp.asarray(scale, q.dtype), k, v, segments)
    if isinstance(local, bool):
        return (windowed if local else full)(*given)
    return jax.lax.cond(local, windowed, full, *given)


def _cudnn(
    q: Array, k: Array, v: Array, segments: Segments, *, config: TransformerConfig, window: int | None, order: Order | None
) -> Float[Array, "B T N H"]:
    """By cuDNN, which knows segments only as a mask [B, 1, T, T]: it is made and read only where a row has more than one."""
    assert order is None and (window is None or config.causal)  # `kernel_takes` has seen to it
    sides = None if window is None else (window - 1, 0)

    def local(q: Array, k: Array, v: Array, segments: Segments) -> Array:
        k, v = jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
        attend = functools.partial(
            jax.nn.dot_product_attention, scale=1.0, is_causal=config.causal, local_window_size=sides, implementation="cudnn"
        )

        def masked(q: Array, k: Array, v: Array, segments: Segments) -> Array:
            mask = segments.queries[:, None, :, None] == segments.keys[:, None, None, :]
            return attend(q, k, v, mask=mask)

        whole = jnp.all(segments.queries == segments.queries[:, :1]) & jnp.all(segments.keys == segments.queries[:, :1])
        return jax.lax.cond(whole, lambda q, k, v, _: attend(q, k, v), masked, q, k, v, segments)

    # Of the two branches' residuals only the kernel's own are kept, not the mask.
    local = jax.checkpoint(local, policy=keeps_kernels)
    if current_mesh() is None:
        return local(q, k, v, segments)
    q_spec, k_spec, segment_specs = _layouts(q, k)
    layouts = (q_spec, k_spec, k_spec, segment_specs)
    return map_shards(local, layouts, q_spec)(*jax.tree.map(reshard, (q, k, v, segments), layouts))


KERNEL_OUTPUT = "attention_kernel"
"""Name, for remat policies, of what splash attention hands out and what its gradient needs of it."""


def keeps_kernels(primitive: Any, *_: Any, **params: Any) -> bool:
    """A policy for `jax.checkpoint`: what attention kernels hand out is kept, so that no kernel runs twice."""
    named = primitive.name == "name" and params["name"] == KERNEL_OUTPUT
    return named or "dot_product_attention_fwd" in primitive.name


def _layouts(q: Array, k: Array) -> tuple[Any, Any, Any]:
    """Of queries, keys (or values) and segments, sequences split as the mesh splits them."""
    mesh = current_mesh()
    if mesh is None:
        return PartitionSpec(*[None] * 4), PartitionSpec(*[None] * 4), Segments(PartitionSpec(), PartitionSpec())  # type: ignore[arg-type]
    q_spec = spec(("batch", "time", "heads", "head_dim"), q.shape, mesh)
    k_spec = spec(("batch", "kv_heads", "time", "head_dim"), k.shape, mesh)
    return q_spec, k_spec, Segments(PartitionSpec(q_spec[0], q_spec[1]), PartitionSpec(q_spec[0], None))  # type: ignore[arg-type]


def _splash(
    q: Array,
    k: Array,
    v: Array,
    segments: Segments,
    *,
    config: TransformerConfig,
    window: int | None,
    order: Order | None,
) -> Float[Array, "B T N H"]:
    """By splash attention. Each device gathers the keys and values of its sequences, and sums their gradients into its part."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    mesh, (q_spec, k_spec, segment_specs) = current_mesh(), _layouts(q, k)
    if order is not None:
        segments = segments._replace(keys=jnp.take(segments.keys, order.back(), axis=1))
    parts = lambda entry: 1 if mesh is None or entry is None else mesh.shape[entry]  # noqa: E731
    heads = (q.shape[2], parts(q_spec[2]))
    kernel = _splash_kernel(q.shape[1], k.shape[2], *heads, parts(q_spec[1]), config, window, order)

    def whole(x: Array) -> Array:
        """[B, K, S, H] in the sequence's own order: queries may come in any, keys may not."""
        if k_spec[2] is not None:
            x = jax.lax.all_gather(x, k_spec[2], axis=2, tiled=True)
        return x if order is None else jnp.take(x, order.back(), axis=2)

    def local(kernel: splash.SplashAttentionKernel, q: Array, k: Array, v: Array, segments: Segments) -> Array:
        attend: Any = lambda q, k, v, segments: kernel(q, k, v, segment_ids=splash.SegmentIds(*segments))  # noqa: E731
        return jnp.swapaxes(jax.vmap(attend)(jnp.swapaxes(q, 1, 2), whole(k), whole(v), segments), 1, 2)

    if mesh is None:
        return local(kernel, q, k, v, segments)
    kernel_spec = kernel.manual_sharding_spec(jax.NamedSharding(_free(mesh), PartitionSpec(q_spec[2], q_spec[1])))
    layouts = (kernel_spec, q_spec, k_spec, k_spec, segment_specs)
    return map_shards(local, layouts, q_spec)(*jax.tree.map(reshard, (kernel, q, k, v, segments), layouts))


def _free(mesh: Mesh | AbstractMesh) -> AbstractMesh:
    """The mesh without the axes that the code around already goes through by hand, such as stages."""
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    free = {name: kind for name, kind in kinds if kind != AxisType.Manual}
    return AbstractMesh(tuple(mesh.shape[name] for name in free), tuple(free), axis_types=tuple(free.values()))


def _splash_kernel(
    T: int,
    S: int,
    heads: int,
    head_parts: int,
    time_parts: int,
    config: TransformerConfig,
    window: int | None,
    order: Order | None,
) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    from jaxllm.models.splash_mask import splash_mask  # imports Pallas, which takes a while

    mask = splash_mask(T, S, causal=config.causal, window=window, order=order)
    block = max(size for size in range(LANES, BLOCK + 1, LANES) if T // time_parts % size == 0 and S % size == 0)
    sizes = splash.BlockSizes(
        block_q=block, block_kv=block, block_kv_compute=block, block_q_dkv=block, block_kv_dkv=block,
        block_kv_dkv_compute=block, block_q_dq=block, block_kv_dq=block,
    )  # fmt: skip
    return splash.make_splash_mha(
        mask=masks.MultiHeadMask((mask,) * heads), block_sizes=sizes, head_shards=head_parts, q_seq_shards=time_parts,
        attn_logits_soft_cap=config.attention_softcap, residual_checkpoint_name=KERNEL_OUTPUT,
    )  # fmt: skip
