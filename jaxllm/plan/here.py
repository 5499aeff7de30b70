"""How long a step takes on this machine's own devices: an estimate from its compiled program and what they were measured to do.

Each operation takes as long as its matrix products, its arithmetic or its memory traffic, whichever is longest, and an
operation of no size takes a while, too. Matrix products are timed in their own form. Memory is as fast as the cache that an
array is still in: it is taken to be in the smallest that holds what was moved since the array was used last. Devices wait for
each other at every collective. It is an estimate: operations that run beside each other are not known.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxllm.plan.collectives import KINDS, result_bytes
from jaxllm.plan.estimate import StepTime, part_of
from jaxllm.plan.hlo import Computation, Executed, Instruction, Program, shape_bytes, shape_elements
from jaxllm.plan.products import Product, dot_products, in_memory, product_seconds
from jaxllm.plan.rates import ALIKE, Rates
from jaxllm.plan.traffic import FREE, instruction_bytes, product_flops

MOVES = "broadcast reshape transpose copy slice dynamic-slice dynamic-update-slice pad concatenate reverse gather"
STILL = FREE | frozenset(MOVES.split())
"""Operations that compute nothing: of them only the memory traffic counts."""


@dataclass(frozen=True, kw_only=True)
class OperationTime:
    """Seconds of one operation, each alone; the longest counts, and the call."""

    products: float
    arithmetic: float
    traffic: float
    call: float

    @property
    def total(self) -> float:
        return max(self.products, self.arithmetic, self.traffic) + self.call


def here_step_time(
    program: Program,
    rates: Rates,
    *,
    flops: float,
    temporaries: int = 0,
    timed: Callable[[Product], float] = product_seconds,
) -> tuple[StepTime, dict[str, float]]:
    """The estimate of a step, and seconds by part of the model, the largest first.

    Args:
      flops: of the model in a step, one device's share.
      temporaries: bytes that a step takes from the system and gives back.
      timed: seconds of a product.
    """
    new = rates.allocation(temporaries)
    compute, traffic, exposed = new, new, 0.0
    parts: dict[str, float] = {"memory from the system": new} if new else {}
    for (instruction, computation, times), distance in with_distances(program):
        if instruction.opcode.removesuffix("-start") in KINDS:
            exposed += times * (rates.meeting + result_bytes(instruction) / rates.sum_bandwidth)
        elif instruction.opcode not in FREE and not instruction.opcode.endswith("-done"):
            time = operation_time(program, instruction, computation, rates, distance=distance, timed=timed)
            compute += times * time.total
            traffic += times * time.traffic
            part = part_of(instruction.op_name, times)
            parts[part] = parts.get(part, 0.0) + times * time.total
    seconds = StepTime(flops=flops / rates.products, compute=compute, traffic=traffic, hidden=0.0, exposed=exposed)
    return seconds, dict(sorted(parts.items(), key=lambda row: -row[1]))


def with_distances(program: Program) -> Iterator[tuple[Executed, float]]:
    """What is executed, and how many bytes are moved between the last use of what it reads and its own; on average over its
    bytes and, in a loop, over its turns: from the second on, what a turn reads was used in the turn before. What is used for
    the first time was used in the step before."""
    executed = list(program.executed())
    sizes = [instruction_bytes(program, instruction, computation) for instruction, computation, _ in executed]
    step = sum(times * size for (_, _, times), size in zip(executed, sizes, strict=True))
    moved, used = 0.0, {}
    for row, size in zip(executed, sizes, strict=True):
        instruction, computation, times = row
        if instruction.opcode in FREE:
            yield row, 0.0
            continue
        read = [_source(computation, name) for name in instruction.operands if name in computation.instructions]
        weights = {source.name: min(size, shape_bytes(source.shape)) for source in read}
        distances = {name: moved - used.get(name, moved - step) for name in weights}
        total = sum(weights.values())
        mean = sum(weights[name] * distances[name] for name in weights) / total / times if total else 0.0
        yield row, mean
        moved += times * size
        used |= dict.fromkeys([*weights, instruction.name], moved)


def _source(computation: Computation, name: str) -> Instruction:
    """What a value is another name of."""
    found = computation.instructions[name]
    while found.opcode in ("bitcast", "get-tuple-element") and found.operands and found.operands[0] in computation.instructions:
        if found.opcode == "get-tuple-element" and computation.instructions[found.operands[0]].opcode in ("parameter", "while"):
            break
        found = computation.instructions[found.operands[0]]
    return found


def operation_time(
    program: Program,
    instruction: Instruction,
    computation: Computation,
    rates: Rates,
    *,
    distance: float = 0.0,
    timed: Callable[[Product], float] = product_seconds,
) -> OperationTime:
    """Seconds of one operation.

    Args:
      distance: bytes moved between the last use of what it reads and its own.
    """
    dots = dot_products(program, instruction, computation)
    library = product_flops(program, instruction, computation) - sum(dot.flops for dot in dots)
    moved = instruction_bytes(program, instruction, computation)
    inside = list(program.inside(instruction, computation))
    rows = max((transposed_rows(inner, place) for inner, place in inside), default=0)
    bandwidth = rates.bandwidth_of(distance + moved)
    return OperationTime(
        products=sum(timed(dot) for dot in dots) + library / rates.products,
        arithmetic=sum(_arithmetic(program, inner, place, rates) for inner, place in inside),
        traffic=moved / (min(bandwidth, rates.transposed_of(rows)) if rows else bandwidth),
        call=rates.call,
    )


def _arithmetic(program: Program, inner: Instruction, place: Computation, rates: Rates) -> float:
    """Seconds of computing each element."""
    opcode = ALIKE.get(inner.opcode, inner.opcode)
    if opcode in rates.curves:
        return shape_elements(inner.shape) / rates.curves[opcode]
    if opcode in ("reduce", "reduce-window"):
        given = place.instructions.get(inner.operands[0])
        return 0.0 if given is None else given.bytes / reduced_rate(program, inner, given, rates)
    return 0.0 if opcode in STILL or opcode == "dot" else shape_elements(inner.shape) / rates.elementwise


def reduced_rate(program: Program, inner: Instruction, given: Instruction, rates: Rates) -> float:
    """Bytes a second that an operation reduces: by what it reduces with, and whether along the axis that lies together."""
    _, _, place = in_memory(given.shape)
    if window := inner.attribute(r"window=\{size=([\dx]+)"):
        axes = [axis for axis, size in enumerate(window.split("x")) if int(size) > 1]
    else:
        axes = [int(axis) for axis in (inner.attribute(r"dimensions=\{([\d,]*)\}") or "").split(",") if axis]
    last = any(place[axis] == len(place) - 1 for axis in axes)
    called = program.computations[inner.called["to_apply"][0]]
    kinds = {kind for kind, _ in rates.reduced} & {step.opcode for step in called.instructions.values()}
    return rates.reduced[min(kinds, default="add"), last]


LINE = 64
"""Bytes that memory hands out together: of elements nearer to each other than this, a line holds the next, too."""


def transposed_rows(inner: Instruction, place: Computation) -> int:
    """Of a change of places: how many rows, each at another line of memory, the elements that come to lie together were in; 0
    where those that lie together have lain together, or nearly."""
    given = place.instructions.get(inner.operands[0]) if inner.operands else None
    if inner.opcode not in ("transpose", "copy") or given is None:
        return 0
    (_, before, from_axis), (_, after, to_axis) = in_memory(given.shape), in_memory(inner.shape)
    order = [int(axis) for axis in re.findall(r"\d+", inner.attribute(r"dimensions=\{([\d,]*)\}") or "")] or range(len(after))
    was = {to_axis[new]: from_axis[old] for new, old in enumerate(order)}
    rows, wide = 1, [axis for axis, size in enumerate(after) if size > 1]
    if not wide:
        return 0
    apart = math.prod(before[was[wide[-1]] + 1 :]) * shape_bytes(given.shape) // math.prod(before)
    for axis in reversed(wide):  # outward, up to the axis that was the last
        if math.prod(before[was[axis] + 1 :]) == 1:
            break
        rows *= after[axis]
    return rows if apart >= LINE else 0
