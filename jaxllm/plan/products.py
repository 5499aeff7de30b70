"""The matrix products of a compiled program in the form that they have in memory, and how long each takes on this machine.

How fast a product is depends on its form: which axes are summed, which lie next to each other, how long each is. A CPU's
square product of 512 reaches its peak, one with a short side, or of many small matrices, a half or a tenth of it. So each is
timed in its own form; of a very large one a part, which is as fast.
"""

import functools
import math
import re
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from jaxllm.plan.hlo import Computation, Instruction, Program
from jaxllm.plan.timed import loop_seconds

MOST_FLOPS, MOST_ELEMENTS = 2**30, 2**25
"""Of a product that is timed whole."""
TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "f64": "float64", "s8": "int8", "s32": "int32"}


@dataclass(frozen=True, kw_only=True)
class Product:
    """Sizes of both arrays, the slowest axis in memory first."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    summed: tuple[tuple[int, int], ...]
    """Axes of the left and of the right."""
    batch: tuple[tuple[int, int], ...]
    dtype: str
    """Of what is multiplied."""
    result: str
    """Its type."""

    @property
    def flops(self) -> float:
        shared = {right for _, right in self.summed + self.batch}
        return 2.0 * math.prod(self.left) * math.prod(size for axis, size in enumerate(self.right) if axis not in shared)

    @property
    def elements(self) -> float:
        summed = math.prod(self.left[axis] for axis, _ in self.summed)
        return math.prod(self.left) + math.prod(self.right) + self.flops / 2 / summed


def dot_products(program: Program, instruction: Instruction, computation: Computation) -> list[Product]:
    """The products that an instruction computes without a library's call; those of its fusion included."""
    dots = [(inner, place) for inner, place in program.inside(instruction, computation) if inner.opcode == "dot"]
    return [_product(dot, place) for dot, place in dots]


def _product(dot: Instruction, computation: Computation) -> Product:
    (dtype, left, from_left), (_, right, from_right) = (
        in_memory(computation.instructions[name].shape) for name in dot.operands[:2]
    )

    def pairs(role: str) -> tuple[tuple[int, int], ...]:
        sides = [dot.attribute(side + role + r"=\{([\d,]*)\}") or "" for side in ("lhs_", "rhs_")]
        axes = zip(*([int(axis) for axis in side.split(",") if axis] for side in sides), strict=True)
        return tuple((from_left[a], from_right[b]) for a, b in axes)

    types = {"dtype": TYPES.get(dtype, "float32"), "result": TYPES.get(in_memory(dot.shape)[0], "float32")}
    return Product(left=left, right=right, summed=pairs("contracting_dims"), batch=pairs("batch_dims"), **types)


def in_memory(shape: str) -> tuple[str, tuple[int, ...], dict[int, int]]:
    """Of an array as it is written, "f32[8,16]{0,1}": its type, its sizes, the slowest axis first, and the place of each axis
    there."""
    found = re.match(r"\(?(\w+)\[([\d,]*)\](?:\{([\d,]*))?", shape)
    assert found, shape
    sizes = [int(size) for size in found[2].split(",") if size]
    order = [int(axis) for axis in (found[3] or "").split(",") if axis][::-1] or list(range(len(sizes)))
    return found[1], tuple(sizes[axis] for axis in order), {axis: place for place, axis in enumerate(order)}


@functools.cache
def product_seconds(product: Product) -> float:
    """Measured on this machine's devices."""
    part = product
    while part.flops > MOST_FLOPS or part.elements > MOST_ELEMENTS:
        part = _halved(part)
    if part != product:
        return product_seconds(part) * product.flops / part.flops
    summed, batch = (([a for a, _ in pairs], [b for _, b in pairs]) for pairs in (product.summed, product.batch))
    multiply = functools.partial(
        jax.lax.dot_general, dimension_numbers=(summed, batch), preferred_element_type=jnp.dtype(product.result)
    )
    return loop_seconds(multiply, [product.left, product.right], product.dtype)


def _halved(product: Product) -> Product:
    """The longest axis half as long."""
    left, right = list(product.left), list(product.right)
    on_left = max(left) >= max(right)
    axis = left.index(max(left)) if on_left else right.index(max(right))
    (left if on_left else right)[axis] //= 2
    for pair in product.summed + product.batch:
        if pair[0 if on_left else 1] == axis:
            (right if on_left else left)[pair[1 if on_left else 0]] //= 2
    return replace(product, left=tuple(left), right=tuple(right))
