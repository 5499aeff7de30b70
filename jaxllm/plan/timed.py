"""Seconds of an operation on this machine's devices, all of them busy with it at once.

On a CPU they are those that its cores computed, so that other work on the machine does not decide; but where devices wait for
each other it is the time that passes, and other work makes it longer.
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

AT_LEAST, ROUND, ROUNDS, LOOKS = 0.05, 0.008, 4, 2
"""Seconds that are timed at least, those of a round at least, how many rounds at least, and how many for a look at how long
something takes; the shortest counts."""
FEWEST_TURNS, MOST_TURNS = 4, 4**10
"""Of the loop in one call, besides a first."""
SETTLE = 2e-4
"""Seconds until threads that have finished are asleep: the system counts what a thread ran when it falls asleep."""


class TooBusy(ValueError):
    """Other work on this machine makes what is measured mean nothing."""

    def __init__(self, seen: str):
        super().__init__(f"{seen}; this machine is too busy to be timed: try again when it has less to do")


def loop_seconds(
    function: Callable[..., Array], shapes: Sequence[tuple[int, ...]], dtype: str = "float32", *, meets: bool = False
) -> float:
    """Seconds of one turn of a loop that computes a function of arrays of these shapes, on each device.

    Args:
      meets: whether devices wait for each other in it, at the mesh axis "all": then it is the time that passes.

    Raises:
      TooBusy: several turns of the loop took no longer than one.
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

    given = [_spread(mesh, shape, dtype) for shape in shapes]
    call = _compiled(per_device, mesh, (PartitionSpec(), *[spec] * len(shapes)), 1, *given)

    def spent(turns: int, rounds: int = ROUNDS, at_least: float = AT_LEAST) -> float:
        return _seconds(lambda: call(turns, *given), meets, rounds, at_least)

    once, took, turns = spent(1), 0.0, FEWEST_TURNS
    while turns <= MOST_TURNS:
        if turns == MOST_TURNS or spent(1 + turns, LOOKS, 0.0) > once + max(ROUND, once):  # longer than the call itself
            once = min(once, spent(1, LOOKS, 0.0))
            took = spent(1 + turns) - once
            if took > ROUND / 2:
                return took / turns / inner
        turns *= 4  # other work may have made a look, or the call, too long
    raise TooBusy(f"{MOST_TURNS:,} turns of a loop must take longer than one: they took {took:.2g} s more")


def call_seconds(function: Callable[[Array], Array], shape: tuple[int, ...]) -> float:
    """Seconds of one call of a function of a float32 array of this shape, on each device: its result is in new memory."""
    mesh = _mesh()
    given = _spread(mesh, shape, "float32")
    call = _compiled(lambda x: function(x[0])[None], mesh, PartitionSpec("all"), given)
    return _seconds(lambda: call(given), meets=False)


def _compiled(per_device: Callable[..., Array], mesh: Mesh, in_specs: Any, *given: Any) -> Callable[..., Array]:
    mapped = jax.shard_map(per_device, mesh=mesh, in_specs=in_specs, out_specs=PartitionSpec("all"), check_vma=False)
    return jax.jit(mapped).lower(*given).compile()


def _mesh() -> Mesh:
    return Mesh(np.array(jax.devices()), ("all",))


def _spread(mesh: Mesh, shape: tuple[int, ...], dtype: str) -> Array:
    """A small number everywhere, one such array a device."""
    make = jax.jit(lambda: jnp.full((mesh.size, *shape), 1e-3, dtype), out_shardings=NamedSharding(mesh, PartitionSpec("all")))
    return make()


def _seconds(call: Callable[[], Array], meets: bool, rounds: int = ROUNDS, at_least: float = AT_LEAST) -> float:
    """Of one call: the shortest of several."""
    devices = jax.devices()
    on_cores = devices[0].platform == "cpu" and not meets
    clock = time.process_time if on_cores else time.perf_counter
    shortest, done, end = math.inf, 0, time.perf_counter() + at_least
    while done < rounds or time.perf_counter() < end:
        if on_cores:
            time.sleep(SETTLE)
        start = clock()
        call().block_until_ready()
        if on_cores:
            time.sleep(SETTLE)
        shortest, done = min(shortest, clock() - start), done + 1
    return shortest / (len(devices) if on_cores else 1)
