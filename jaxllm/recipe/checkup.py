"""Would this recipe run here? What `jaxllm doctor RECIPE` looks at besides the machine: mesh, data, and where it writes."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxllm.data import ImageDataConfig
from jaxllm.data.source import find_set, url_of
from jaxllm.hardware import Finding, cache_dir
from jaxllm.hardware.bucket import ADVICE, Bucket, in_bucket, local_path
from jaxllm.hardware.checkup import GIB, existing
from jaxllm.hardware.counted import counted
from jaxllm.recipe.recipe import Recipe
from jaxllm.recipe.run_folder import RUNS
from jaxllm.sharding import make_mesh, use_all


def check_recipe(recipe: Recipe, num_processes: int) -> dict[str, list[Finding]]:
    """Findings by subject. Starts JAX's backend.

    Args:
      num_processes: how many the run will have; each with the devices that this one has.
    """
    return {
        "mesh": list(_mesh(recipe, num_processes)),
        "data": list(_data(recipe, num_processes)),
        "run folder": check_run_dir(recipe.run_dir, num_processes, RUNS / recipe.name),
    }


def check_run_dir(run_dir: str | None, num_processes: int, default: Path = RUNS) -> list[Finding]:
    """Whether a run can write there: in a folder, or at the URL of a bucket."""
    if run_dir is not None and in_bucket(run_dir):
        return [_writable(run_dir, num_processes)]
    return list(_folder(local_path(run_dir or default), num_processes, shared=run_dir is not None))


def _mesh(recipe: Recipe, num_processes: int) -> Iterator[Finding]:
    devices = jax.devices() * (num_processes if jax.process_count() == 1 else 1)
    advice = use_all(recipe.mesh, len(devices), recipe.batch_size, recipe.accumulate)
    try:
        mesh = make_mesh(recipe.mesh, recipe.batch_size // recipe.accumulate, devices)
    except ValueError as error:
        yield Finding("broken", str(error), advice or "choose other --mesh sizes or another --batch-size")
        return
    split = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1) or "one device"
    told = f"{split}, of {counted(len(devices), 'device')} of {counted(num_processes, 'process')}"
    if mesh.devices.size < len(devices):
        level = "note" if num_processes == 1 else "broken"
        yield Finding(level, f"{told}: {len(devices) - mesh.devices.size} stay idle", advice)
    else:
        yield Finding("ok", told)


def _data(recipe: Recipe, num_processes: int) -> Iterator[Finding]:
    data = recipe.data
    url = url_of(data.dataset, data.data_dir)
    if url is not None and not url.startswith("file://"):
        yield _readable(url)
        return
    try:
        found = find_set(data.dataset, data_dir=data.data_dir)
    except (ValueError, OSError) as error:
        yield Finding("broken", str(error), "build or name the data set on every host")
        return
    kind = "image" if isinstance(data, ImageDataConfig) else "document"
    for split, size in found.sizes.items():
        files = len(list(found.folder.glob(f"*-{split}.array_record*")))
        told = f"{split}: {counted(size, kind)} in {counted(files, 'file')} of {found.folder}"
        if num_processes > 1 and files % num_processes:
            advice = "fine on local disks; on a network disk a number of files that the processes divide spreads the load"
            yield Finding("note", f"{told}; {num_processes} processes do not divide them, and all read from all", advice)
        else:
            yield Finding("ok", told)


def _readable(url: str) -> Finding:
    """Of a data set in a bucket, which is copied to this host only when a run needs it."""
    try:
        found = Bucket(url).find()
    except (ValueError, OSError) as error:
        return _refused(url, error)
    if not found:
        return Finding("broken", f"{url}: there is nothing", "name the folder that holds dataset_info.json")
    size, cache = sum(found.values()), cache_dir()
    free = shutil.disk_usage(existing(cache)).free
    there = f"{counted(len(found), 'object')}, {size / GIB:.1f} GiB"
    told = f"{url}: {there}, which each host copies to {cache}, {free / GIB:.0f} GiB free"
    return Finding("ok", told) if free > size else Finding("broken", told, "set JAXLLM_CACHE to a folder of a larger disk")


def _writable(url: str, num_processes: int) -> Finding:
    if num_processes > 1 and not url.startswith(("gs://", "gcs://")):
        return Finding("broken", f"{url}: {num_processes} processes cannot write there", "give a gs:// URL, or a shared folder")
    begin = time.perf_counter()
    try:
        Bucket(url).now()
    except (ValueError, OSError) as error:
        return _refused(url, error)
    return Finding("ok", f"{url}: an object written, read and deleted in {time.perf_counter() - begin:.1f} s")


def _refused(url: str, error: Exception) -> Finding:
    if isinstance(error, PermissionError):
        return Finding("broken", f"{url}: no access", ADVICE)
    if isinstance(error, OSError):
        return Finding("broken", f"{url}: {error.strerror or error}", "see that this host reaches it, or give another URL")
    told, _, advice = str(error).rpartition(": ")
    return Finding("broken", told, advice)


def _folder(folder: Path, num_processes: int, *, shared: bool) -> Iterator[Finding]:
    where = existing(folder)
    if not os.access(where, os.W_OK):
        yield Finding("broken", f"{folder} cannot be written", "give another --run-dir")
        return
    free = shutil.disk_usage(where).free
    yield Finding(
        "ok" if free > GIB else "note", f"{folder}: {free / GIB:.0f} GiB free", None if free > GIB else "free some space"
    )
    if num_processes > 1:
        advice = None if shared else "give a --run-dir that all hosts mount, or a gs:// URL"
        yield Finding("note" if advice else "ok", f"{folder} must be the same folder for all {num_processes} processes", advice)
