"""What this machine's devices do in fact, measured in a few seconds by XLA itself with all of them busy at once."""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint

from jaxllm.plan.timed import TooBusy, call_seconds, loop_seconds

Sized = tuple[tuple[int, float], ...]
"""For so many bytes, or rows: bytes per second, read and written."""
CURVES = {
    "exponential": jnp.exp, "tanh": jnp.tanh, "log": jnp.log, "logistic": jax.nn.sigmoid, "erf": jax.lax.erf,
    "power": lambda x: x**1.7, "sine": jnp.sin, "cosine": jnp.cos, "divide": lambda x: 1 / (x + 2), "sqrt": jnp.sqrt,
    "rsqrt": jax.lax.rsqrt,
}  # fmt: skip
"""Operations on single elements that take longer than an addition, by their names in a compiled program."""
ALIKE = {"exponential-minus-one": "exponential", "log-plus-one": "log", "cbrt": "power", "remainder": "divide"}
REDUCES = {"add": jnp.sum, "maximum": jnp.max}
"""How elements are reduced to one, by the name in a compiled program."""
NEW = 2**25
"""Bytes from which on a C library takes memory from the system anew each time (glibc: the largest M_MMAP_THRESHOLD)."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Of one device while all compute."""

    products: float
    """FLOP/s of a square matrix product in the type that is computed with: 512 wide on a CPU, 4,096 elsewhere."""
    bandwidth: Sized
    """Of memory: from array to array, as it lies there."""
    transposed: Sized
    """Of an array whose last axis changes places with one of so many rows."""
    reduced: dict[tuple[str, bool], float]
    """Bytes a second that are reduced by this operation; whether along the last axis."""
    elementwise: float
    """Additions and products of single elements a second, many in one pass."""
    curves: dict[str, float]
    """Elements a second of which this is computed."""
    call: float
    """Seconds that an operation of no size takes, called from a program."""
    new_memory: float
    """Seconds a byte of memory that the system hands out, where it does so in every step, beyond writing to it."""
    meeting: float
    """Seconds until all devices have met to add up one number."""
    sum_bandwidth: float
    """Bytes per second of a large array that is added up over all devices."""

    def bandwidth_of(self, size: int | float) -> float:
        """Bytes per second where so many bytes lie between two uses of one, between those measured."""
        return _between(self.bandwidth, size)

    def transposed_of(self, rows: int) -> float:
        return _between(self.transposed, rows)

    def allocation(self, size: int) -> float:
        """Seconds that the system takes in every step to hand out memory in one piece."""
        return size * self.new_memory if size >= NEW else 0.0


def _between(rates: Sized, size: int | float) -> float:
    sizes, speeds = zip(*rates, strict=True)
    return float(np.exp(np.interp(math.log(max(1, size)), np.log(sizes), np.log(speeds))))


@functools.cache
def measured_rates(dtype: str) -> Rates:
    """The rates of the devices of this machine, all of one kind.

    Args:
      dtype: float32 or bfloat16.

    Raises:
      TooBusy: what was measured cannot be.
    """
    big = jax.devices()[0].platform != "cpu"
    size, count = (4096, 2**26) if big else (512, 2**16)
    sizes, spread, total = ((2**22, 2**26, 2**30), 2**26, 2**26) if big else ((2**18, 2**20, 2**22, 2**24, 2**26), 2**21, 2**22)
    meeting, sum_bandwidth = _meeting(total)
    return Rates(
        products=2.0 * size**3 / loop_seconds(jnp.matmul, [(size, size)] * 2, dtype),
        bandwidth=tuple((moved, moved / loop_seconds(lambda x: x + 1, [(moved // 8,)])) for moved in sizes),
        transposed=tuple(
            (rows, 8 * spread / loop_seconds(_transposed, [(spread // rows // WIDTH, rows, WIDTH)])) for rows in ROWS
        ),
        reduced={
            (name, last): 4 * count / loop_seconds(functools.partial(reduce, axis=-1 if last else 0), [(count // WIDTH, WIDTH)])
            for name, reduce in REDUCES.items()
            for last in (True, False)
        },
        elementwise=2.0 * TERMS * count / loop_seconds(_polynomial, [(count,)]),
        curves={name: count / loop_seconds(curve, [(count,)]) for name, curve in CURVES.items()},
        call=loop_seconds(lambda x: x + 1, [(SMALL,)]),
        new_memory=0.0 if big else _new_memory(),
        meeting=meeting,
        sum_bandwidth=sum_bandwidth,
    )


def _meeting(total: int) -> tuple[float, float]:
    """Seconds to add up one number over all devices, and bytes a second of so many."""
    seconds = lambda elements: loop_seconds(lambda x: jax.lax.psum(x, "all") * 0.5, [(elements,)], meets=True)  # noqa: E731
    for _ in range(4):  # other work may spoil some
        one, many = seconds(1), seconds(total // 4)
        if many > 2 * one:
            return one, total / (many - one)
    raise TooBusy(
        f"to add up {total:,} bytes over all devices must take longer than one number: got {many:.2g} and {one:.2g} s"
    )


def _new_memory() -> float:
    """Seconds a byte: an array that each call makes anew, less the same array made in the same place."""
    size = 2 * NEW
    make = lambda x: jnp.broadcast_to(x, (size // 4,))  # noqa: E731
    return max(0.0, call_seconds(make, (1,)) - loop_seconds(make, [(1,)])) / size


def _transposed(x: Array) -> Array:
    """Laid out anew: left to itself, the compiler only says that the axes have changed places."""
    return with_layout_constraint(x.swapaxes(1, 2) + 1, Layout(major_to_minor=(0, 1, 2)))


ROWS, WIDTH = (32, 128, 512, 2048, 8192), 256
"""Of the arrays that are transposed; and how wide they and those that are reduced are."""
TERMS = 32
"""Multiplications, and as many additions, of the polynomial that is computed for each element."""
SMALL = 1024
"""Elements of an array that takes next to no time. A loop over fewer still XLA compiles into one call."""


def _polynomial(x: Array) -> Array:
    value = x
    for _ in range(TERMS):
        value = value * x + 0.5
    return value
