"""What this machine's devices do in fact, measured in a few seconds by XLA itself with all of them busy at once."""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

FEWEST, TIMED = 5, 0.2
"""Calls, and seconds, that each rate is timed for at least."""
TURNS = 16
"""Times that a timed call computes the same again."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Of one device while all compute."""

    products: float
    """FLOP/s of a matrix product of 512 rows in the type that is computed with."""
    bandwidth: tuple[tuple[int, float], ...]
    """For arrays of so many bytes: bytes per second, read and written."""
    transposed: float
    """Bytes per second, read and written, of an array whose last two axes change places."""
    elementwise: float
    """Additions and products of single elements a second, many in one pass."""
    transcendental: float
    """Elements a second of which the hyperbolic tangent is computed."""
    call: float
    """Seconds that an operation of no size takes, called from a program."""
    meeting: float
    """Seconds until all devices have met to add up one number."""
    sum_bandwidth: float
    """Bytes per second of a large array that is added up over all devices."""

    def bandwidth_of(self, size: int) -> float:
        """Bytes per second for an array of this many bytes, between those measured."""
        sizes, speeds = zip(*self.bandwidth, strict=True)
        return float(np.exp(np.interp(math.log(max(1, size)), np.log(sizes), np.log(speeds))))


@functools.cache
def measured_rates(dtype: str) -> Rates:
    """The rates of the devices of this machine, all of one kind.

    Args:
      dtype: float32 or bfloat16.
    """
    devices = jax.devices()
    mesh, big = Mesh(np.array(devices), ("all",)), devices[0].platform != "cpu"
    size, rows, count = (4096, 8192, 2**26) if big else (512, 256, 2**16)
    sizes, total = ((2**22, 2**26, 2**30), 2**26) if big else ((2**18, 2**22, 2**26), 2**22)
    timed = lambda body, *shape: _seconds(mesh, body, shape, "float32")  # noqa: E731
    meeting, added = (
        _seconds(mesh, lambda x, _: jax.lax.psum(x, "all") * 0.5, (elements,), "float32", meets=True)
        for elements in (1, total // 4)
    )
    return Rates(
        products=2.0 * size**3 / _seconds(mesh, lambda x, first: x @ first, (size, size), dtype),
        bandwidth=tuple((array, 2 * array / timed(lambda x, _: x + 1, array // 4)) for array in sizes),
        transposed=2.0 * 4 * rows * rows / timed(lambda x, _: x.T + 1, rows, rows),
        elementwise=2.0 * TERMS * count / timed(_polynomial, count),
        transcendental=count / timed(lambda x, _: jnp.tanh(x), count),
        call=timed(lambda x, _: x + 1, 8),
        meeting=meeting,
        sum_bandwidth=total / max(1e-9, added - meeting),
    )


TERMS = 32
"""Multiplications, and as many additions, of the polynomial that is computed for each element."""


def _polynomial(value: Array, x: Array) -> Array:
    for _ in range(TERMS):
        value = value * x + 0.5
    return value


def _seconds(
    mesh: Mesh, function: Callable[[Array, Array], Array], shape: tuple[int, ...], dtype: str, meets: bool = False
) -> float:
    """Seconds of one turn of a loop over an array of this shape on each device: the shortest seen, and on a CPU those that its
    cores computed, so that other work on the machine does not decide.

    Args:
      function: of the array and of what it was at first.
      meets: whether devices wait for each other in it: then it is the time that passes.
    """

    def per_device(x: Array) -> Array:  # a loop, so that nothing of one turn is computed together with the next
        return jax.lax.fori_loop(0, TURNS, lambda _, y: function(y, x[0]), x[0])[None]

    spec = PartitionSpec("all")
    call = jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
    whole = jnp.full((mesh.size, *shape), 1 / shape[0], dtype)  # whose products with themselves are themselves again
    given = jax.device_put(whole, NamedSharding(mesh, spec))
    call(given).block_until_ready()
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    clock = time.process_time if on_cpu and not meets else time.perf_counter
    shared = mesh.size if on_cpu and not meets else 1
    shortest, calls, end = math.inf, 0, time.perf_counter() + TIMED
    while calls < FEWEST or time.perf_counter() < end:
        start = clock()
        call(given).block_until_ready()
        shortest, calls = min(shortest, clock() - start), calls + 1
    return shortest / shared / TURNS
