"""What changes from step to step, and where each piece of it lives."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from jaxllm.models import Model, abstract_params, init_params, overlay, partition
from jaxllm.sharding import replicated, shardings_for, use_mesh

HOST = "pinned_host"
"""JAX's name of the host memory that a device reads and writes by itself."""


class TrainState(NamedTuple):
    step: Array
    """Optimizer steps taken."""
    params: Any
    """The parameters that learn, nested dicts."""
    opt_state: Any
    """The optimizer's state, the average of parameters included when there is one."""
    frozen: Any = {}
    """The model's other parameters, which stay as they are and are in no checkpoint."""

    @property
    def whole(self) -> Any:
        """All parameters of the model."""
        return overlay(self.frozen, self.params)


Learns = Callable[[str], bool]
"""Whether the parameter at a path such as "layers/attention/query/kernel" learns."""


def everything(path: str) -> bool:
    return True


def abstract_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    memory: Literal["device", "host"] = "device",
    learns: Learns = everything,
) -> TrainState:
    """The state as shapes, types and shardings: what init computes, restore fills in, and the step expects.

    Args:
      memory: where the optimizer's moments wait between steps.
      learns: which parameters do; for the others there is no optimizer state.
    """
    params, axes = abstract_params(model)
    placement = shardings_for(params, axes, mesh)
    shapes = jax.eval_shape(lambda p: _fresh(p, optimizer, learns), params)
    by_path = {_keys(path): sharding for path, sharding in jax.tree_util.tree_leaves_with_path(placement)}
    sizes = {_keys(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def place(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
        """Optimizer moments carry their parameter's path as the end of their own, and its shape."""
        keys = _keys(path)
        owner = next((keys[i:] for i in range(len(keys)) if keys[i:] in by_path), None)
        like_param = owner is not None and sizes[owner] == leaf.shape
        sharding = by_path[owner] if like_param and owner else replicated(mesh)
        if memory == "host" and keys[0] == "opt_state" and "average" not in keys and leaf.ndim > 0:
            sharding = sharding.with_memory_kind(HOST)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree_util.tree_map_with_path(place, shapes)


def _keys(path: Any) -> tuple[str, ...]:
    return tuple(str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry)))) for entry in path)


def _fresh(params: Any, optimizer: optax.GradientTransformation, learns: Learns) -> TrainState:
    learning, frozen = partition(params, learns)
    return TrainState(jnp.zeros((), jnp.int32), learning, optimizer.init(learning), frozen)


def init_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    key: Array,
    abstract: TrainState,
    learns: Learns = everything,
    make: Callable[[Array, Any], Any] | None = None,
    given: Any = None,
) -> TrainState:
    """A fresh state, each piece computed where it lives.

    Args:
      make: gives the parameters, of the key and of `given`. By default they are initialized.
      given: parameters to begin with, on the mesh.
    """

    def init(key: Array, given: Any) -> TrainState:
        return _fresh(init_params(model, key) if make is None else make(key, given), optimizer, learns)

    with use_mesh(mesh):
        return jax.jit(init, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract))(key, given)
