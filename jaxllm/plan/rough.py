"""Memory and time of a layout by counting, in microseconds instead of the compiler's minutes: to choose what to compile."""

import math
from dataclasses import dataclass

from jaxllm.models import TransformerConfig
from jaxllm.models.layers import GATED
from jaxllm.plan.layouts import Layout
from jaxllm.plan.slices import SLOW_NETWORK
from jaxllm.recipe import Recipe

# D residual width, F feed-forward width

MATRIX_SHARE = 0.6
"""Share of the peak that matrix products are taken to reach: an assumption, for ranking only."""
WEIGHT_PASSES = 6
"""Times that a device reads or writes as much as its layers' whole weights for one part of a batch: gathered and read, forward
and backward, their gradients written and added up."""
SAVED: dict[str, tuple[str, ...]] = {
    "none": ("residual", "matrices", "scores", "cheap"),
    "minimal": ("residual", "matrices", "scores"),
    "dots": ("residual", "matrices"),
    "block": ("residual",),
    "offload": (),
}
"""What each remat policy keeps of a block, on the device, for the backward pass."""
AGAIN = {"none": 0.0, "minimal": 0.05, "dots": 0.15, "block": 1.0, "offload": 1.0}
"""Forward passes of a block that each policy computes a second time."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the counting needs of one device."""

    peak: float
    """FLOP/s."""
    network: float
    """Bytes per second that a device sends to its neighbours."""
    memory: float
    """Bytes per second of its memory."""
    capacity: int | None
    kernel: str
    """Who computes attention."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What the counting needs of a model, counted once for all layouts."""

    parameters: int
    learning: int
    """Parameters that learn, and so have gradients."""
    optimizer_bytes: int
    """Of the whole optimizer state."""
    flops_per_token: float
    """Forward and backward."""


@dataclass(frozen=True, kw_only=True)
class Rough:
    """A guess, for ranking only."""

    peak_bytes: int
    step_seconds: float
    tokens_per_second: float


def rough(recipe: Recipe, config: TransformerConfig, model: Model, machine: Machine, layout: Layout) -> Rough:
    """The guess for one layout of a recipe.

    Args:
      config: of the stack that most of the model is.
    """
    devices = math.prod(layout.mesh.values())
    tokens = layout.rows * getattr(recipe.data, "seq_len", 1) // layout.mesh["context"]
    seconds = layout.accumulate * _part_seconds(config, model, machine, layout, tokens, devices)
    return Rough(
        peak_bytes=state_bytes(config, model, layout) + activation_bytes(recipe, config, machine, layout, tokens),
        step_seconds=seconds,
        tokens_per_second=layout.batch_size * getattr(recipe.data, "seq_len", 1) / seconds,
    )


def state_bytes(config: TransformerConfig, model: Model, layout: Layout) -> int:
    """Parameters, their gradients and the optimizer's state; and one block gathered, with its gradient and the one after it."""
    mesh, wide = layout.mesh, 4 if config.param_dtype == "float32" else 2
    split = mesh["fsdp"] * mesh["expert"] * mesh["context"] * mesh["tensor"]
    stored = (wide * (model.parameters + model.learning) + model.optimizer_bytes) // split
    gathered = (
        3 * 2 * model.parameters // (config.num_layers * mesh["tensor"] * mesh["expert"]) if split > mesh["tensor"] else 0
    )
    return stored + gathered


def activation_bytes(recipe: Recipe, config: TransformerConfig, machine: Machine, layout: Layout, tokens: int) -> int:
    """Of a device: what blocks keep for the backward pass, what one block needs while it computes, and logits."""
    D, F, tensor = config.embed_dim, config.ffw_width, layout.mesh["tensor"]
    heads = (config.num_heads + 2 * config.kv_heads) * config.head_width
    width = 2 if config.compute_dtype == "bfloat16" else 4
    top = 1 if config.experts is None else config.experts.top_k
    gates = 2 if config.activation in GATED else 1
    pieces = {
        "residual": D / tensor,
        "matrices": (heads + config.num_heads * config.head_width + gates * top * F + D) / tensor,
        "scores": config.num_heads * getattr(recipe.data, "seq_len", 1) / tensor if machine.kernel == "xla" else 0.0,
        "cheap": 2 * (4 * D + top * F + heads) / tensor,  # norms, rotations and gates are computed in float32
    }
    pieces["cheap"] += 2 * pieces["scores"]
    kept = config.num_layers * sum(pieces[name] for name in SAVED[layout.remat])
    working = 2 * sum(pieces.values())
    vocabulary = config.vocab_size or 0
    pieced = min(tokens, recipe.loss.chunk * layout.rows if recipe.loss.chunk else tokens)
    logits = pieced * vocabulary * (8 + width) / tensor
    table = vocabulary * D * (width + 4) / tensor  # gathered, and its gradient
    return int(width * tokens * (kept + working) + logits + table)


def _part_seconds(
    config: TransformerConfig, model: Model, machine: Machine, layout: Layout, tokens: int, devices: int
) -> float:
    """Seconds of one part of a batch: computing or what is sent beside it, and what is sent alone."""
    mesh, wide = layout.mesh, 2 if config.compute_dtype == "bfloat16" else 4
    again = 1 + AGAIN[layout.remat] / 3
    small = min(1.0, tokens / 512)  # products of few rows do not reach what those of many do
    rows = layout.rows * devices / (mesh["tensor"] * mesh["context"])
    whole_tokens = rows * tokens * mesh["context"] / layout.rows
    compute = again * model.flops_per_token * whole_tokens / devices / (MATRIX_SHARE * small * machine.peak)
    spread = mesh["fsdp"] * mesh["context"]
    held = wide * model.parameters / (mesh["tensor"] * mesh["expert"])
    beside = (2 + AGAIN[layout.remat]) * held * (spread - 1) / spread
    beside += 2 * 2 * held / spread * (mesh["data"] - 1) / mesh["data"]
    activation = wide * tokens * config.embed_dim
    alone = (4 + 2 * AGAIN[layout.remat]) * 2 * activation * config.num_layers * (mesh["tensor"] - 1) / mesh["tensor"]
    keys = 2 * wide * tokens * config.kv_heads * config.head_width / mesh["tensor"]
    alone += 3 * keys * config.num_layers * (mesh["context"] - 1)
    if config.experts is not None:
        alone += 4 * config.experts.top_k * activation * config.num_layers * (mesh["expert"] - 1) / mesh["expert"]
    between_slices = 2 * held / spread * (mesh["replica"] - 1) / mesh["replica"]
    weights = WEIGHT_PASSES * held / machine.memory
    return max(compute, beside / machine.network) + weights + alone / machine.network + between_slices / SLOW_NETWORK
