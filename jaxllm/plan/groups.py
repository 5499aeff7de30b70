"""Which devices a collective joins, as HLO text writes it in its several ways, and along which mesh axes they lie."""

import re

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from jaxllm.plan.hlo import Instruction

# G groups, P devices of a group


def device_groups(instruction: Instruction, devices: int) -> Int[ndarray, "G P"]:
    """Numbers of devices, in the order of the mesh. Of a permutation: pairs of sender and receiver."""
    rest = instruction.rest
    if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", rest):
        return np.array([[int(number) for number in pair] for pair in re.findall(r"\{(\d+),(\d+)\}", pairs[1])])
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        names = re.findall(r"'([^']+)'", mesh[2])
        grid = np.arange(int(np.prod(list(sizes.values())))).reshape(list(sizes.values()))
        inner = [list(sizes).index(name) for name in names]
        outer = [axis for axis in range(len(sizes)) if axis not in inner]
        return grid.transpose(outer + inner).reshape(-1, int(np.prod([grid.shape[axis] for axis in inner])))
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest):
        grid = np.arange(int(iota[1]) * int(iota[2])).reshape([int(size) for size in iota[3].split(",")])
        if iota[4]:
            grid = grid.transpose([int(axis) for axis in iota[4].split(",")])
        return grid.reshape(int(iota[1]), int(iota[2]))
    if listed := re.search(r"replica_groups=\{((?:\{[\d,]+\},?)+)\}", rest):
        return np.array([[int(number) for number in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed[1])])
    return np.arange(devices)[None]


def mesh_axes(groups: Int[ndarray, "G P"], mesh_shape: dict[str, int]) -> tuple[str, ...]:
    """The mesh axes whose coordinate differs within groups."""
    places = np.stack(np.unravel_index(groups, tuple(mesh_shape.values())), axis=-1)
    differs = (places != places[:, :1]).any(axis=(0, 1))
    return tuple(name for name, differs_here in zip(mesh_shape, differs, strict=True) if differs_here)
