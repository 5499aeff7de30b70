"""Reads a checkpoint and compares every bit with what its manifest says was saved.

Damage is what is on disk and wrong: files that are missing, too short, cannot be decoded, or hold other bits. What the
system would not let us read (too many open files, permission, a failing network disk) is an OSError, and says nothing
about the checkpoint; any other error is nobody's fault but ours and passes as it is.
"""

import errno
import gc
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxllm.checkpoint import files
from jaxllm.checkpoint.config import CheckpointError
from jaxllm.checkpoint.digest import digest
from jaxllm.checkpoint.in_bucket import InBucket
from jaxllm.checkpoint.manifest import Damaged, Manifest
from jaxllm.checkpoint.on_disk import OnDisk
from jaxllm.checkpoint.quiet import no_coroutine_warnings
from jaxllm.distributed import gather, num_processes

MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
DECODING = (ValueError, KeyError, AttributeError, TypeError)  # what Orbax raises for JSON with a changed key or value
TENSORSTORE_DAMAGE = ("DATA_LOSS", "OUT_OF_RANGE", "NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION")
TENSORSTORE_REFUSALS = ("PERMISSION_DENIED", "UNAUTHENTICATED", "UNAVAILABLE", "DEADLINE_EXCEEDED")


def read_verified(
    checkpointer: ocp.Checkpointer,
    place: OnDisk | InBucket,
    step: int,
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    prefix: str,
) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """The arrays named in `wanted`, all there are under `prefix`, and the checkpoint's meta.

    Raises, with many processes on all of them what one of them found:
      Damaged: what is on disk is not what was saved.
      OSError: the system would not let us read it.
      CheckpointError: it does not fit `wanted`.
    """
    try:
        manifest, arrays = _read(checkpointer, place, step, wanted, prefix)
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
    checkpointer: ocp.Checkpointer,
    place: OnDisk | InBucket,
    step: int,
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    prefix: str,
) -> tuple[Manifest, Mapping[str, jax.Array]]:
    manifest = Manifest.read(place, step)
    if manifest.step != step:
        raise Damaged(f"the folder is named {step} and holds step {manifest.step}")
    manifest.check_fits(wanted, prefix, place.name(step))
    request, failure = files.request(wanted), None
    with no_coroutine_warnings(), place.opened(step) as folder:
        try:
            found = files.read(checkpointer, folder, request)
        except Exception as error:
            failure = _judge(error, place, step)
        if failure is not None:
            gc.collect()  # the coroutines that the error has left
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


def _judge(error: Exception, place: OnDisk | InBucket, step: int) -> Exception:
    """What a failed read means: Damaged, an OSError, or `error` itself."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    number = system_error(cause)
    if number is not None and number not in MISSING:
        return OSError(number, os.strerror(number), getattr(cause, "filename", None) or place.name(step))
    explained = place.explain(cause)
    if isinstance(explained, OSError) and explained is not cause and not isinstance(explained, FileNotFoundError):
        return explained
    code = re.match(r"([A-Z_]+): ", str(cause))
    if code is not None and code[1] in TENSORSTORE_REFUSALS and isinstance(cause, ValueError):
        return OSError(errno.EIO, reason(cause), place.name(step))
    decoding = isinstance(cause, DECODING) and (code is None or code[1] in TENSORSTORE_DAMAGE)
    if decoding or isinstance(cause, OSError):
        return place.refusal(step) or Damaged(reason(cause))
    return error


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
