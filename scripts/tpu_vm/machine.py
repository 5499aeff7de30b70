"""What to rent: a TPU slice, or several, described in a TOML file."""

import dataclasses
import difflib
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Generation:
    name: str
    """What people call it."""
    prefix: str
    """What gcloud calls it."""
    runtime: str
    """Google's software image for JAX; cloud.google.com/tpu/docs/runtimes."""
    shapes: tuple[str, ...]
    """Slices that have an accelerator type, which is their size; chips in each direction in which they are joined."""

    @property
    def dimensions(self) -> int:
        return self.shapes[0].count("x") + 1

    @property
    def factor(self) -> int:
        """v4-16 and v5p-16 count cores, two a chip; v5litepod-16 and v6e-16 count chips."""
        return 2 if self.dimensions == 3 else 1

    @property
    def chips(self) -> tuple[int, ...]:
        return tuple(map(count, self.shapes))


def count(shape: str) -> int:
    return math.prod(map(int, shape.split("x")))


FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
GENERATIONS = (
    Generation(name="v4", prefix="v4", runtime="tpu-ubuntu2204-base", shapes=DEEP),
    Generation(name="v5e", prefix="v5litepod", runtime="v2-alpha-tpuv5-lite", shapes=FLAT),
    Generation(name="v5p", prefix="v5p", runtime="v2-alpha-tpuv5", shapes=(*DEEP, "16x16x24")),
    Generation(name="v6e", prefix="v6e", runtime="v2-alpha-tpuv6e", shapes=FLAT),
)
"""TPUs that come as TPU VMs; cloud.google.com/tpu/docs/v4, v5e, v5p, v6e. Later ones come through GKE only."""


@dataclass(frozen=True)
class Slice:
    """Chips joined by their own network."""

    generation: Generation
    chips: int
    shape: str | None
    """The shape, where it is not the one that goes with the size."""

    @property
    def accelerator_type(self) -> str:
        return f"{self.generation.prefix}-{self.chips * self.generation.factor}"

    @property
    def workers(self) -> int:
        """Virtual machines: one for up to 8 chips of v5e and v6e, else one for every 4 chips."""
        return 1 if self.generation.dimensions == 2 and self.chips <= 8 else self.chips // 4

    @property
    def track(self) -> list[str]:
        """gcloud's release track that can create it: --type of the general one knows v4 and older only."""
        return ["alpha"] if self.shape and self.generation.name != "v4" else []

    @property
    def flags(self) -> list[str]:
        if self.shape is None:
            return [f"--accelerator-type={self.accelerator_type}"]
        return [f"--type={self.generation.prefix}", f"--topology={self.shape}"]


