"""Seconds of an operation on this machine's devices, all of them busy with it at once.

On a CPU they are those that its cores computed, so that other work on the machine does not decide.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AT_LEAST, ROUND, ROUNDS = 0.05, 0.008, 4
"""Seconds that are timed at least, those of a round at least, and how many rounds at least; the shortest counts."""
FEWEST_TURNS, MOST_TURNS = 4, 2**14
"""Of the loop in one call, besides a first."""
SETTLE = 2e-4
"""Seconds until threads that have finished are asleep: the system counts what a thread ran when it falls asleep."""


def loop_seconds(
    function: Callable[..., Array], shapes: Sequence[tuple[int, ...]], dtype: str = "float32", *, meets: bool = False
) -> float:
    """Seconds of one turn of a loop that computes a function of arrays of these shapes, on each device.

    Args:
      meets: whether devices wait for each other in it, at the mesh axis "all": then it is the time that passes.
    """
    mesh, spec = _mesh(), PartitionSpec("all")
    # On a GPU the host is asked at every turn whether a loop of a length not known before goes on: there, a loop in each turn.
    inner = 1 if mesh.devices.flat[0].platform == "cpu" else 16

    def per_device(turns: Array, *given: Array) -> Array:
        arrays = [array[0] for array in given]

        def turn(_: Any, carried: tuple[Array, Array]) -> tuple[Array, Array]:  # looks at the last, so must wait for it
            first, last = carried
            start = last[(0,) * last.ndim].astype(first.dtype) * 0
            first = jax.lax.optimization_barrier(first.at[(0,) * first.ndim].add(start))
            return first, function(first, *arrays[1:])

        result = jax.eval_shape(function, *arrays)
        several = lambda _, carried: jax.lax.fori_loop(0, inner, turn, carried)  # noqa: E731
        return jax.lax.fori_loop(0, turns, several, (arrays[0], jnp.zeros(result.shape, result.dtype)))[1][None]

    mapped = jax.shard_map(
        per_device, mesh=mesh, in_specs=(PartitionSpec(), *[spec] * len(shapes)), out_specs=spec, check_vma=False
    )
    given = [_spread(mesh, shape, dtype) for shape in shapes]
    call = jax.jit(mapped).lower(1, *given).compile()

    def spent(turns: int, rounds: int = ROUNDS) -> float:
        return _seconds(lambda: call(turns, *given), meets, rounds)

    once, turns = spent(1), FEWEST_TURNS
    while turns < MOST_TURNS and spent(1 + turns, rounds=1) < once + max(ROUND, once):
        turns *= 4  # until the turns take longer than the call itself, which may be seen too long on a busy machine
    return max(1e-9, (spent(1 + turns) - once) / turns / inner)


def call_seconds(function: Callable[[Array], Array], shape: tuple[int, ...]) -> float:
    """Seconds of one call of a function of a float32 array of this shape, on each device: its result is in new memory."""
    mesh, spec = _mesh(), PartitionSpec("all")
    given = _spread(mesh, shape, "float32")
    mapped = jax.shard_map(lambda x: function(x[0])[None], mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    call = jax.jit(mapped).lower(given).compile()
    return _seconds(lambda: call(given), meets=False)


def _mesh() -> Mesh:
    return Mesh(np.array(jax.devices()), ("all",))


def _spread(mesh: Mesh, shape: tuple[int, ...], dtype: str) -> Array:
    """A small number everywhere, one such array a device."""
    make = jax.jit(lambda: jnp.full((mesh.size, *shape), 1e-3, dtype), out_shardings=NamedSharding(mesh, PartitionSpec("all")))
    return make()


def _seconds(call: Callable[[], Array], meets: bool, rounds: int = ROUNDS) -> float:
    """Of one call: the shortest of several."""
    devices = jax.devices()
    on_cores = devices[0].platform == "cpu" and not meets
    clock = time.process_time if on_cores else time.perf_counter
    shortest, done, end = math.inf, 0, time.perf_counter() + (AT_LEAST if rounds == ROUNDS else 0.0)
    while done < rounds or time.perf_counter() < end:
        if on_cores:
            time.sleep(SETTLE)
        start = clock()
        call().block_until_ready()
        if on_cores:
            time.sleep(SETTLE)
        shortest, done = min(shortest, clock() - start), done + 1
    return shortest / (len(devices) if on_cores else 1)
