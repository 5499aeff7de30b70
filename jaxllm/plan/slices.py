"""What a compiled program sends between slices, over the data centre's network.

The TPU compiler makes one program for all slices, whose devices are numbered within their slice. What goes to other slices is
handed to the host by a `send`, and comes back, already summed or gathered, by a `recv` of the same rendezvous. Bytes are those
that one device's share makes its host send, by rings: see `collectives`.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from jaxllm.plan.hlo import Computation, Instruction, Program, array_shapes, shape_bytes

SLOW_NETWORK = 6.25e9
"""Bytes per second and chip between slices: 25 GB/s a host of four chips, an assumption."""
SPANNING = ("replica", "stage")
"""Mesh axes that may span slices, those first that are spread over them first."""
_HANDLER = '_xla_host_transfer_handler_name="xla_megascale_runtime"'


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What one device hands over at one place of the program."""

    kind: str
    """As of a collective."""
    times: int
    """How often the place is executed in a step."""
    bytes: int
    """Each time."""
    hidden_bytes: float
    """Of them, those that are sent while the program computes."""


def slice_shape(mesh_shape: dict[str, int], slices: int) -> dict[str, int]:
    """The mesh of one slice's devices."""
    inside, left = dict(mesh_shape), slices
    for axis in SPANNING:
        part = math.gcd(left, inside.get(axis, 1))
        left //= part
        if part > 1:
            inside[axis] //= part
    return inside


def slice_axes(mesh_shape: dict[str, int], slices: int) -> tuple[str, ...]:
    """The mesh axes that span slices."""
    inside = slice_shape(mesh_shape, slices)
    return tuple(axis for axis, size in mesh_shape.items() if inside[axis] < size)


def transfers(program: Program, slices: int, bytes_per_cycle: float) -> Iterator[Transfer]:
    """What goes to other slices.

    Args:
      bytes_per_cycle: that the network takes from a device while it computes for a cycle.
    """
    executed: dict[str, int] = defaultdict(int)
    for instruction, computation, times in program.executed():
        if _is(instruction, "send"):
            executed[computation.name] += times
    for name, times in executed.items():
        computation = program.computations[name]
        sends = {_rendezvous(i): i for i in computation.instructions.values() if _is(i, "send")}
        sizes = {rendezvous: _sent(send, computation, slices) for rendezvous, send in sends.items()}
        share = min(1.0, _cycles_beside(program, computation) * bytes_per_cycle / max(1, sum(sizes.values())))
        executions = times // len(sends)  # each was counted
        for rendezvous, send in sends.items():
            size = sizes[rendezvous]
            yield Transfer(kind=_kind(send), times=executions, bytes=size, hidden_bytes=share * size)


def _is(instruction: Instruction, opcode: str) -> bool:
    return instruction.opcode == opcode and _HANDLER in instruction.rest


def _rendezvous(instruction: Instruction) -> str:
    return instruction.attribute(r'_xla_host_transfer_rendezvous="([^"]*)"') or instruction.name


def _kind(send: Instruction) -> str:
    said = (send.attribute(r'_xla_megascale_transfer_type="([^"]*)"') or "unknown").lower().replace("_", "-")
    return "collective-permute" if said == "one-to-one" else said


def _sent(send: Instruction, computation: Computation, slices: int) -> int:
    given, kind = _buffer(send), _kind(send)
    if kind == "collective-permute":
        return given
    if kind == "all-gather":
        received = (i for i in computation.instructions.values() if _is(i, "recv") and _rendezvous(i) == _rendezvous(send))
        given = max(map(_buffer, received), default=given * slices)
    return (2 if kind == "all-reduce" else 1) * given * (slices - 1) // slices


def _buffer(instruction: Instruction) -> int:
    """Bytes of what is handed over; the rest of the shape are tokens."""
    return shape_bytes(array_shapes(instruction.shape)[0])


def _cycles_beside(program: Program, computation: Computation) -> int:
    """The compiler's cycles of what runs between a send and the end of its receive, each counted once."""
    waiting: set[str] = set()
    total = 0
    for instruction in computation.instructions.values():
        if _is(instruction, "send"):
            waiting.add(_rendezvous(instruction))
        elif instruction.opcode == "recv-done" and instruction.operands:
            begun = computation.instructions.get(instruction.operands[0])
            waiting.discard("" if begun is None else _rendezvous(begun))
        elif waiting:
            total += program.cycles(instruction, computation)
    return total
