"""Reads a checkpoint and compares every bit with what its manifest says was saved."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxllm.checkpoint import files
from jaxllm.checkpoint.digest import digest
from jaxllm.checkpoint.manifest import Damaged, Manifest
from jaxllm.checkpoint.quiet import no_coroutine_warnings


def read_verified(
    checkpointer: ocp.AsyncCheckpointer, folder: Path, wanted: Mapping[str, jax.ShapeDtypeStruct], prefix: str
) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """The arrays named in `wanted`, all there are under `prefix`, and the checkpoint's meta.

    Raises:
      Damaged: what is on disk is not what was saved.
      CheckpointError: it is, and does not fit `wanted`.
    """
    manifest = Manifest.read(folder / "manifest")
    if str(manifest.step) != folder.name:
        raise Damaged(f"the folder is named {folder.name} and holds step {manifest.step}")
    manifest.check_fits(wanted, prefix, folder)
    damage = None
    with no_coroutine_warnings():
        try:
            arrays = files.read(checkpointer, folder, wanted)
            digests = jax.device_get([digest(arrays[name]) for name in wanted])
        except Exception as error:
            if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
                raise
            damage = reason(error)
    if damage is not None:
        raise Damaged(damage)
    for name, found in zip(wanted, digests, strict=True):
        if manifest.leaves[name].digest != int(found):
            raise Damaged(f"the bits of {name} are not those that were saved")
    return {name: arrays[name] for name in wanted}, manifest.meta


def reason(error: BaseException) -> str:
    """An error in a few words: the operating system's where there is one in it, else the beginning of its text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    number = system_error(error)
    text = str(error).strip() or type(error).__name__
    return os.strerror(number) if number else text.splitlines()[0][:300]


def system_error(error: BaseException) -> int | None:
    """The operating system's error number behind an error, where there is one."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return int(found[1]) if found else None
