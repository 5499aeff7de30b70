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
    # Without these, libtpu looks for a TPU and for the cloud's metadata server, for minutes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    _require_libtpu()
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if math.prod(map(int, shape.split("x"))) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)  # by default a host has four
    if generation == "v4":
        options["chip_config_name"] = "megacore"  # one device a chip, as on the machine; by default one a core
    try:
        return topologies.get_topology_desc(f"{generation}:{shape}", platform="tpu", **options).devices
    except Exception as error:
        raise ValueError(
            f"topology {generation}:{shape} is not known to this libtpu ({str(error).splitlines()[0][:120]}); "
            f"slices of {generation} that can be rented: {', '.join(SHAPES[GENERATIONS[generation]])}"
        ) from None


def _parse(name: str) -> tuple[str, str]:
    """Generation and shape."""
    match = re.fullmatch(r"([a-z0-9]+)(?::([0-9x]+)|-([0-9]+))", name.lower())
    generation = ALIASES.get(match[1], match[1]) if match else ""
    if match is None or generation not in GENERATIONS:
        near = difflib.get_close_matches(name.lower().split(":")[0].split("-")[0], [*GENERATIONS, *ALIASES], n=1)
        hint = f"; did you mean {ALIASES.get(near[0], near[0])}?" if near else ""
        raise ValueError(
            f"topology must be a TPU generation and a shape or size, such as v5e:4x4 or v5p-32: got {name!r}{hint} "
            f"(generations: {', '.join(GENERATIONS)})"
        )
    known = SHAPES[GENERATIONS[generation]]
    if match[2] is not None:
        if len(match[2].split("x")) != GENERATIONS[generation] or not all(part.isdigit() for part in match[2].split("x")):
            raise ValueError(
                f"topology of {generation} has {GENERATIONS[generation]} dimensions: got {match[2]!r}; "
                f"slices that can be rented: {', '.join(known)}"
            )
        return generation, match[2]
    factor = 2 if generation in CORES_IN_NAME else 1
    chips = int(match[3]) / factor
    by_size = {math.prod(map(int, shape.split("x"))): shape for shape in known}
    if chips not in by_size:
        names = ", ".join(f"{generation}-{size * factor}" for size in sorted(by_size))
        raise ValueError(f"there is no {name}: {generation} has {names}; or give a shape, as in {generation}:{known[3]}")
    return generation, by_size[int(chips)]


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
