"""Reads a checkpoint and compares every bit with what its manifest says was saved.

Damage is what is on disk and wrong: files that are missing, too short, cannot be decoded, or hold other bits. What the
system would not let us read (too many open files, permission, a failing network disk) is an OSError, and says nothing
about the checkpoint; any other error is nobody's fault but ours and passes as it is.
"""

import errno
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxllm.checkpoint import files
from jaxllm.checkpoint.config import CheckpointError
from jaxllm.checkpoint.digest import digest
from jaxllm.checkpoint.manifest import Damaged, Manifest
from jaxllm.checkpoint.quiet import no_coroutine_warnings
from jaxllm.distributed import gather, num_processes

MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
DECODING = (ValueError, KeyError, AttributeError, TypeError)  # what Orbax raises for JSON with a changed key or value
TENSORSTORE_DAMAGE = ("DATA_LOSS", "OUT_OF_RANGE", "NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION")


def read_verified(
    checkpointer: ocp.Checkpointer, folder: Path, wanted: Mapping[str, jax.ShapeDtypeStruct], prefix: str
) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """The arrays named in `wanted`, all there are under `prefix`, and the checkpoint's meta.

    Raises, with many processes on all of them what one of them found:
      Damaged: what is on disk is not what was saved.
      OSError: the system would not let us read it.
      CheckpointError: it does not fit `wanted`.
    """
    try:
        manifest, arrays = _read(checkpointer, folder, wanted, prefix)
    except Exception as error:
        _agree(error)
        raise
    _agree(None)  # before the digests, for which all processes are needed
    digests = jax.device_get([digest(arrays[name]) for name in wanted])
    for name, bits in zip(wanted, digests, strict=True):
        if manifest.leaves[name].digest != int(bits):
            raise Damaged(f"the bits of {name} are not those that were saved")
    return {name: arrays[name] for name in wanted}, manifest.meta


def _read(
    checkpointer: ocp.Checkpointer, folder: Path, wanted: Mapping[str, jax.ShapeDtypeStruct], prefix: str
) -> tuple[Manifest, Mapping[str, jax.Array]]:
    manifest = Manifest.read(folder / "manifest")
    if str(manifest.step) != folder.name:
        raise Damaged(f"the folder is named {folder.name} and holds step {manifest.step}")
    manifest.check_fits(wanted, prefix, folder)
    request, failure = files.request(wanted), None
    with no_coroutine_warnings():
        try:
            found = files.read(checkpointer, folder, request)
        except Exception as error:
            failure = _judge(error, folder)
    if failure is not None:
        raise failure
    return manifest, found["state"]


KINDS = (Damaged, CheckpointError, OSError, RuntimeError)
"""What a process may find, from the harmless to the worst: an older checkpoint may be good; what others found may pass."""


def _agree(error: Exception | None) -> None:
    """Raises on each process the worst that any of them found, unless it is this one's own `error`."""
    if num_processes() == 1:
        return
    kind = -1 if error is None else next((k for k, each in enumerate(KINDS) if isinstance(error, each)), len(KINDS) - 1)
    told = [json.loads(text) for text in gather(json.dumps([kind, str(error)]))]
    index, (worst, words) = max(enumerate(told), key=lambda found: found[1][0])
    if worst > kind:
        raise KINDS[worst](f"process {index}: {words}") from None


def _judge(error: Exception, folder: Path) -> Exception:
    """What a failed read means: Damaged, an OSError, or `error` itself."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    number = system_error(cause)
    if number is not None and number not in MISSING:
        return OSError(number, os.strerror(number), getattr(cause, "filename", None) or str(folder))
    code = re.match(r"([A-Z_]+): ", str(cause))
    decoding = isinstance(cause, DECODING) and (code is None or code[1] in TENSORSTORE_DAMAGE)
    if decoding or isinstance(cause, OSError):
        return _refusal(folder) or Damaged(reason(cause))
    return error


def _refusal(folder: Path) -> OSError | None:
    """Why some file in `folder` cannot be opened, if so: Orbax takes one for missing that it is not allowed to see."""

    def refuse(error: OSError) -> None:
        raise error

    try:
        for parent, _, names in os.walk(folder, onerror=refuse):
            for name in names:
                open(os.path.join(parent, name), "rb").close()
    except OSError as error:
        return OSError(error.errno, error.strerror, error.filename)  # a new one: not tied to the failed read's remains
    return None


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
    found = re.search(r"os_error_code(?:\[\d+\])?='(\d+)'", str(error))
    return int(found[1]) if found else None
