"""A compiled program, read from its optimized HLO text: which computation calls which, and how often.

XLA's own cost analysis sees the body of a loop once. Here a loop's trips are read from its condition, so that what is in its
body can be counted as often as it happens.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_HEADER = re.compile(r"^(ENTRY )?%(\S+) \(.*\) -> .* \{$")
_BEGIN = re.compile(r"^\s+(ROOT )?%\S+ = ")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*(?:e[0-9]m[0-9]\w*)?)\[([0-9,]*)\]")
_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "token": 0}


@dataclass(frozen=True)
class Instruction:
    name: str
    shape: str
    """As it is written: "bf16[8,128]{1,0}", or a tuple of such."""
    opcode: str
    operands: tuple[str, ...]
    """Names."""
    rest: str
    """What stands behind the operands: attributes, metadata, the compiler's configuration."""
    called: dict[str, tuple[str, ...]]
    """Computations by role: calls, body, condition, to_apply, branches."""

    @property
    def op_name(self) -> str:
        """Where in the model it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    @property
    def bytes(self) -> int:
        return shape_bytes(self.shape)

    @property
    def cycles(self) -> int:
        """The compiler's estimate; 0 where it has none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(found[1]) if found else 0

    def attribute(self, pattern: str) -> str | None:
        found = re.search(pattern, self.rest)
        return found[1] if found else None


@dataclass(frozen=True)
class Computation:
    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""


Executed = tuple[Instruction, Computation, int]
"""An instruction, the computation it is in, and how often it is executed."""


@dataclass(frozen=True)
class Program:
    computations: dict[str, Computation]
    entry: str

    def executed(self) -> Iterator[Executed]:
        """Every instruction that is scheduled by itself: those inside fusions are not. A loop of unknown length counts as one
        turn (`unknown_loops` names them), and of the branches of a conditional only the one with the most of the compiler's
        cycles, or else instructions."""
        yield from self._executed(self.entry, 1)

    def _executed(self, name: str, times: int) -> Iterator[Executed]:
        computation = self.computations[name]
        for instruction in computation.instructions.values():
            yield instruction, computation, times
            yield from self._entered(instruction, computation, times)

    def _entered(self, instruction: Instruction, outer: Computation, times: int) -> Iterator[Executed]:
        if instruction.opcode == "while":
            turns = trips(self, instruction, outer)
            yield from self._executed(instruction.called["body"][0], times * (1 if turns is None else turns))
        elif instruction.opcode in ("call", "async-start"):
            for called in instruction.called.get("to_apply", ()) + instruction.called.get("calls", ()):
                yield from self._executed(called, times)
        elif branches := instruction.called.get("branches", ()):
            yield from self._executed(max(branches, key=self._work), times)

    def cycles(self, instruction: Instruction, outer: Computation) -> int:
        """The compiler's cycles of an instruction and of the loops and branches that it enters."""
        return instruction.cycles + sum(times * inner.cycles for inner, _, times in self._entered(instruction, outer, 1))

    def _work(self, name: str) -> tuple[int, int]:
        executed = list(self._executed(name, 1))
        return sum(times * instruction.cycles for instruction, _, times in executed), len(executed)

    def inside(self, instruction: Instruction, outer: Computation) -> Iterator[tuple[Instruction, Computation]]:
        """The instructions of a fusion, those of fusions in it included, or the instruction itself; each with where it is."""
        if instruction.opcode != "fusion":
            yield instruction, outer
            return
        for called in instruction.called["calls"]:
            computation = self.computations[called]
            for inner in computation.instructions.values():
                yield from self.inside(inner, computation)

    def unknown_loops(self) -> tuple[str, ...]:
        """The loops, by name, whose length cannot be read from the program: they count as one turn."""
        loops = ((loop, outer) for loop, outer, _ in self.executed() if loop.opcode == "while")
        return tuple(loop.name for loop, outer in loops if trips(self, loop, outer) is None)

    def conditionals(self) -> int:
        """Choices between branches that the program makes as it runs."""
        return sum(bool(instruction.called.get("branches")) for instruction, _, _ in self.executed())


