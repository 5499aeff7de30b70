"""Learning rates by depth: lower layers learn more slowly, or later, than those above them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from jaxllm.models import path_of

BELOW = (
    "embed",
    "position",
    "token_type",
    "embed_norm",
    "relative_bias",
    "patch",
    "class_token",
    "distillation_token",
)
"""Parameters, by the first name of their path in a stack of blocks, that the first layer stands on."""


class DepthState(NamedTuple):
    count: Int[Array, ""]
    """Steps taken."""


def scale_by_depth(decay: float, unfreeze_every: int | None) -> optax.GradientTransformation:
    """Updates times decay^(layers from the top): 1 for what stands on the last layer, `decay` for that layer, decay^(L + 1) for
    the embedding. Encoder and decoder are counted each by itself.

    Args:
      unfreeze_every: steps after which one more layer is updated at all, from the top. None updates all.
    """

    def update(updates: Any, state: DepthState, params: Any = None) -> tuple[Any, DepthState]:
        depths = _layers(updates)
        reached = None if unfreeze_every is None else state.count // unfreeze_every

        def scaled(keys: Any, leaf: Array) -> Array:
            below = _below_top(path_of(keys), depths)
            factor = jnp.asarray(decay, jnp.float32) ** below
            if reached is not None:
                factor = jnp.where(below <= reached, factor, 0.0)
            factor = factor.reshape(factor.shape + (1,) * (leaf.ndim - factor.ndim))
            return leaf * factor.astype(leaf.dtype)

        return jax.tree_util.tree_map_with_path(scaled, updates), DepthState(state.count + 1)

    return optax.GradientTransformation(lambda params: DepthState(jnp.zeros((), jnp.int32)), update)  # type: ignore[arg-type]


def _layers(tree: Any) -> dict[str, int]:
    """Layers of each stack of blocks, by the path before its "layers"."""
    found: dict[str, int] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        stack, there, rest = _parted(path_of(keys))
        if there:
            number = rest.split("/")[0]
            count = int(number) + 1 if number.isdigit() else leaf.shape[0]
            found[stack] = max(found.get(stack, 0), count)
    return found


def _below_top(path: str, depths: dict[str, int]) -> Float[Array, "..."]:
    """How many layers from the top, one number a layer for a stacked parameter: 0 is above the last layer."""
    stack, there, rest = _parted(path)
    if there:
        count, number = depths[stack], rest.split("/")[0]
        return jnp.float32(count - int(number)) if number.isdigit() else count - jnp.arange(count, dtype=jnp.float32)
    own = next((name for name in (*depths, "encoder", "decoder") if name and path.startswith(f"{name}/")), "")
    if path.removeprefix(f"{own}/").split("/")[0] not in BELOW:
        return jnp.float32(0)
    if own not in depths and (own or not depths):
        raise ValueError(
            f"optimizer.layer_decay and optimizer.unfreeze_every count layers by those that learn: {path} learns, and no layer "
            "above it; let layers learn, too, or leave both out"
        )
    return jnp.float32(depths.get(own, max(depths.values())) + 1)


def _parted(path: str) -> tuple[str, bool, str]:
    """The stack before "layers/", whether that is there, and what is behind it."""
    parts = path.split("/")
    if "layers" not in parts:
        return "", False, path
    place = parts.index("layers")
    return "/".join(parts[:place]), True, "/".join(parts[place + 1 :])
