"""How long a compiled step would take on a TPU: an estimate from the compiler's cycles and the maker's bandwidths.

    step = max(FLOPs / peak, cycles / clock + kernels, collectives that run beside computing) + collectives that do not

FLOPs are those of the model, counted analytically. Cycles are the TPU compiler's own estimate, rolled up over loops; it has
none for Pallas kernels, so attention's are taken from its FLOPs at `KERNEL_EFFICIENCY` of the peak. A collective runs beside
computing where the compiled program starts it, does something else and then waits for it. All of it is an estimate.
"""

import math
import re
from dataclasses import dataclass

from jaxllm.plan.collectives import Collective
from jaxllm.plan.hlo import Program
from jaxllm.plan.slices import SLOW_NETWORK

KERNEL_EFFICIENCY = 0.5
"""Share of the peak that attention kernels are taken to reach: an assumption."""


@dataclass(frozen=True, kw_only=True)
class Interconnect:
    """What the estimate needs to know of a TPU beyond `hardware.DeviceKind`."""

    clock: float
    """Cycles per second: the peak over the multipliers of the matrix units."""
    bandwidth: float
    """Bytes per second of all of a chip's links to its neighbours together."""


INTERCONNECTS = {
    "TPU v4": Interconnect(clock=1.05e9, bandwidth=300e9),
    "TPU v5 lite": Interconnect(clock=1.5e9, bandwidth=200e9),
    "TPU v5": Interconnect(clock=1.75e9, bandwidth=600e9),
    "TPU v6 lite": Interconnect(clock=1.75e9, bandwidth=448e9),
}
"""By `device_kind`. Bandwidth: cloud.google.com/tpu/docs, "interchip interconnect bandwidth"; clock: the published peak over
the matrix units' multipliers."""

PARTS = {
    "attention": r"attention|splash|rope",
    "feed-forward": r"/ffw|expert",
    "unembedding": r"BTD,[DV]+->BTV|loss_in_pieces|_piece|cross_entropy|unembed",
    "embedding": r"look_up|/embed",
}
"""Model parts, and what marks an operation's name as theirs; the first that fits."""


def part_of(op_name: str, times: int) -> str:
    """Which part of the model an operation belongs to.

    Args:
      times: that it is executed in a step; what the compiler adds to a loop, such as gathering weights, has no name.
    """
    for part, mark in PARTS.items():
        if re.search(mark, op_name):
            return part
    looped = "while" in op_name or (times > 1 and "/" not in op_name)
    return "other layers" if looped or "Transformer" in op_name else "optimizer and the rest"


def cycles_by_part(program: Program) -> dict[str, int]:
    """The compiler's estimated cycles of a step, rolled up by part of the model, the largest first."""
    cycles: dict[str, int] = {}
    for instruction, _, times in program.executed():
        if instruction.cycles:
            part = part_of(instruction.op_name, times)
            cycles[part] = cycles.get(part, 0) + times * instruction.cycles
    return dict(sorted(cycles.items(), key=lambda row: -row[1]))


def seconds_by_part(program: Program, link: Interconnect, kernel_flops: float, peak: float) -> dict[str, float]:
    """Seconds of computing, estimated, by part of the model, the largest first; attention's kernels are a part of their own.

    Args:
      kernel_flops: of one chip.
      peak: FLOP/s.
    """
    parts = {part: cycles / link.clock for part, cycles in cycles_by_part(program).items()}
    if kernel_flops:
        parts["attention kernels"] = kernel_flops / (KERNEL_EFFICIENCY * peak)
    return dict(sorted(parts.items(), key=lambda row: -row[1]))


def network_seconds(sent: int, row: Collective, mesh_shape: dict[str, int], link: Interconnect) -> float:
    """Time to send so many bytes as this collective does, with nothing beside it. Mesh axes over the whole slice have all of a
    chip's links, those over a part of it their share of them.

    Args:
      mesh_shape: of one slice.
    """
    if row.between_slices:
        return sent / SLOW_NETWORK
    chips = math.prod(mesh_shape.values())
    size = math.prod(mesh_shape[axis] for axis in row.axes)
    share = math.log(size) / math.log(chips) if 1 < size < chips else 1.0
    return sent / (link.bandwidth * share)


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of a step, all estimated."""

    flops: float
    """The model's FLOPs at the chip's peak: what no step can be shorter than."""
    compute: float
    """Computing, and waiting for the chip's own memory: the compiler's cycles, and attention kernels."""
    traffic: float
    """Bytes that the step reads and writes, at the bandwidth of the chip's memory; much of it beside computing."""
    hidden: float
    """Collectives that run beside computing."""
    exposed: float
    """Collectives that nothing runs beside."""

    @property
    def step(self) -> float:
        return max(self.flops, self.compute, self.hidden) + self.exposed

    @property
    def bound(self) -> str:
        """network, where it takes longer than computing; otherwise the side of the roofline that the step lies on: memory or
        compute."""
        if self.hidden + self.exposed > max(self.compute, self.flops):
            return "network"
        return "memory" if self.traffic > self.flops else "compute"

    @property
    def bound_words(self) -> str:
        return "bound by the network" if self.bound == "network" else f"on the {self.bound} side of the roofline"


def tpu_step_time(
    sent: list[Collective],
    mesh_shape: dict[str, int],
    link: Interconnect,
    *,
    flops: float,
    compute: float,
    traffic: float,
) -> StepTime:
    """The estimate for one chip.

    Args:
      mesh_shape: of one slice.
      flops: seconds of the model's FLOPs, the chip's share, at its peak.
      compute: seconds of computing.
      traffic: seconds that its memory needs.
    """
    exposed = sum(network_seconds(row.exposed_bytes, row, mesh_shape, link) for row in sent)
    alone = sum(network_seconds(row.bytes, row, mesh_shape, link) for row in sent)
    return StepTime(
        flops=flops,
        compute=compute,
        traffic=traffic,
        hidden=alone - exposed,
        exposed=exposed,
    )
