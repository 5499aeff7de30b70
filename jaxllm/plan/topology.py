"""TPU slices that are not here: their devices, as the TPU compiler knows them, on a machine without one."""

import contextlib
import difflib
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

GENERATIONS = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2}
"""TPU generations, and in how many dimensions their chips are joined."""
ALIASES = {"v5litepod": "v5e", "v5lite": "v5e", "trillium": "v6e"}
SHAPES = {
    2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    3: ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16"),
}
"""Slices that can be rented, by the number of dimensions; cloud.google.com/tpu/docs."""
CORES_IN_NAME = ("v4", "v5p")
"""Generations whose accelerator types count cores, two a chip: v5p-32 has 16 chips."""
CUBE = 4
"""Chips along each side of the blocks that larger slices in three dimensions are put together from."""
MOST_CHIPS = {"v4": 4096, "v5p": 6144}
"""Of one slice, for generations whose slices are put together from such blocks."""
NEAR = 3
"""Slices that a message names where there is none of the size asked for."""
NEAR_SIZE = 16
"""Chips of the slices that a message names where no size was given."""
NEWER = {"ironwood": "v7"}
"""Generations by another name that are not planned for."""
ABSENT_MACHINE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
"""What libtpu asks of the machine that it runs on: without answers it looks for a TPU and for the cloud's metadata server, for
minutes, and prints a page of warnings. The slice to plan for is told otherwise."""


def topology_devices(name: str, slices: int = 1) -> Sequence[Any]:
    """The devices of a TPU slice, or of several joined by the data centre's network.

    Args:
      name: "v5e:4x4", or an accelerator type, "v5e-16" or "v5p-32".

    Raises:
      ValueError: a slice that does not exist, with the nearest; libtpu missing.
    """
    generation, shape = _parse(name)
    if slices < 1:
        raise ValueError(f"slices must be at least 1: got {slices}")
    from jax.experimental import topologies

    _require_libtpu()
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if math.prod(_sides(shape)) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)  # by default a host has four
    if generation == "v4":
        options["chip_config_name"] = "megacore"  # one device a chip, as on the machine; by default one a core
    try:
        with _without_a_tpu():
            return topologies.get_topology_desc(f"{generation}:{shape}", platform="tpu", **options).devices
    except Exception as error:
        raise ValueError(
            f"topology {generation}:{shape} is not known to this libtpu ({str(error).splitlines()[0][:120]}); "
            f"near it: {_near(generation, math.prod(_sides(shape)))}"
        ) from None


@contextlib.contextmanager
def _without_a_tpu() -> Iterator[None]:
    """libtpu reads its surroundings when it is first opened: what they do not say is said here, for so long only."""
    missing = [name for name in ABSENT_MACHINE if name not in os.environ]
    os.environ.update({name: ABSENT_MACHINE[name] for name in missing})
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]


def _parse(name: str) -> tuple[str, str]:
    """Generation and shape."""
    match = re.fullmatch(r"([a-z0-9]+)(?::([0-9]+(?:x[0-9]+)*)|-([0-9]+))", name.lower())
    generation = ALIASES.get(match[1], match[1]) if match else ""
    if match is None or generation not in GENERATIONS:
        raise ValueError(
            f"topology must be a TPU generation and a shape or size, such as v5e:4x4 or v5p-32: got {name!r}"
            f"{_hint(name, match)} (generations: {', '.join(GENERATIONS)})"
        )
    if match[2] is not None:
        _check_shape(generation, match[2])
        return generation, match[2]
    factor = _cores(generation)
    chips = int(match[3]) / factor
    by_size = {math.prod(_sides(shape)): shape for shape in SHAPES[GENERATIONS[generation]]}
    if chips not in by_size:
        raise ValueError(
            f"there is no {name}: near it are {_near(generation, chips)}; {generation} goes from "
            f"{generation}-{min(by_size) * factor} to {generation}-{max(by_size) * factor}"
        )
    return generation, by_size[int(chips)]


def _hint(name: str, match: re.Match[str] | None) -> str:
    """What was probably meant: a generation of nearly that name, or else of nearly that number, and its slice of that size."""
    given = re.split("[:-]", name.lower())[0]
    if given in GENERATIONS or given in ALIASES:
        return f"; name its size, such as {_near(ALIASES.get(given, given), NEAR_SIZE)}"
    spelled = difflib.get_close_matches(given, [*GENERATIONS, *ALIASES], n=2, cutoff=0.65)
    near = list(dict.fromkeys(ALIASES.get(other, other) for other in spelled))
    number = re.fullmatch(r"(?:tpu)?v?(\d)[a-z]*", NEWER.get(given, given))
    if not near and number:
        near = [min(GENERATIONS, key=lambda other: (abs(int(other[1]) - int(number[1])), other != "v5e"))]
    if not near:
        return ""
    if match is None:
        return f"; did you mean {' or '.join(near)}?"
    chips = math.prod(_sides(match[2])) if match[2] else int(match[3])
    slices = (_near(generation, chips / (_cores(generation) if match[3] else 1), 1) for generation in near)
    return f"; did you mean {' or '.join(slices)}?"


def _check_shape(generation: str, shape: str) -> None:
    sides, dimensions = _sides(shape), GENERATIONS[generation]
    if len(sides) != dimensions:
        raise ValueError(
            f"topology of {generation} has {dimensions} dimensions: got {shape!r}; near it are "
            f"{_near(generation, math.prod(sides))}"
        )
    cubes = dimensions == 3 and sides == sorted(sides) and all(side and side % CUBE == 0 for side in sides)
    if shape not in SHAPES[dimensions] and not (cubes and math.prod(sides) <= MOST_CHIPS[generation]):
        rule = f", or sides that are multiples of {CUBE}, the smallest first" if dimensions == 3 else ""
        raise ValueError(f"there is no {generation}:{shape}: near it are {_near(generation, math.prod(sides))}{rule}")


def _sides(shape: str) -> list[int]:
    return [int(side) for side in shape.split("x")]


def _cores(generation: str) -> int:
    """What the number in an accelerator type counts, for each chip."""
    return 2 if generation in CORES_IN_NAME else 1


def _near(generation: str, chips: int | float, count: int = NEAR) -> str:
    """The slices nearest in size, each by its shape and its accelerator type."""
    factor = _cores(generation)
    sizes = {shape: math.prod(_sides(shape)) for shape in SHAPES[GENERATIONS[generation]]}
    nearest = sorted(sizes, key=lambda shape: abs(math.log(sizes[shape] / max(chips, 0.5))))[:count]
    return ", ".join(f"{generation}:{shape} ({generation}-{sizes[shape] * factor})" for shape in nearest)


def _require_libtpu() -> None:
    import importlib.util

    if importlib.util.find_spec("libtpu") is None:
        raise ValueError("planning for a TPU needs its compiler, libtpu: pip install 'jaxllm[tpu]'")


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """Programs for devices that are not here can be written to JAX's compilation cache, and not read back."""
    enabled = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()