def parse_slice(text: str) -> Slice:
    """The slice called `v5e-16`, `v5litepod-16` or `v5e:4x4`, and so on.

    Raises:
      ValueError: there is no such slice; the nearest are named.
    """
    match = re.fullmatch(r"([a-z0-9]+)(?::([1-9][0-9]*(?:x[1-9][0-9]*)+)|-([0-9]+))", text.lower())
    spellings = {spelling: generation for generation in GENERATIONS for spelling in (generation.name, generation.prefix)}
    generation = spellings.get(match[1]) if match else None
    if match is None or generation is None:
        head = re.split(r"[-:]", text.lower())[0]
        if head in ("v7x", "tpu7x", "ironwood"):
            raise ValueError(
                f"type must be a TPU that comes as a TPU VM: got {text!r}, which comes through GKE only, see README.md"
            )
        near = difflib.get_close_matches(head, spellings, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near and near[0] != head else ""
        names = ", ".join(generation.name for generation in GENERATIONS)
        raise ValueError(
            f"type must be a TPU and a size or shape, such as v5e-16 or v5p:4x4x4: got {text!r}{hint} (TPUs: {names})"
        )
    chips = count(match[2]) if match[2] else int(match[3]) // generation.factor
    uneven = bool(match[3]) and int(match[3]) % generation.factor != 0
    if match[2] and match[2].count("x") + 1 != generation.dimensions:
        raise ValueError(f"a shape of {generation.name} has {generation.dimensions} numbers: got {text!r}")
    if generation.dimensions == 3 and match[2] and match[2] not in generation.shapes and chips % 4 == 0:
        return Slice(generation, chips, match[2])  # one of the many shapes that no size stands for
    if chips not in generation.chips or uneven:
        nearest = sorted(sorted(generation.chips, key=lambda size: abs(size - chips))[:3])
        names = ", ".join(f"{generation.name}-{size * generation.factor}" for size in nearest)
        raise ValueError(f"there is no {text}: the nearest sizes of {generation.name} are {names}")
    return Slice(generation, chips, None)


@dataclass(frozen=True, kw_only=True)
class Machine:
    name: str
    """Name of the TPU VM, or of the queued resource."""
    type: str
    """The slice: "v5e-16", "v5e:4x4", or gcloud's "v5litepod-16"."""
    zone: str
    """Zone that has such TPUs; cloud.google.com/tpu/docs/regions-zones."""
    bucket: str
    """Where runs live, "gs://bucket/folder": a preempted machine loses its disks."""
    project: str | None = None
    """Google Cloud project; by default the one that gcloud is set to."""
    slices: int = 1
    """Slices of that type, joined by the data centre's network."""
    spot: bool = False
    """Cheaper, and may be taken away at any time."""
    queued: bool = False
    """Wait in the queue for capacity, instead of failing where there is none."""
    runtime: str | None = None
    """Software image; by default Google's for that TPU."""
    prepare: str | None = None
    """Shell command that every worker runs after each installation, such as one that copies the data to its disk."""
    create_flags: tuple[str, ...] = ()
    """More flags of gcloud's create: a network, a service account, a reservation."""
    ssh_flags: tuple[str, ...] = ()
    """More flags of gcloud's ssh and scp."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", self.name):
            raise ValueError(
                f"name must be lower-case letters, digits and hyphens, at most 40, a letter first: got {self.name!r}"
            )
        if not re.fullmatch(r"[a-z]+-[a-z]+[0-9]+-[a-z]", self.zone):
            raise ValueError(f"zone must look like us-west4-a: got {self.zone!r}")
        if not re.fullmatch(r"gs://[a-z0-9][-_.a-z0-9]*(/[^/\s]+)*", self.bucket):
            raise ValueError(
                f"bucket must be a folder in a bucket, such as gs://my-bucket/jaxllm, no / at its end: got {self.bucket!r}"
            )
        parse_slice(self.type)
        if self.slices < 1:
            raise ValueError(f"slices must be at least 1: got {self.slices}")
        if self.slices > 1 and not self.queued:
            raise ValueError("several slices come by a queued resource only: set queued = true")
        if self.slices > 1 and self.slice.workers == 1:
            raise ValueError(f"several slices must have several workers each: {self.type} has one; take a larger type")

    @property
    def slice(self) -> Slice:
        return parse_slice(self.type)

    @property
    def workers(self) -> int:
        """Virtual machines in all."""
        return self.slice.workers * self.slices


def load_machine(path: Path) -> Machine:
    """The machine in a TOML file.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: an unknown key, with the nearest; a missing one; a value of a wrong type, or one that cannot be.
    """
    if not path.is_file():
        there = ", ".join(map(str, sorted(Path(__file__).parent.glob("machines/*.toml"))))
        raise FileNotFoundError(f"no machine file {path}; copy one of {there}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return Machine(**_checked(values))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    fields = {field.name: field for field in dataclasses.fields(Machine)}
    for name, value in values.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            raise ValueError(f"unknown key {name}" + (f": did you mean {near[0]}?" if near else f"; keys: {', '.join(fields)}"))
        wanted = {"slices": int, "spot": bool, "queued": bool, "create_flags": list, "ssh_flags": list}.get(name, str)
        texts = wanted is not list or isinstance(value, list) and all(isinstance(item, str) for item in value)
        if type(value) is not wanted or not texts:
            kind = {int: "a whole number", bool: "true or false", list: "a list of texts", str: "a text"}[wanted]
            raise ValueError(f"{name} must be {kind}: got {value!r}")
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in values]
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
