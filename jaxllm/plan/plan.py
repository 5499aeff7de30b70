"""What compiling a step says of it: bytes, collectives, time."""

from dataclasses import dataclass

from jaxllm.plan.collectives import Collective
from jaxllm.plan.estimate import StepTime
from jaxllm.plan.memory import Memory
from jaxllm.plan.work import Phase


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What compiling says of a step. Times are estimates, bytes are the compiler's."""

    recipe: str
    phase: Phase
    topology: str
    slices: int
    device: str
    devices: int
    mesh: dict[str, int]
    """Axes that split something."""
    parameters: int
    tokens_per_step: int
    unit: str
    """What is counted there: tokens or images."""
    flops_per_step: float
    """Of the model, counted analytically: forward, and in training backward."""
    memory: Memory
    collectives: list[Collective]
    collective_seconds: list[float]
    """Of each, alone; empty for devices without figures."""
    traffic_bytes: int
    """That one device reads from and writes to its memory in a step."""
    kernel_flops: float
    """Of one device in attention kernels, which the compiler gives no cycles for."""
    cycles: dict[str, int]
    """The compiler's, by part of the model; empty for devices it has none for."""
    shares: dict[str, float]
    """Share of computing, estimated, by part of the model, the largest first."""
    seconds: StepTime | None
    """None for devices without figures, and where the step does not fit."""
    peak_flops: float | None
    """FLOP/s of one device in the recipe's type: its maker's figure, or of a device here what was measured."""
    bandwidth: float | None
    """Bytes per second of one device's memory, likewise."""
    lower_seconds: float
    compile_seconds: float
    attention_kernel: str | None
    """Who computes attention in the compiled program; None where there is none."""
    warnings: tuple[str, ...]
    """What the estimate could not know."""

    @property
    def mfu(self) -> float | None:
        """The model's FLOPs over what the devices could do in the estimated time."""
        return None if self.seconds is None else self.seconds.flops / self.seconds.step

    @property
    def tokens_per_second(self) -> float | None:
        return None if self.seconds is None else self.tokens_per_step / self.seconds.step

    def dollars_per_billion_tokens(self, dollars_per_chip_hour: float) -> float | None:
        speed = self.tokens_per_second
        return None if speed is None else 1e9 / speed / 3600 * self.devices * dollars_per_chip_hour


def where(topology: str, slices: int) -> str:
    """The machine in words."""
    return topology if slices == 1 else f"{slices} slices of {topology}"
