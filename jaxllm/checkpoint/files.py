"""Orbax, and nothing else that touches arrays on disk: one folder a step, written beside and renamed when complete.

    <folder>/<step>/state/        every array, OCDBT on Zarr 3: a fixed small number of files for any number of arrays
    <folder>/<step>/manifest/     `jaxllm.checkpoint.manifest`
    <folder>/<step>.damaged/      a checkpoint found damaged, out of the way: kept for its owner to look at or delete

Arrays are not compressed: compressing weights saves 8 % of the space and takes four times as long, on the cores that
the next training steps need.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxllm.checkpoint.manifest import FILE_NAME
from jaxllm.distributed import num_processes, process_index

UNFINISHED = ".orbax-checkpoint-tmp"
LEAVING = ".leaving"
DAMAGED = ".damaged"


def make_writer() -> ocp.AsyncCheckpointer:
    """What writes one step at a time: each process its own pieces, which process 0 puts together at the end."""
    together = _processes(0, set(range(num_processes())))
    return ocp.AsyncCheckpointer(_handler(together), multiprocessing_options=together)


def make_reader() -> ocp.Checkpointer:
    """What reads one step at a time: each process what it needs, without waiting for another."""
    alone = _processes(process_index(), {process_index()})
    return ocp.Checkpointer(_handler(alone), multiprocessing_options=alone)


def _handler(processes: ocp.options.MultiprocessingOptions) -> ocp.CompositeCheckpointHandler:
    arrays = ocp.PyTreeCheckpointHandler(
        use_ocdbt=True, use_zarr3=True, use_compression=False, multiprocessing_options=processes
    )
    manifest = ocp.JsonCheckpointHandler(filename=FILE_NAME, multiprocessing_options=processes)
    return ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=processes), state=arrays, manifest=manifest
    )


def _processes(primary: int, active: set[int]) -> ocp.options.MultiprocessingOptions:
    if num_processes() == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(primary_host=primary, active_processes=active)


def write(checkpointer: ocp.AsyncCheckpointer, folder: Path, arrays: Mapping[str, jax.Array], manifest: Any) -> None:
    """Copy `arrays` to the host and start writing them to `folder`, which appears once everything is in it."""
    state = ocp.args.PyTreeSave(dict(arrays))
    checkpointer.save(folder, args=ocp.args.Composite(state=state, manifest=ocp.args.JsonSave(manifest)))


def request(wanted: Mapping[str, jax.ShapeDtypeStruct]) -> ocp.args.Composite:
    """What to `read`: the arrays named in `wanted`, each with the sharding asked for, and no other."""
    item = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or _first_device())
        for name, leaf in wanted.items()
    }
    restore_args = ocp.checkpoint_utils.construct_restore_args(item)
    return ocp.args.Composite(state=ocp.args.PyTreeRestore(item, restore_args=restore_args, partial_restore=True))


def read(checkpointer: ocp.Checkpointer, folder: Path, wanted: ocp.args.Composite) -> ocp.args.Composite:
    """The arrays of a `request`, as `state`."""
    return checkpointer.restore(folder, args=wanted)


def _first_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def finished_steps(folder: Path) -> list[int]:
    """Steps with a complete folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def set_aside(folder: Path, step: int) -> None:
    """Make room for a new save of `step`, if there is one already."""
    if (folder / str(step)).exists():
        (folder / str(step)).rename(folder / f"{step}{LEAVING}")


def put_back(folder: Path, step: int) -> None:
    """Undo `set_aside`."""
    if (folder / f"{step}{LEAVING}").exists():
        (folder / f"{step}{LEAVING}").rename(folder / str(step))


def keep_as_damaged(folder: Path, step: int) -> None:
    """Rename a step so that it is no checkpoint any more; an earlier one of that name stays, too."""
    target, copies = folder / f"{step}{DAMAGED}", 1
    while target.exists():
        copies += 1
        target = folder / f"{step}{DAMAGED}-{copies}"
    (folder / str(step)).rename(target)


def remove_step(folder: Path, step: int) -> None:
    """Delete a step so that it disappears at once, even if the deletion is interrupted."""
    set_aside(folder, step)
    shutil.rmtree(folder / f"{step}{LEAVING}")


def remove_unfinished(folder: Path, but: int | None = None) -> None:
    """Delete what interrupted saves and deletions left behind, except the step `but` that was set aside."""
    if folder.is_dir():
        for path in folder.iterdir():
            if UNFINISHED in path.name or (path.name.endswith(LEAVING) and path.name != f"{but}{LEAVING}"):
                shutil.rmtree(path, ignore_errors=True)
