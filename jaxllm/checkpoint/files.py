"""Orbax, and nothing else that touches arrays on disk or in a bucket: one folder a step.

    <folder>/<step>/state/        every array, OCDBT on Zarr 3: a fixed small number of files for any number of arrays
    <folder>/<step>/manifest/     `jaxllm.checkpoint.manifest`

Arrays are not compressed: compressing weights saves 8 % of the space and takes four times as long, on the cores that
the next training steps need.
"""

from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxllm.checkpoint.manifest import FILE_NAME
from jaxllm.distributed import num_processes, process_index


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


def write(checkpointer: ocp.AsyncCheckpointer, folder: str, arrays: Mapping[str, jax.Array], manifest: Any) -> None:
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


def read(checkpointer: ocp.Checkpointer, folder: str, wanted: ocp.args.Composite) -> ocp.args.Composite:
    """The arrays of a `request`, as `state`."""
    return checkpointer.restore(folder, args=wanted)


def _first_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