def trips(program: Program, loop: Instruction, outer: Computation) -> int | None:
    """How often a loop's body is executed: as the compiler says, or from its start, step and end where they are constants.
    None where neither is known."""
    if (known := loop.attribute(r'"known_trip_count":\{"n":"(\d+)"')) is not None:
        return int(known)
    condition, body = (program.computations[loop.called[role][0]] for role in ("condition", "body"))
    compare = condition.instructions[condition.root]
    if compare.opcode != "compare" or "direction=LT" not in compare.rest:
        return None
    index, right = _place(condition, compare.operands[0]), condition.instructions.get(compare.operands[1])
    if index is None or right is None or right.opcode != "constant":
        return None
    end, step, start = _constant(right), _step(program, body, index), _element(outer, loop.operands[0], index)
    if end is None or not step or start is None:
        return None
    return max(0, -(-(end - start) // step))


def parse(text: str) -> Program:
    """The computations of a module."""
    computations: dict[str, Computation] = {}
    entry, name, instructions, root = "", "", {}, ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name, instructions, root = header[2], {}, ""
            entry = name if header[1] else entry
        elif line.rstrip() == "}" and name:
            computations[name] = Computation(name, instructions, root)
            name = ""
        elif name and _BEGIN.match(line):
            instruction = _instruction(line)
            instructions[instruction.name] = instruction
            if line.lstrip().startswith("ROOT "):
                root = instruction.name
    return Program(computations, entry)


def array_shapes(shape: str) -> list[str]:
    """The arrays of a tuple, or the array itself, without their layouts: "bf16[8,128]"."""
    return [f"{kind}[{sizes}]" for kind, sizes in _ARRAY.findall(shape)]


def shape_elements(shape: str) -> int:
    """Elements of an array, or of all arrays of a tuple."""
    return sum(math.prod(int(size) for size in sizes.split(",") if size) for _, sizes in _ARRAY.findall(shape))


def shape_bytes(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple."""
    total = 0
    for kind, sizes in _ARRAY.findall(shape):
        bits = _BITS.get(kind) or int((re.search(r"\d+", kind) or [0])[0])
        total += math.prod(int(size) for size in sizes.split(",") if size) * bits // 8
    return total


def _instruction(line: str) -> Instruction:
    name, _, right = line.strip().removeprefix("ROOT ").partition(" = ")
    cut = _matching(right, 0) + 1 if right.startswith("(") else right.index(" ")
    shape, right = right[:cut], right[cut:].lstrip()
    opcode, begin = right[: right.index("(")], right.index("(")
    end = _matching(right, begin)
    rest = right[end + 1 :]
    called: dict[str, tuple[str, ...]] = {}
    for role, target in _CALLED.findall(rest):
        role = "branches" if role.endswith("_computation") else role
        called[role] = (*called.get(role, ()), target)
    if branches := _BRANCHES.search(rest):
        called["branches"] = tuple(re.findall(r"%([\w.\-]+)", branches[1]))
    operands = tuple(re.findall(r"%([\w.\-]+(?:#\d+)?)", right[begin:end]))
    if opcode in ("constant", "parameter"):
        rest = right[begin : end + 1] + rest
    return Instruction(name.lstrip("%"), shape, opcode, operands, rest, called)


def _matching(text: str, begin: int) -> int:
    """The place of the parenthesis that closes the one at `begin`."""
    depth = 0
    for place in range(begin, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    raise ValueError(f"an HLO line must close its parentheses: got {text[begin : begin + 80]!r}")


def _place(computation: Computation, name: str) -> int | None:
    """Which element of a tuple this is; "%tuple#3" is short for a get-tuple-element."""
    if "#" in name:
        return int(name.partition("#")[2])
    found = computation.instructions.get(name)
    if found is None or found.opcode != "get-tuple-element":
        return None
    return int(found.attribute(r"index=(\d+)") or 0)


def _constant(instruction: Instruction) -> int | None:
    found = re.match(r"\((-?\d+)\)", instruction.rest)
    return int(found[1]) if found else None


def _step(program: Program, body: Computation, index: int) -> int | None:
    """What a loop adds to the element of its state that its condition looks at; None where that is no constant, or where it is
    not read."""
    root = body.instructions[body.root]
    if root.opcode != "tuple" or index >= len(root.operands):
        return None
    value, inside, given = _itself(body, root.operands[index]), body, ()
    if value is not None and value.opcode == "fusion":  # its root is looked at, its parameters are the fusion's operands
        inside, given = program.computations[value.called["calls"][0]], value.operands
        value = _itself(inside, inside.root)
    if value is None or value.opcode != "add":
        return None
    steps, places = [], []
    for name in value.operands:
        term, where = _itself(inside, name), inside
        if given and term is not None and term.opcode == "parameter":
            name, where = given[_constant(term) or 0], body
            term = _itself(body, name)
        if term is not None and term.opcode == "constant":
            steps.append(_constant(term))
        elif where is body:
            places.append(_place(body, name if term is None else term.name))
    return steps[0] if steps and places == [index] else None


def _itself(computation: Computation, name: str) -> Instruction | None:
    """The instruction, or what it is a copy of."""
    found = computation.instructions.get(name)
    while found is not None and found.opcode in ("copy", "bitcast"):
        found = computation.instructions.get(found.operands[0])
    return found


def _element(computation: Computation, name: str, index: int) -> int | None:
    """The constant that a tuple has at this place."""
    found = computation.instructions.get(name)
    if found is None or found.opcode != "tuple":
        return None
    element = _itself(computation, found.operands[index])
    return None if element is None or element.opcode != "constant" else _constant(element)
