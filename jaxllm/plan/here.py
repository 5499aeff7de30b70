"""How long a step takes on this machine's own devices: an estimate from its compiled program and what they were measured to do.

Each operation takes as long as its matrix products, its arithmetic or its memory traffic, whichever is longest, and an
operation of no size takes a while, too. Devices wait for each other at every collective. It is an estimate: caches, and
operations that run beside each other, are not known.
"""

import math
from dataclasses import dataclass

from jaxllm.plan.collectives import KINDS, result_bytes
from jaxllm.plan.estimate import StepTime, part_of
from jaxllm.plan.hlo import Computation, Instruction, Program, shape_elements
from jaxllm.plan.rates import Rates
from jaxllm.plan.traffic import FREE, instruction_bytes, product_flops

CURVES = frozenset("exponential tanh log logistic erf power sine cosine exponential-minus-one log-plus-one cbrt".split())
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


def here_step_time(program: Program, rates: Rates, *, flops: float) -> tuple[StepTime, dict[str, float]]:
    """The estimate of a step, and seconds by part of the model, the largest first.

    Args:
      flops: of the model in a step, one device's share.
    """
    compute, traffic, exposed = 0.0, 0.0, 0.0
    parts: dict[str, float] = {}
    for instruction, computation, times in program.executed():
        if instruction.opcode.removesuffix("-start") in KINDS:
            exposed += times * (rates.meeting + result_bytes(instruction) / rates.sum_bandwidth)
        elif instruction.opcode not in FREE and not instruction.opcode.endswith("-done"):
            time = operation_time(program, instruction, computation, rates)
            compute += times * time.total
            traffic += times * time.traffic
            part = part_of(instruction.op_name, times)
            parts[part] = parts.get(part, 0.0) + times * time.total
    seconds = StepTime(flops=flops / rates.products, compute=compute, traffic=traffic, hidden=0.0, exposed=exposed)
    return seconds, dict(sorted(parts.items(), key=lambda row: -row[1]))


def operation_time(program: Program, instruction: Instruction, computation: Computation, rates: Rates) -> OperationTime:
    """Seconds of one operation."""
    curves, plain, bandwidth = 0, 0, None
    for inner, place in program.inside(instruction, computation):
        if inner.opcode in CURVES:
            curves += shape_elements(inner.shape)
        elif inner.opcode == "reduce" or inner.opcode == "reduce-window":
            given = place.instructions.get(inner.operands[0])
            plain += 0 if given is None else shape_elements(given.shape)
        elif inner.opcode not in STILL and inner.opcode != "dot":
            plain += shape_elements(inner.shape)
        if inner.opcode == "transpose":
            bandwidth = rates.transposed
    moved = instruction_bytes(program, instruction, computation)
    bandwidth = bandwidth or rates.bandwidth_of(math.ceil(moved / 2))
    return OperationTime(
        products=product_flops(program, instruction, computation) / rates.products,
        arithmetic=curves / rates.transcendental + plain / rates.elementwise,
        traffic=moved / bandwidth,
        call=rates.call,
    )
