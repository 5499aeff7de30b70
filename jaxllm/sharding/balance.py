"""The order of a sequence's tokens over a mesh's context axis, so that each device has as much causal attention to do."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxllm.sharding.constrain import current_mesh


@jax.tree_util.register_static
@dataclass(frozen=True)
class Order:
    """Where in their sequence the tokens stand, one after the other; a pytree node without leaves."""

    places: tuple[int, ...]

    def back(self) -> np.ndarray:
        """Indices that put what is in this order back into its own."""
        return np.argsort(np.asarray(self.places))


def balanced_order(length: int) -> Order | None:
    """The order for the current mesh: of 2n stretches device i has the i-th and the i-th from the end (arXiv:2405.07719 calls
    this zigzag). None where nothing splits a sequence of this length."""
    mesh = current_mesh()
    parts = 1 if mesh is None else mesh.shape["context"]
    if parts == 1 or length % (2 * parts):
        return None
    stretch = np.arange(length).reshape(2 * parts, -1)
    return Order(tuple(np.concatenate([stretch[[i, 2 * parts - 1 - i]] for i in range(parts)], axis=None).tolist()))


def in_order(batch: dict[str, Array], order: Order | None) -> dict[str, Array]:
    """The arrays [B, T, ...] of a batch with their tokens in this order."""
    if order is None:
        return batch
    places = np.asarray(order.places)
    return {name: jnp.take(array, places, axis=1) for name, array in batch.items()}
