"""Would this recipe run here? What `jaxllm doctor RECIPE` looks at besides the machine: mesh, data files, where it writes."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxllm.data import ImageDataConfig
from jaxllm.data.source import find_set
from jaxllm.hardware import Finding
from jaxllm.recipe.recipe import Recipe
from jaxllm.recipe.run_folder import RUNS
from jaxllm.sharding import make_mesh

GIB = 2**30


def check_recipe(recipe: Recipe, num_processes: int) -> dict[str, list[Finding]]:
    """Findings by subject. Starts JAX's backend.

    Args:
      num_processes: how many the run will have; each with the devices that this one has.
    """
    return {
        "mesh": list(_mesh(recipe, num_processes)),
        "data": list(_data(recipe, num_processes)),
        "run folder": list(_run_folder(recipe, num_processes)),
    }


def _mesh(recipe: Recipe, num_processes: int) -> Iterator[Finding]:
    devices = jax.devices() * (num_processes if jax.process_count() == 1 else 1)
    try:
        mesh = make_mesh(recipe.mesh, recipe.batch_size // recipe.accumulate, devices)
    except ValueError as error:
        yield Finding("broken", str(error), "choose other --mesh sizes or another --batch-size")
        return
    split = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1) or "one device"
    told = f"{split}, of {len(devices)} devices of {num_processes} process(es)"
    if mesh.devices.size < len(devices):
        level = "note" if num_processes == 1 else "broken"
        yield Finding(
            level, f"{told}: {len(devices) - mesh.devices.size} stay idle", "choose a batch_size that divides by more"
        )
    else:
        yield Finding("ok", told)


def _data(recipe: Recipe, num_processes: int) -> Iterator[Finding]:
    data = recipe.data
    try:
        found = find_set(data.dataset, data_dir=data.data_dir)
    except (ValueError, OSError) as error:
        yield Finding("broken", str(error), "build or name the data set on every host")
        return
    kind = "images" if isinstance(data, ImageDataConfig) else "documents"
    for split, size in found.sizes.items():
        files = len(list(found.folder.glob(f"*-{split}.array_record*")))
        told = f"{split}: {size:,} {kind} in {files} file(s) of {found.folder}"
        if num_processes > 1 and files % num_processes:
            advice = "fine on local disks; on a network disk a number of files that the processes divide spreads the load"
            yield Finding("note", f"{told}; {num_processes} processes do not divide them, and all read from all", advice)
        else:
            yield Finding("ok", told)


def _run_folder(recipe: Recipe, num_processes: int) -> Iterator[Finding]:
    folder = Path(recipe.run_dir) if recipe.run_dir is not None else RUNS / recipe.name
    where = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not os.access(where, os.W_OK):
        yield Finding("broken", f"{folder} cannot be written", "give another --run-dir")
        return
    free = shutil.disk_usage(where).free
    yield Finding(
        "ok" if free > GIB else "note", f"{folder}: {free / GIB:.0f} GiB free", None if free > GIB else "free some space"
    )
    if num_processes > 1:
        advice = "give a --run-dir that all hosts mount" if recipe.run_dir is None else None
        yield Finding("note" if advice else "ok", f"{folder} must be the same folder for all {num_processes} processes", advice)
