"""Bytes that a compiled program reads from and writes to a device's memory, and the FLOPs of its matrix products.

XLA's own `cost_analysis` counts a loop's body once; here it counts as often as it turns. Of an array of which only a slice is
read or written, the slice counts; what a TPU keeps on the chip, in memory spaces other than 0, does not.
"""

import math
import re

from jaxllm.plan.hlo import Computation, Instruction, Program, shape_bytes

FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast while conditional call after-all partition-id replica-id "
    "opt-barrier optimization-barrier async-start async-update async-done domain iota".split()
)
"""Operations that move nothing themselves."""
_LAID_OUT = re.compile(r"\b[a-z]+[0-9]*(?:e[0-9]m[0-9]\w*)?\[[0-9,]*\](?:\{[^}]*\})?")
_SLICES = ("dynamic-slice", "slice", "gather")


def traffic_bytes(program: Program) -> int:
    """Bytes of one device in a step."""
    return sum(times * instruction_bytes(program, i, computation) for i, computation, times in program.executed())


def instruction_bytes(program: Program, instruction: Instruction, computation: Computation) -> int:
    """Bytes that one instruction reads and writes."""
    if instruction.opcode in FREE or instruction.opcode.endswith("-done"):
        return 0
    operands = [computation.instructions[name] for name in instruction.operands if name in computation.instructions]
    if instruction.name.startswith("async-collective-"):  # what is sent is written once, at the end
        return _memory_bytes(instruction.shape) if instruction.name.startswith("async-collective-done") else 0
    if instruction.opcode == "fusion":
        fused = program.computations[instruction.called["calls"][0]]
        handed_on = _handed_on(instruction, operands) if fused.name.startswith("async_collective_fusion") else 0
        return max(0, _fusion_bytes(program, fused, instruction, operands) - handed_on)
    if instruction.opcode in _SLICES:
        return 2 * _memory_bytes(instruction.shape)
    if instruction.opcode == "dynamic-update-slice" and len(operands) > 1:
        return 2 * _memory_bytes(operands[1].shape)
    if instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start":  # its shape names operands, too
        return _memory_bytes(instruction.shape)
    return _memory_bytes(instruction.shape) + sum(_memory_bytes(operand.shape) for operand in operands)


def _handed_on(instruction: Instruction, operands: list[Instruction]) -> int:
    """Of a fusion that a collective runs beside: bytes of the buffers that it only hands on, among operands and results."""
    given, total = [shape for operand in operands for shape in _LAID_OUT.findall(operand.shape)], 0
    for shape in _LAID_OUT.findall(instruction.shape):
        if shape in given:
            given.remove(shape)
            total += 2 * _memory_bytes(shape)
    return total


def _fusion_bytes(program: Program, fused: Computation, instruction: Instruction, operands: list[Instruction]) -> int:
    parameters = _parameters(fused)
    written, updated = _written(fused, instruction)
    total = written
    for place, operand in enumerate(operands):
        whole = _memory_bytes(operand.shape)
        inner = parameters.get(place)
        if inner is None or not whole:
            total += whole
            continue
        users = [row for row in _users(program, fused, inner) if row[0].name not in updated or row[0].operands[0] != row[1]]
        sliced = all(user.opcode in _SLICES and user.operands[0] == name for user, name in users)
        total += min(whole, sum(shape_bytes(user.shape) for user, _ in users)) if sliced else whole
    return total


def _parameters(fused: Computation) -> dict[int, Instruction]:
    """By their place."""
    return {
        int(inner.rest[1 : inner.rest.index(")")]): inner
        for inner in fused.instructions.values()
        if inner.opcode == "parameter" and inner.rest.startswith("(")
    }


def _written(fused: Computation, instruction: Instruction) -> tuple[int, set[str]]:
    """Bytes of a fusion's results, of those that are updated in place the update; and the updates' names."""
    whole, root = _memory_bytes(instruction.shape), fused.instructions.get(fused.root)
    if not whole or root is None:
        return whole, set()
    results = [fused.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
    updates = [_unwrapped(fused, result) for result in results]
    updates = [update for update in updates if update.opcode == "dynamic-update-slice"]
    saved = sum(shape_bytes(x.shape) - shape_bytes(fused.instructions[x.operands[1]].shape) for x in updates)
    return max(0, whole - saved), {update.name for update in updates}


def _unwrapped(fused: Computation, instruction: Instruction) -> Instruction:
    while instruction.opcode in ("bitcast", "copy", "convert") and instruction.operands[0] in fused.instructions:
        instruction = fused.instructions[instruction.operands[0]]
    return instruction


def _users(program: Program, fused: Computation, given: Instruction) -> list[tuple[Instruction, str]]:
    """What reads a value, and the name that it has there; changes of its shape alone, and fusions in the fusion, are looked
    through."""
    found = []
    for instruction in fused.instructions.values():
        if given.name not in instruction.operands:
            continue
        if instruction.opcode == "bitcast":
            found += _users(program, fused, instruction)
        elif instruction.opcode == "fusion":
            inner = program.computations[instruction.called["calls"][0]]
            places = [place for place, name in enumerate(instruction.operands) if name == given.name]
            found += [row for place in places for row in _users(program, inner, _parameters(inner)[place])]
        else:
            found.append((instruction, given.name))
    return found


def _memory_bytes(shape: str) -> int:
    """Bytes of the arrays that are in the device's main memory."""
    return sum(shape_bytes(array) for array in _LAID_OUT.findall(shape) if not re.search(r"S\([1-9]", array))


def product_flops(program: Program, instruction: Instruction, computation: Computation) -> float:
    """FLOPs of the matrix products in an instruction, those of its fusion included; on a GPU of the library it calls, too."""
    total = 0.0
    for inner, place in program.inside(instruction, computation):
        if inner.opcode == "dot" or "__cublas$" in inner.rest:
            total += _dot_flops(inner, place)
        elif "__cudnn$fmha" in inner.rest:
            total += _attention_flops(inner, place)
    return total


def _dot_flops(dot: Instruction, computation: Computation) -> float:
    """2 for each element of the result and of what is summed. A library's call hands out the result first, then workspace."""
    left = _sizes(computation.instructions[dot.operands[0]].shape)
    found = re.search(r'lhs_contracting_dim(?:s=\{|ensions":\[)([\d,"]*)', dot.rest)
    axes = re.findall(r"\d+", found[1]) if found else []
    return 2.0 * math.prod(left[int(axis)] for axis in axes) * math.prod(_sizes(dot.shape))


def _attention_flops(call: Instruction, computation: Computation) -> float:
    """Of cuDNN's fused attention: 2 products of all pairs forward, 5 backward, half of them where later tokens are not seen."""
    pairs = re.search(r'"intermediate_tensor_shape":\{[^}]*"dimensions":\[([\d,"]*)\]', call.rest)
    if pairs is None:
        return 0.0
    rows = [int(size) for size in re.findall(r"\d+", pairs[1])]
    width = math.prod(_sizes(computation.instructions[call.operands[0]].shape)) / math.prod(rows[:-1])
    products = 5 if "Backward" in call.rest else 2
    return 2.0 * products * math.prod(rows) * width * (0.5 if '"mask_type":"CAUSAL"' in call.rest else 1.0)


def _sizes(shape: str) -> list[int]:
    """Of an array, or of the first of a tuple."""
    return [int(size) for size in shape[shape.index("[") + 1 : shape.index("]")].split(",") if size]
