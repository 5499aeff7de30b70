"""What a compiled program sends between devices: which collective, over which mesh axes, how many bytes, how often.

Bytes are those that one device sends, by rings: of an array of X bytes, whole, in a group of n devices

| collective | bytes sent |
|---|---|
| all-gather, all-to-all | X (n - 1) / n |
| reduce-scatter | X (n - 1) / n, X being what goes in |
| all-reduce | 2 X (n - 1) / n: a reduce-scatter and an all-gather |
| ragged-all-to-all | at most X (n - 1) / n, X being the smaller of what goes in and what has room |
| collective-permute, collective-broadcast | X |

The TPU compiler writes a reduce-scatter as a fusion of an all-reduce and the slice that is kept, and an asynchronous
collective as a chain of fusions, from `async-collective-start` through those it runs beside to `async-collective-done`, each
with a copy of it: that is one collective. Channel numbers do not tell collectives apart: all of `shard_map` have the same.
What goes between the slices of a multi-slice machine is in `slices`.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxllm.plan.groups import device_groups, mesh_axes
from jaxllm.plan.hlo import Computation, Instruction, Program, array_shapes, shape_bytes, shape_elements
from jaxllm.plan.slices import slice_axes, slice_shape, transfers

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclass(frozen=True, kw_only=True)
class Collective:
    """All collectives of a step of one kind over the same mesh axes."""

    kind: str
    axes: tuple[str, ...]
    """Mesh axes along which the devices that talk to each other lie."""
    count: int
    """How often, in a step."""
    bytes: int
    """Bytes that each device sends, in a step."""
    exposed_bytes: int
    """Those of `bytes` that nothing runs beside: of collectives that the program waits for where they stand."""
    between_slices: bool = False
    """Whether it goes over the data centre's network."""


def collectives(
    program: Program, mesh_shape: dict[str, int], slices: int = 1, bytes_per_cycle: float = 0.0
) -> list[Collective]:
    """The collectives of a program, the largest first, each counted once and as often as the loops around it turn.

    Args:
      bytes_per_cycle: that the network between slices takes from a device while it computes for a cycle.
    """
    inside = slice_shape(mesh_shape, slices)
    found: dict[tuple[str, tuple[str, ...], bool], list[int]] = defaultdict(lambda: [0, 0, 0])
    devices = int(np.prod(list(inside.values())))
    for instruction, computation, times in program.executed():
        for inner, place in program.inside(instruction, computation):
            kind = inner.opcode.removesuffix("-start")
            if kind not in KINDS or _goes_on(instruction):
                continue
            groups = device_groups(inner, devices)
            kept = kept_share(instruction, inner, groups.shape[1])
            kind = "reduce-scatter" if kind == "all-reduce" and kept > 1 else kind
            sent = times * sent_bytes(kind, inner, place, groups.shape[1], kept)
            exposed = 0 if _overlaps(instruction, computation) else sent
            _add(found[kind, mesh_axes(groups, inside), False], times, sent, exposed)
    for row in transfers(program, slices, bytes_per_cycle):
        sent, exposed = row.times * row.bytes, round(row.times * (row.bytes - row.hidden_bytes))
        _add(found[row.kind, slice_axes(mesh_shape, slices), True], row.times, sent, exposed)
    rows = [
        Collective(kind=kind, axes=axes, count=count, bytes=sent, exposed_bytes=exposed, between_slices=between)
        for (kind, axes, between), (count, sent, exposed) in found.items()
    ]
    return sorted(rows, key=lambda row: -row.bytes)


def _add(totals: list[int], *more: int) -> None:
    for place, value in enumerate(more):
        totals[place] += value


def _goes_on(instruction: Instruction) -> bool:
    """Whether this fusion goes on with, or ends, a collective that another started."""
    if instruction.opcode != "fusion" or instruction.name.startswith("async-collective-start"):
        return False
    called = instruction.called["calls"][0]
    return instruction.name.startswith("async-collective-done") or called.startswith("async_collective_fusion")


def kept_share(instruction: Instruction, inner: Instruction, size: int) -> int:
    """Into how many parts the sum of an all-reduce is cut, of which its fusion keeps one: 1 where all of it is kept."""
    if instruction.opcode != "fusion" or "all-reduce-scatter" not in instruction.called["calls"][0]:
        return 1
    return min(size, max(1, round(shape_elements(inner.shape) / max(1, shape_elements(instruction.shape)))))


def sent_bytes(kind: str, instruction: Instruction, place: Computation, size: int, kept: int = 1) -> int:
    """Bytes that one device of a group of `size` sends, by rings.

    Args:
      kept: of a sum, the parts into which it is cut, of which a device keeps one.
    """
    result = result_bytes(instruction)
    if kind in ("collective-permute", "collective-broadcast"):
        return result
    if instruction.opcode.removesuffix("-start") == "all-reduce":  # scattered, and gathered again as far as it is kept
        again = size // kept
        return result * (size - 1) // size + result // kept * (again - 1) // again
    if kind == "reduce-scatter":
        return result * (size - 1)
    if kind == "ragged-all-to-all" and (given := place.instructions.get(instruction.operands[0])) is not None:
        result = min(result, given.bytes)
    return result * (size - 1) // size


def result_bytes(instruction: Instruction) -> int:
    """Bytes of what a collective leaves; an asynchronous one's shape names what goes in and what comes out."""
    if not instruction.opcode.endswith("-start") or not instruction.shape.startswith("("):
        return instruction.bytes
    if instruction.opcode == "all-reduce-start":
        return instruction.bytes
    arrays = [array for array in array_shapes(instruction.shape) if array not in ("u32[]", "s32[]")]
    return sum(shape_bytes(array) for array in arrays[len(arrays) // 2 :])


def _overlaps(instruction: Instruction, computation: Computation) -> bool:
    """Whether the program does something else between the collective's start and its end."""
    if instruction.opcode == "fusion":
        return instruction.name.startswith("async-collective-start")
    if not instruction.opcode.endswith("-start"):
        return False
    return any(_takes_time(beside) for beside in _until_done(instruction, computation))


def _until_done(start: Instruction, computation: Computation) -> Iterator[Instruction]:
    begun = False
    for instruction in computation.instructions.values():
        if begun and start.name in instruction.operands and instruction.opcode.endswith("-done"):
            return
        if begun:
            yield instruction
        begun = begun or instruction is start


def _takes_time(instruction: Instruction) -> bool:
    if instruction.opcode == "custom-call":
        return re.search("tpu_custom_call|cudnn|cublas|triton", instruction.rest) is not None
    return instruction.cycles > 0 or instruction.opcode in ("fusion", "convolution", "dot", "while", "call")
